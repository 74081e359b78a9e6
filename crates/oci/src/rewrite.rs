//! Makes other manifests of manifests, for registries that do not take them as they are.
//!
//! The JSON document itself is edited, so fields that ferry does not know stay as they are and in their order. The same
//! input always gives the same bytes, and a manifest to which nothing applies comes back with its own. (A number that
//! does not fit into 64 bits is the one thing that may be spelt otherwise afterwards; no specification has one.)

mod docker;

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{Descriptor, Digest, Manifest, strict_json};

pub use docker::to_docker_types;

/// How BuildKit marks the entry of an attestation (buildkit `docs/attestations/attestation-storage.md`).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";

/// What became of manifests that were rewritten: by the old digest, type, digest and size of the new one.
pub type Children = HashMap<Digest, Descriptor>;

/// Something that a manifest says has no words in what it is to become.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot be expressed: {reason}")]
pub struct Inexpressible {
    /// What: a layer, a configuration, an entry of an index.
    pub what: String,
    /// Why not.
    pub reason: String,
}

impl Inexpressible {
    fn new(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { what: what.into(), reason: reason.into() }
    }
}

/// Whether an entry of an index is an attestation of BuildKit. The platform `unknown/unknown` alone says nothing: other
/// artifacts have it too.
pub fn is_attestation(entry: &Descriptor) -> bool {
    let annotations = entry.annotations.as_ref();
    annotations.and_then(|all| all.get(REFERENCE_TYPE)).is_some_and(|kind| kind == ATTESTATION)
}

/// The manifest that an attestation of BuildKit is about, if the entry names one.
pub fn attested(entry: &Descriptor) -> Option<Digest> {
    entry.annotations.as_ref()?.get(REFERENCE_DIGEST)?.parse().ok()
}

/// The index without its attestations; everything else comes back as it is.
///
/// # Errors
/// [`Inexpressible`] if nothing would be left of it.
pub fn strip_attestations(index: &Manifest) -> Result<Manifest, Inexpressible> {
    let keep: Vec<bool> = index.children().iter().map(|entry| !is_attestation(entry)).collect();
    if !keep.is_empty() && !keep.contains(&true) {
        let reason = "it holds nothing but attestations";
        return Err(Inexpressible::new(format!("{} without attestations", index.digest()), reason));
    }
    retain(index, &keep)
}

/// The index with only those of its entries at whose place `keep` is true; those beyond its end stay. One of which all
/// stay comes back as it is.
///
/// # Errors
/// [`Inexpressible`] if the result is no manifest that can be carried.
pub fn retain(index: &Manifest, keep: &[bool]) -> Result<Manifest, Inexpressible> {
    if !keep.iter().take(index.children().len()).any(|keep| !keep) {
        return Ok(index.clone());
    }
    edit(index, |document| {
        let mut keep = keep.iter();
        if let Some(entries) = document.get_mut("manifests").and_then(Value::as_array_mut) {
            entries.retain(|_| keep.next() != Some(&false));
        }
    })
}

/// The index with the entries of manifests that were rewritten changed accordingly. What an entry says of where its
/// content can be had otherwise (`urls`) or what it is (`data`) is dropped, because it is about the old content.
///
/// # Errors
/// [`Inexpressible`] if the result is larger than a manifest may be.
pub fn with_children(index: &Manifest, children: &Children) -> Result<Manifest, Inexpressible> {
    let new =
        |entry: &Descriptor| children.get(&entry.digest).filter(|new| new.digest != entry.digest).cloned();
    let new: Vec<Option<Descriptor>> = index.children().iter().map(new).collect();
    if new.iter().all(Option::is_none) {
        return Ok(index.clone());
    }
    edit(index, |document| {
        for (entry, new) in objects(document, "manifests").zip(&new) {
            let Some(new) = new else { continue };
            entry.insert("mediaType".to_owned(), new.media_type.as_str().into());
            entry.insert("digest".to_owned(), new.digest.to_string().into());
            entry.insert("size".to_owned(), new.size.into());
            entry.shift_remove("urls");
            entry.shift_remove("data");
        }
    })
}

/// The objects in the list `key`.
fn objects<'a>(
    document: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = document.get_mut(key).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The manifest that `change` makes, named by the algorithm that named the old one.
fn edit(
    manifest: &Manifest,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<Manifest, Inexpressible> {
    let failed = |reason: String| Inexpressible::new(format!("the rewritten {}", manifest.digest()), reason);
    let mut value = strict_json::parse(manifest.bytes()).map_err(|e| failed(e.to_string()))?;
    if let Some(document) = value.as_object_mut() {
        change(document);
    }
    // A document that does not name its type is typed by its label, which is the old one unless it names one now.
    let own = value.get("mediaType").and_then(Value::as_str).unwrap_or(manifest.media_type()).to_owned();
    let bytes = Bytes::from(value.to_string());
    Manifest::parse_as(manifest.digest().algorithm(), Some(&own), bytes).map_err(|e| failed(e.reason))
}

#[cfg(test)]
mod tests;
