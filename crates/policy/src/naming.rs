//! Under which name an image arrives.

mod place;
mod preset;
mod template;

pub use place::Prefix;
pub use preset::Preset;
pub(crate) use preset::legal;
pub use template::Template;

use std::fmt;
use std::str::FromStr;

use ferry_oci::{ImageReference, Malformed, Name, Reference, Tag};

/// How images of many registries are called at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// One of the usual ways.
    Preset(Preset),
    /// A way of one's own.
    Template(Template),
}

/// What an image is called at a target, below whatever prefix the target has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The repository.
    pub repository: Name,
    /// The tag, if it is not the source's.
    pub tag: Option<Tag>,
}

impl Naming {
    /// What `source` is called; `platform` is the one that it is cut down to, if it is.
    ///
    /// # Errors
    /// [`Malformed`] if that would not be a name: too long, in letters that names do not have, or of something that the
    /// source does not say.
    pub fn name(&self, source: &ImageReference, platform: Option<&str>) -> Result<Named, Malformed> {
        match self {
            Self::Preset(preset) => Ok(Named { repository: preset.name(source)?, tag: None }),
            Self::Template(template) => template.name(source, platform),
        }
    }

    /// Whether the names tell platforms apart, so that one image may arrive as several.
    pub fn tells_platforms_apart(&self) -> bool {
        matches!(self, Self::Template(template) if template.tells_platforms_apart())
    }
}

impl Default for Naming {
    /// [`Preset::Keep`].
    fn default() -> Self {
        Self::Preset(Preset::Keep)
    }
}

impl FromStr for Naming {
    type Err = Malformed;

    /// A text with a brace is a template, any other the name of a preset.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.contains(['{', '}']) {
            text.parse().map(Self::Template)
        } else {
            text.parse().map(Self::Preset)
        }
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset(preset) => preset.fmt(f),
            Self::Template(template) => template.fmt(f),
        }
    }
}

/// The tag that an image gets at the target: the one written there, else the one that it has at the source, where no
/// tag means `latest` as everywhere. `None` for an image that is asked for by digest alone: it arrives without a tag.
pub fn target_tag(source: &Reference, written: Option<&Tag>) -> Option<Tag> {
    match (written, source) {
        (Some(tag), _) => Some(tag.clone()),
        (None, Reference::Tag(tag)) => Some(tag.clone()),
        (None, Reference::Digest(_)) => None,
    }
}

/// The tag that a source reference carries over: its tag even if a digest decides what is copied.
pub fn source_tag(source: &ImageReference) -> Reference {
    match (&source.tag, source.digest) {
        (Some(tag), _) => Reference::Tag(tag.clone()),
        (None, _) => source.reference(),
    }
}

/// Refuses a target that names a digest: what arrives has the digest of what was sent.
///
/// # Errors
/// [`Malformed`] with the remedy.
pub fn check_target(target: &ImageReference) -> Result<(), Malformed> {
    match target.digest {
        None => Ok(()),
        Some(_) => Err(Malformed {
            what: "target",
            input: target.to_string(),
            reason: "a target has no digest; write REGISTRY/REPOSITORY[:TAG]".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_kept_unless_one_is_written() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("a/b@{digest}");
        let both = format!("a/b:v1@{digest}");
        for (source, written, expected) in [
            ("a/b:v1", None, Some("v1")),
            ("a/b", None, Some("latest")),
            ("a/b:v1", Some("v2"), Some("v2")),
            (pinned.as_str(), None, None),
            (pinned.as_str(), Some("v2"), Some("v2")),
            (both.as_str(), None, Some("v1")),
        ] {
            let source: ImageReference = source.parse().unwrap();
            let written: Option<Tag> = written.map(|tag| tag.parse().unwrap());
            let tag = target_tag(&source_tag(&source), written.as_ref());
            assert_eq!(tag.as_ref().map(Tag::as_str), expected, "{source}");
        }
    }

    /// What the recipes of the field call their images.
    #[test]
    fn every_name_that_people_know() {
        for (naming, prefix, source, platform, expected) in [
            (
                "keep",
                "ccr.ccs.tencentyun.com/dotnet-core",
                "mcr.microsoft.com/aspnet:5.0",
                None,
                "ccr.ccs.tencentyun.com/dotnet-core/aspnet:5.0",
            ),
            (
                "basename",
                "ccr.ccs.tencentyun.com/dotnet-core",
                "mcr.microsoft.com/dotnet/core/aspnet:5.0",
                None,
                "ccr.ccs.tencentyun.com/dotnet-core/aspnet:5.0",
            ),
            (
                "dots",
                "me",
                "registry.k8s.io/kube-apiserver:v1.27.4",
                None,
                "docker.io/me/registry.k8s.io.kube-apiserver:v1.27.4",
            ),
            (
                "dots",
                "registry.cn-hangzhou.aliyuncs.com/ns",
                "registry.k8s.io/coredns/coredns:v1.8.6",
                None,
                "registry.cn-hangzhou.aliyuncs.com/ns/registry.k8s.io.coredns.coredns:v1.8.6",
            ),
            (
                "{dots}-{platform}",
                "me",
                "registry.k8s.io/kube-apiserver:v1.27.4",
                Some("linux/arm64"),
                "docker.io/me/registry.k8s.io.kube-apiserver-linux-arm64:v1.27.4",
            ),
            ("basename", "me", "gcr.io/google-containers/pause:3.1", None, "docker.io/me/pause:3.1"),
            (
                "underscores",
                "gcrxio",
                "gcr.io/istio-release/pilot:latest",
                None,
                "docker.io/gcrxio/gcr.io_istio-release_pilot:latest",
            ),
            (
                "{registry}/{repository}",
                "cr.example.cn",
                "k8s.gcr.io/coredns/coredns:v1.8.6",
                None,
                "cr.example.cn/k8s.gcr.io/coredns/coredns:v1.8.6",
            ),
            (
                "{repository}",
                "k8s-gcr.cr.example.cn",
                "k8s.gcr.io/coredns/coredns:v1.8.6",
                None,
                "k8s-gcr.cr.example.cn/coredns/coredns:v1.8.6",
            ),
            (
                "keep",
                "docker.cr.example.cn",
                "mysql:5.7",
                None,
                concat!("docker.cr.example.cn/", "library/mysql:5.7"),
            ),
        ] {
            let naming: Naming = naming.parse().unwrap();
            let prefix: Prefix = prefix.parse().unwrap();
            let source: ImageReference = source.parse().unwrap();
            let named = naming.name(&source, platform).unwrap();
            assert_eq!(prefix.image(named, source.tag.clone()).unwrap().to_string(), expected);
            assert_eq!(naming.to_string().parse::<Naming>().unwrap(), naming);
            assert_eq!(naming.tells_platforms_apart(), platform.is_some());
        }
        assert!("dashes".parse::<Naming>().is_err());
    }

    #[test]
    fn a_target_has_no_digest() {
        assert!(check_target(&"a/b:c".parse().unwrap()).is_ok());
        assert!(check_target(&format!("a/b@sha256:{}", "a".repeat(64)).parse().unwrap()).is_err());
    }
}
