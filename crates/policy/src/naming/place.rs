use std::fmt;
use std::str::FromStr;

use ferry_oci::{ImageReference, Malformed, Name, Registry, Tag};

use super::Named;

/// Where images of many registries go: a registry, and what their names have in front there.
///
/// Written as Docker writes images: `registry.example.com/team`, or `team` for a namespace of Docker Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The registry.
    pub registry: Registry,
    /// What names have in front, if anything.
    pub path: Option<Name>,
}

impl Prefix {
    /// Whether the image is here already.
    pub fn holds(&self, image: &ImageReference) -> bool {
        let below = |path: &Name| {
            let rest = image.repository.as_str().strip_prefix(path.as_str());
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        image.registry == self.registry && self.path.as_ref().is_none_or(below)
    }

    /// The image that is called `named` here; `tag` is the source's.
    ///
    /// # Errors
    /// [`Malformed`] if the name is too long.
    pub fn image(&self, named: Named, tag: Option<Tag>) -> Result<ImageReference, Malformed> {
        let repository = match &self.path {
            Some(path) => format!("{path}/{}", named.repository).parse()?,
            None => named.repository,
        };
        Ok(ImageReference {
            registry: self.registry.clone(),
            repository,
            tag: named.tag.or(tag),
            digest: None,
        })
    }
}

impl FromStr for Prefix {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |reason: String| Malformed { what: "target", input: text.to_owned(), reason };
        if text.contains("://") || text.contains('@') {
            return Err(bad(
                "write REGISTRY or REGISTRY/NAMESPACE, as in registry.example.com/team".to_owned()
            ));
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        let (first, rest) = match text.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (text, None),
        };
        let is_registry = first.contains(['.', ':'])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase());
        let (registry, path) = match is_registry {
            true => (first.parse().map_err(|e: Malformed| bad(e.reason))?, rest),
            false => (Registry::docker_hub(), Some(text)),
        };
        if path.is_some_and(|path| path.contains(':')) {
            return Err(bad("the tags of the sources are kept; leave the tag out".to_owned()));
        }
        let path = path.map(|path| path.parse().map_err(|e: Malformed| bad(e.reason))).transpose()?;
        Ok(Self { registry, path })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry.fmt(f)?;
        self.path.iter().try_for_each(|path| write!(f, "/{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_written_as_images_are() {
        for (text, shown) in [
            ("localhost:5000", "localhost:5000"),
            ("registry.example.com/team/", "registry.example.com/team"),
            ("registry.example.com/a/b", "registry.example.com/a/b"),
            ("me", "docker.io/me"),
            ("docker.io/me", "docker.io/me"),
            ("[::1]:5000/a", "[::1]:5000/a"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for bad in [
            "",
            "/",
            "https://a.example",
            "a.example/b:v1",
            "a.example/b@sha256:0",
            "a.example/B",
            "a.example:x",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn images_stand_below_the_prefix() {
        let named = |tag: Option<&str>| Named {
            repository: "etcd".parse().unwrap(),
            tag: tag.map(|tag| tag.parse().unwrap()),
        };
        let prefix: Prefix = "a.example/team".parse().unwrap();
        let v1: Tag = "v1".parse().unwrap();
        assert_eq!(
            prefix.image(named(None), Some(v1.clone())).unwrap().to_string(),
            "a.example/team/etcd:v1"
        );
        assert_eq!(prefix.image(named(Some("x")), Some(v1)).unwrap().to_string(), "a.example/team/etcd:x");
        assert_eq!(prefix.image(named(None), None).unwrap().to_string(), "a.example/team/etcd");
        let holds =
            |prefix: &str, image: &str| prefix.parse::<Prefix>().unwrap().holds(&image.parse().unwrap());
        assert!(holds("a.example/team", "a.example/team/etcd:v1") && holds("a.example", "a.example/x"));
        assert!(!holds("a.example/team", "a.example/teams/etcd") && !holds("a.example", "b.example/x"));
    }
}
