use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ferry_oci::{Digest, ImageReference, Malformed, Reference, Registry, Tag};

/// One end of a copy as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// An image in a registry.
    Registry(ImageReference),
    /// An image in an OCI layout directory.
    Layout { directory: PathBuf, tag: Option<Tag>, digest: Option<Digest> },
}

impl Endpoint {
    /// The registry, if it is one.
    pub(crate) fn registry(&self) -> Option<&Registry> {
        match self {
            Self::Registry(image) => Some(&image.registry),
            Self::Layout { .. } => None,
        }
    }

    /// The tag that was written.
    pub(crate) fn tag(&self) -> Option<&Tag> {
        match self {
            Self::Registry(image) => image.tag.as_ref(),
            Self::Layout { tag, .. } => tag.as_ref(),
        }
    }

    /// The digest that was written.
    pub(crate) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Registry(image) => image.digest,
            Self::Layout { digest, .. } => *digest,
        }
    }

    /// The same with another tag and without digest.
    pub(crate) fn with_tag(&self, tag: Option<Tag>) -> Self {
        match self.clone() {
            Self::Registry(image) => Self::Registry(ImageReference { tag, digest: None, ..image }),
            Self::Layout { directory, .. } => Self::Layout { directory, tag, digest: None },
        }
    }

    /// What the repository is to be asked for: the digest, else the tag, else in a registry `latest`. `None` for a
    /// layout that was named alone: whichever image it holds.
    pub(crate) fn reference(&self) -> Option<Reference> {
        match self {
            Self::Registry(image) => Some(image.reference()),
            Self::Layout { digest: Some(digest), .. } => Some(Reference::Digest(*digest)),
            Self::Layout { tag, .. } => tag.clone().map(Reference::Tag),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let Some(rest) = text.strip_prefix("oci:") else {
            return text.parse().map(Self::Registry);
        };
        let bad = |reason: String| Malformed { what: "OCI layout", input: text.to_owned(), reason };
        let (rest, digest) = match rest.rsplit_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|e: Malformed| bad(e.reason))?)),
            None => (rest, None),
        };
        // A colon before a slash belongs to the path.
        let (directory, tag) = match rest.rsplit_once(':') {
            Some((directory, tag)) if !tag.contains('/') => {
                (directory, Some(tag.parse().map_err(|e: Malformed| bad(e.reason))?))
            }
            _ => (rest, None),
        };
        if directory.is_empty() {
            return Err(bad("write oci:DIR or oci:DIR:TAG".to_owned()));
        }
        Ok(Self::Layout { directory: directory.into(), tag, digest })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (directory, tag, digest) = match self {
            Self::Registry(image) => return image.fmt(f),
            Self::Layout { directory, tag, digest } => (directory, tag, digest),
        };
        write!(f, "oci:{}", directory.display())?;
        if let Some(tag) = tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed() {
        for (text, shown) in [
            ("alpine", "docker.io/library/alpine"),
            ("oci:images", "oci:images"),
            ("oci:/srv/images:v1", "oci:/srv/images:v1"),
            ("oci:/srv/a:b/images", "oci:/srv/a:b/images"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        let both: Endpoint = format!("oci:dir:v1@{digest}").parse().unwrap();
        assert_eq!(both.reference().unwrap().to_string(), digest);
        assert_eq!(both.tag().unwrap().as_str(), "v1");
        for bad in ["oci:", "oci::v1", "oci:dir:-x", "oci:dir@sha256:0", "docker://alpine"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
