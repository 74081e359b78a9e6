use std::fmt;
use std::str::FromStr;

use ferry_oci::{ImageReference, Malformed, Tag};

use super::Named;
use super::preset::{Preset, legal};

/// A name with gaps: `{registry}/{repository}`, or with a tag `{dots}-{platform}:{tag}`.
///
/// What follows the last colon outside of gaps is the tag; without one the source's tag is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    repository: Vec<Part>,
    tag: Option<Vec<Part>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Gap(Gap),
}

/// What a gap is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// The source's registry, in the letters of a repository name.
    Registry,
    /// The source's whole repository path.
    Repository,
    Tag,
    /// The platform with dashes: `linux-arm64`.
    Platform,
    Preset(Preset),
}

impl Gap {
    const PLAIN: [(&str, Self); 4] = [
        ("registry", Self::Registry),
        ("repository", Self::Repository),
        ("tag", Self::Tag),
        ("platform", Self::Platform),
    ];

    fn all() -> impl Iterator<Item = (&'static str, Self)> {
        let presets = Preset::ALL.map(|preset| (preset.as_str(), Self::Preset(preset)));
        Self::PLAIN.into_iter().chain(presets)
    }
}

impl Template {
    /// Whether the name tells platforms apart.
    pub fn tells_platforms_apart(&self) -> bool {
        let parts = self.repository.iter().chain(self.tag.iter().flatten());
        parts.into_iter().any(|part| *part == Part::Gap(Gap::Platform))
    }

    /// The name that `source` gets, as [`super::Naming::name`].
    pub(super) fn name(&self, source: &ImageReference, platform: Option<&str>) -> Result<Named, Malformed> {
        let fill = |parts: &[Part]| -> Result<String, Malformed> {
            parts.iter().map(|part| self.fill(part, source, platform)).collect()
        };
        let repository = fill(&self.repository)?;
        let repository = repository.parse().map_err(|e| self.bad(source, e))?;
        let tag = self.tag.as_deref().map(fill).transpose()?;
        let tag: Option<Tag> = tag.map(|tag| tag.parse().map_err(|e| self.bad(source, e))).transpose()?;
        Ok(Named { repository, tag })
    }

    fn fill(
        &self,
        part: &Part,
        source: &ImageReference,
        platform: Option<&str>,
    ) -> Result<String, Malformed> {
        let gap = match part {
            Part::Text(text) => return Ok(text.clone()),
            Part::Gap(gap) => gap,
        };
        Ok(match gap {
            Gap::Registry => legal(&source.registry),
            Gap::Repository => source.repository.to_string(),
            Gap::Preset(preset) => preset.name(source)?.to_string(),
            Gap::Tag => match (&source.tag, source.digest) {
                (Some(tag), _) => tag.to_string(),
                (None, None) => Tag::latest().to_string(),
                (None, Some(_)) => return Err(self.malformed(format!("{source} has no tag for {{tag}}"))),
            },
            Gap::Platform => match platform {
                Some(platform) => dashes(platform),
                None => {
                    let reason = "{platform} needs --platform and --platform-mode single";
                    return Err(self.malformed(reason.to_owned()));
                }
            },
        })
    }

    fn bad(&self, source: &ImageReference, error: Malformed) -> Malformed {
        let Malformed { what, input, reason } = error;
        self.malformed(format!("for {source} it gives the {what} {input:?}: {reason}"))
    }

    fn malformed(&self, reason: String) -> Malformed {
        malformed(&self.text, reason)
    }
}

fn malformed(text: &str, reason: String) -> Malformed {
    Malformed { what: "naming", input: text.to_owned(), reason }
}

/// A platform in the letters that both names and tags may have.
fn dashes(platform: &str) -> String {
    let dashed: String = platform
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let mut words = dashed.split('-').filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |joined, word| joined + "-" + word)
}

