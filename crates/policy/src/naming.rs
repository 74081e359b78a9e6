//! Under which name an image arrives.

mod preset;

pub use preset::Preset;

use ferry_oci::{ImageReference, Malformed, Reference, Tag};

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

    #[test]
    fn a_target_has_no_digest() {
        assert!(check_target(&"a/b:c".parse().unwrap()).is_ok());
        assert!(check_target(&format!("a/b@sha256:{}", "a".repeat(64)).parse().unwrap()).is_err());
    }
}
