use std::fmt;
use std::str::FromStr;

use crate::{Digest, Malformed, Name, Registry, Tag};

/// What a manifest is asked for by, inside a repository (distribution-spec, `<reference>`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A name that may come to mean something else.
    Tag(Tag),
    /// The content itself.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for Reference {
    type Err = Malformed;

    /// A text with a colon is a digest or nothing, never a tag.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text.contains(':') { text.parse().map(Self::Digest) } else { text.parse().map(Self::Tag) }
    }
}

/// An image in a registry as people write it, normalised as Docker does (distribution/reference, `normalize.go`).
///
/// `alpine` is `docker.io/library/alpine`; the first part is a registry if it contains `.` or `:`, is `localhost`,
/// or has an upper-case letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// The registry.
    pub registry: Registry,
    /// The repository in it.
    pub repository: Name,
    /// The tag, if one was written.
    pub tag: Option<Tag>,
    /// The digest, if one was written; it decides over the tag.
    pub digest: Option<Digest>,
}

impl ImageReference {
    /// What to ask the repository for: the digest, else the tag, else `latest`.
    pub fn reference(&self) -> Reference {
        match (self.digest, &self.tag) {
            (Some(digest), _) => Reference::Digest(digest),
            (None, Some(tag)) => Reference::Tag(tag.clone()),
            (None, None) => Reference::Tag(Tag::latest()),
        }
    }
}

impl FromStr for ImageReference {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |reason: String| Malformed::new("image reference", text, reason);
        if text.contains("://") {
            return Err(bad("write it without scheme, as in registry.example.com/team/app:1.0".to_owned()));
        }
        let part = |e: Malformed| bad(format!("{} {:?}: {}", e.what, e.input, e.reason));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(part)?)),
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if is_registry(first) => (first.parse().map_err(part)?, path),
            _ => (Registry::docker_hub(), rest),
        };
        let (path, tag) = match path.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag.parse().map_err(part)?)),
            None => (path, None),
        };
        if path.is_empty() {
            return Err(bad("it has no repository name".to_owned()));
        }
        if path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad(
                "64 hexadecimal characters alone are an image ID; write NAME@sha256:…".to_owned()
            ));
        }
        let repository = if registry.is_docker_hub() && !path.contains('/') {
            format!("library/{path}").parse()
        } else {
            path.parse()
        };
        Ok(Self { registry, repository: repository.map_err(part)?, tag, digest })
    }
}

fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The tag under which referrers of `subject` are listed where the referrers API is absent (distribution-spec,
/// "Referrers Tag Schema"): the algorithm cut to 32 and the encoded part cut to 64 characters.
pub fn fallback_tag(subject: &Digest) -> Tag {
    let hex = subject.hex();
    let text = format!("{}-{}", subject.algorithm().as_str(), &hex[..64]);
    match text.parse() {
        Ok(tag) => tag,
        Err(_) => unreachable!("letters, digits and a dash are a tag"),
    }
}

/// Whether `tag` is of the form of [`fallback_tag`]: a list of referrers, and no image of its own.
pub fn is_fallback_tag(tag: &Tag) -> bool {
    let hex = tag.as_str().strip_prefix("sha256-").or_else(|| tag.as_str().strip_prefix("sha512-"));
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// The manifest that the artifact under `tag` belongs to, and what it is to it, if the tag is one as cosign makes them:
/// `sha256-HEX.sig`, `.att`, `.sbom` (sigstore/cosign `specs/SIGNATURE_SPEC.md`), or of another suffix `[a-z0-9]+`.
pub fn artifact_tag(tag: &Tag) -> Option<(Digest, &str)> {
    let (subject, suffix) = tag.as_str().split_once('.')?;
    let suffix = Some(suffix)
        .filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    // A tag is too short for the digest of another algorithm.
    let subject = format!("sha256:{}", subject.strip_prefix("sha256-")?);
    Some((subject.parse().ok()?, suffix?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn docker_normalisation() {
        for (text, canonical) in [
            ("alpine", "docker.io/library/alpine"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("foo/bar", "docker.io/foo/bar"),
            ("localhost/foo", "localhost/foo"),
            ("foo.com/bar", "foo.com/bar"),
            ("test:5000/repo", "test:5000/repo"),
            ("Foo/bar", "Foo/bar"),
            ("Foo.Example/bar", "foo.example/bar"),
            ("docker.io/alpine", "docker.io/library/alpine"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("quay.io/alpine", "quay.io/alpine"),
            ("[2001:db8::1]:5000/x:y", "[2001:db8::1]:5000/x:y"),
            ("foo_bar.com:8080", "docker.io/library/foo_bar.com:8080"),
            ("host:5000", "docker.io/library/host:5000"),
        ] {
            let parsed: ImageReference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed.to_string(), canonical, "{text}");
        }
        let both: ImageReference = format!("alpine:3@sha256:{HEX}").parse().unwrap();
        assert_eq!(both.reference().to_string(), format!("sha256:{HEX}"));
        assert_eq!("a/b".parse::<ImageReference>().unwrap().reference().to_string(), "latest");
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "/",
            "a/",
            ":tag",
            "a:b:c",
            "a@b",
            "https://a.b/c",
            "UPPER",
            "quay.io/A",
            HEX,
            "[::1]:5000",
            "a b",
        ] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fallback_tags_are_cut() {
        let digest = Digest::of(crate::Algorithm::Sha512, b"x");
        assert_eq!(fallback_tag(&digest).as_str().len(), "sha512-".len() + 64);
        assert_eq!(fallback_tag(&Digest::sha256(b"")).as_str(), format!("sha256-{HEX}"));
    }

    #[test]
    fn tags_that_stand_for_what_belongs_to_a_manifest() {
        let tag = |text: String| text.parse::<Tag>().unwrap();
        for digest in [Digest::sha256(b""), Digest::of(crate::Algorithm::Sha512, b"x")] {
            assert!(
                is_fallback_tag(&fallback_tag(&digest)) && artifact_tag(&fallback_tag(&digest)).is_none()
            );
        }
        for suffix in ["sig", "att", "sbom", "v2"] {
            let tag = tag(format!("sha256-{HEX}.{suffix}"));
            assert_eq!(artifact_tag(&tag), Some((Digest::sha256(b""), suffix)));
            assert!(!is_fallback_tag(&tag));
        }
        for other in [
            "latest".to_owned(),
            "sha256-abc".to_owned(),
            "sha256-abc.sig".to_owned(),
            format!("sha256-{HEX}0"),
            format!("md5-{HEX}"),
            format!("sha256-{}", HEX.to_uppercase()),
            format!("sha256-{HEX}."),
            format!("sha256-{HEX}.a.b"),
            format!("sha256-{HEX}.SIG"),
            format!("sha512-{HEX}.sig"),
            format!("v1.{HEX}"),
        ] {
            let tag = tag(other);
            assert!(!is_fallback_tag(&tag) && artifact_tag(&tag).is_none(), "{tag}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "\\PC{0,80}") {
            if let Ok(parsed) = text.parse::<ImageReference>() {
                let again: ImageReference = parsed.to_string().parse().unwrap();
                proptest::prop_assert_eq!(parsed, again);
            }
        }

        #[test]
        fn likely_text_round_trips(text in "[a-zA-Z0-9.:/@_-]{1,40}") {
            if let Ok(parsed) = text.parse::<ImageReference>() {
                let again: ImageReference = parsed.to_string().parse().unwrap();
                proptest::prop_assert_eq!(parsed, again);
            }
        }
    }
}