impl FromStr for Template {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        // No gap's name has a colon.
        let (repository, tag) = match text.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (text, None),
        };
        let repository = parts(text, repository)?;
        let tag = tag.map(|tag| parts(text, tag)).transpose()?;
        if repository.is_empty() || tag.as_ref().is_some_and(Vec::is_empty) {
            return Err(malformed(text, "the name or the tag is empty".to_owned()));
        }
        Ok(Self { text: text.to_owned(), repository, tag })
    }
}

fn parts(whole: &str, text: &str) -> Result<Vec<Part>, Malformed> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(malformed(whole, "a { is not closed".to_owned()));
        };
        let Some((_, gap)) = Gap::all().find(|(known, _)| *known == name) else {
            let known: Vec<String> = Gap::all().map(|(known, _)| format!("{{{known}}}")).collect();
            return Err(malformed(
                whole,
                format!("{{{name}}} means nothing; there are {}", known.join(", ")),
            ));
        };
        if !before.is_empty() {
            found.push(Part::Text(before.to_owned()));
        }
        found.push(Part::Gap(gap));
        rest = after;
    }
    if rest.contains('}') {
        return Err(malformed(whole, "a } was not opened".to_owned()));
    }
    if !rest.is_empty() {
        found.push(Part::Text(rest.to_owned()));
    }
    Ok(found)
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(template: &str, source: &str, platform: Option<&str>) -> Result<String, Malformed> {
        let template: Template = template.parse()?;
        let Named { repository, tag } = template.name(&source.parse()?, platform)?;
        Ok(match tag {
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.to_string(),
        })
    }

    #[test]
    fn gaps_are_filled() {
        for (template, source, platform, expected) in [
            ("{registry}/{repository}", "quay.io/coreos/etcd:v3", None, "quay.io/coreos/etcd"),
            ("{registry}/{repository}", "localhost:5000/a", None, "localhost-5000/a"),
            ("mirror-{basename}", "quay.io/coreos/etcd", None, "mirror-etcd"),
            ("all:{basename}-{tag}", "quay.io/coreos/etcd:v3", None, "all:etcd-v3"),
            ("all:{basename}-{tag}", "alpine", None, "all:alpine-latest"),
            (
                "{dots}-{platform}",
                "registry.k8s.io/pause:3.10",
                Some("linux/arm64"),
                "registry.k8s.io.pause-linux-arm64",
            ),
            ("{basename}:{tag}-{platform}", "alpine:3", Some("linux/arm/v7"), "alpine:3-linux-arm-v7"),
            (
                "{keep}:{tag}-{platform}",
                "a/b:1",
                Some("windows(10.0.17763)/amd64"),
                "a/b:1-windows-10.0.17763-amd64",
            ),
            ("{underscores}", "gcr.io/istio-release/pilot", None, "gcr.io_istio-release_pilot"),
        ] {
            assert_eq!(named(template, source, platform).unwrap(), expected);
        }
        assert!("{basename}-{platform}".parse::<Template>().unwrap().tells_platforms_apart());
        assert!("x:{platform}".parse::<Template>().unwrap().tells_platforms_apart());
        assert!(!"{basename}".parse::<Template>().unwrap().tells_platforms_apart());
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let digest = format!("a/b@sha256:{}", "0".repeat(64));
        for (template, source, says) in [
            ("{host}", "a", "there are {registry}, {repository}, {tag}, {platform}, {keep}"),
            ("{basename", "a", "not closed"),
            ("basename}", "a", "not opened"),
            ("{basename}:", "a", "empty"),
            (":{tag}", "a", "empty"),
            ("{basename}-{platform}", "a", "--platform-mode single"),
            ("x:{tag}", digest.as_str(), "has no tag"),
            ("UPPER{basename}", "a", "lower case"),
            ("{tag}", "a:V1", "for docker.io/"),
        ] {
            let error = named(template, source, None).unwrap_err().to_string();
            assert!(error.contains(says), "{template}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "\\PC{0,40}", source in "[a-z0-9./:]{1,20}") {
            if let (Ok(template), Ok(source)) = (text.parse::<Template>(), source.parse()) {
                let _ = template.name(&source, Some("linux/arm64"));
            }
        }
    }
}
