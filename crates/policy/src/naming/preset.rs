use std::fmt;
use std::str::FromStr;

use ferry_oci::{ImageReference, Malformed, Name, Registry};

/// How the repository of an image is called at a target that holds images of many registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// As at the source, without its registry: `library/alpine`.
    Keep,
    /// The whole source in one part, joined by dots: `registry.k8s.io.coredns.coredns`.
    Dots,
    /// The whole source in one part, joined by underscores: `gcr.io_istio-release_pilot`.
    Underscores,
    /// The last part alone: `alpine`.
    Basename,
}

impl Preset {
    /// All of them, the ones that say most about the source with the least surprise first: `keep` changes nothing; `dots`
    /// and `underscores` carry the whole source, so that images of different sources do not meet; under `basename` they
    /// may, so it comes last.
    pub const ALL: [Self; 4] = [Self::Keep, Self::Dots, Self::Underscores, Self::Basename];

    /// The name as it is written in options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Dots => "dots",
            Self::Underscores => "underscores",
            Self::Basename => "basename",
        }
    }

    /// The repository name that `source` gets, below whatever namespace the target has for it.
    ///
    /// # Errors
    /// [`Malformed`] if it would not be a repository name: it is longer than one may be, or the registry's own name
    /// holds what a repository's may not.
    pub fn name(self, source: &ImageReference) -> Result<Name, Malformed> {
        match self {
            Self::Keep => Ok(source.repository.clone()),
            Self::Dots => joined(source, "."),
            Self::Underscores => joined(source, "_"),
            Self::Basename => source.repository.as_str().rsplit('/').next().unwrap_or_default().parse(),
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Preset {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == text).ok_or_else(|| Malformed {
            what: "naming",
            input: text.to_owned(),
            reason: format!(
                "write one of {}, or a template such as {{registry}}/{{repository}}",
                Self::ALL.map(Self::as_str).join(", ")
            ),
        })
    }
}

/// Parts of names begin and end with a letter or digit, so any one separator between them is legal.
fn joined(source: &ImageReference, separator: &str) -> Result<Name, Malformed> {
    let path = source.repository.as_str().replace('/', separator);
    format!("{}{separator}{path}", legal(&source.registry)).parse()
}

/// The registry in the letters of a repository name. The colon before a port becomes a dash: neither preset joins with
/// one, and no domain ends in a dash and a number, so it can be told from the host and from the path. Of an IPv6 address
/// the brackets go, and a `::` at an end is written with the zero that it stands for, because no name begins or ends with
/// a dash.
pub(crate) fn legal(registry: &Registry) -> String {
    let text = registry.as_str().to_ascii_lowercase();
    let text = text.replace("[::", "0::").replace("::]", "::0");
    text.replace(['[', ']'], "").replace(':', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(preset: Preset, source: &str) -> String {
        preset.name(&source.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn presets() {
        for (source, names) in [
            (
                "alpine:3.20",
                [
                    "library/alpine",
                    concat!("docker.io.", "library.alpine"),
                    "docker.io_library_alpine",
                    "alpine",
                ],
            ),
            (
                "registry.k8s.io/kube-apiserver",
                [
                    "kube-apiserver",
                    "registry.k8s.io.kube-apiserver",
                    "registry.k8s.io_kube-apiserver",
                    "kube-apiserver",
                ],
            ),
            (
                "registry.k8s.io/coredns/coredns",
                [
                    "coredns/coredns",
                    "registry.k8s.io.coredns.coredns",
                    "registry.k8s.io_coredns_coredns",
                    "coredns",
                ],
            ),
            (
                "gcr.io/istio-release/pilot",
                ["istio-release/pilot", "gcr.io.istio-release.pilot", "gcr.io_istio-release_pilot", "pilot"],
            ),
            ("localhost:5000/a", ["a", "localhost-5000.a", "localhost-5000_a", "a"]),
            ("Host/a__b/c---d", ["a__b/c---d", "host.a__b.c---d", "host_a__b_c---d", "c---d"]),
            ("[2001:DB8::1]:5000/x", ["x", "2001-db8--1-5000.x", "2001-db8--1-5000_x", "x"]),
            ("[::1]/x", ["x", "0--1.x", "0--1_x", "x"]),
            ("[fe80::]:1/x", ["x", "fe80--0-1.x", "fe80--0-1_x", "x"]),
            ("[::]/x", ["x", "0--0.x", "0--0_x", "x"]),
        ] {
            assert_eq!(Preset::ALL.map(|preset| named(preset, source)), names, "{source}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let source: ImageReference = format!("registry.example/{}", "a".repeat(250)).parse().unwrap();
        assert!(Preset::Keep.name(&source).is_ok());
        let error = Preset::Dots.name(&source).unwrap_err();
        assert!(error.reason.contains("255"), "{error}");
    }

    #[test]
    fn presets_are_written_and_read() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().parse::<Preset>(), Ok(preset));
        }
        let error = "dashes".parse::<Preset>().unwrap_err();
        assert!(error.reason.contains("keep, dots, underscores, basename"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn short_names_are_always_legal(
            host in "([a-z0-9]{1,5}(-[a-z0-9]{1,3})?\\.){1,3}[a-z]{2,5}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}((\\.|_|__)[a-z0-9]{1,3}){0,2}){0,3}",
        ) {
            let source: ImageReference = format!("{host}/{path}").parse().unwrap();
            for preset in Preset::ALL {
                preset.name(&source).unwrap();
            }
            proptest::prop_assert!(!Preset::Dots.name(&source).unwrap().as_str().contains('/'));
        }
    }
}
