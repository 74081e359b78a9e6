//! Nouns and wire grammar of the OCI image and distribution specifications.
//!
//! No I/O, no async, no clock: every function here is a pure translation between text or bytes and a value that
//! is valid by construction. The views of JSON documents are our own and deliberately small: a manifest keeps its
//! verbatim bytes, and what a view does not know is never lost because nothing is ever written back from it. The one
//! module that makes other manifests of manifests, [`rewrite`], edits the document itself.

mod challenge;
mod descriptor;
mod digest;
mod error_body;
mod link;
mod manifest;
mod name;
mod range;
mod reference;
mod shape;
mod strict_json;

pub mod media_type;
pub mod rewrite;

pub use challenge::{Challenge, parse_challenges};
pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, Hasher};
pub use error_body::{ErrorBody, ErrorCode, parse_error_body};
pub use link::{format_next_link, next_link};
pub use manifest::{Content, MAX_MANIFEST_SIZE, Manifest, referrers_index};
pub use name::{Name, Registry, Tag};
pub use range::{ContentRange, RangeRequest, UploadRange, parse_range};
pub use reference::{ImageReference, Reference, artifact_tag, fallback_tag, is_fallback_tag};

/// A text or document that does not follow its grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} is not a valid {what}: {reason}")]
pub struct Malformed {
    /// What was expected, in the words of the specification: "digest", "tag", "manifest", …
    pub what: &'static str,
    /// The offending text, cut to 120 characters.
    pub input: String,
    /// Which rule it breaks and, where there is one, the remedy.
    pub reason: String,
}

impl Malformed {
    /// The reason may repeat what a peer wrote, so it is cut, and nothing in it commands a terminal.
    pub(crate) fn new(what: &'static str, input: &str, reason: impl AsRef<str>) -> Self {
        let reason = cut(reason.as_ref(), 300).chars().filter(|c| !c.is_control()).collect();
        Self { what, input: cut(input, 120), reason }
    }
}

fn cut(text: &str, length: usize) -> String {
    let mut shown: String = text.chars().take(length).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
