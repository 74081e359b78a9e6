use std::collections::{BTreeMap, HashSet};

use ferry_oci::{Descriptor, Digest};
use ferry_store::Result;

use crate::directory::Directory;

/// The most manifests that are looked through. A layout has no index of referrers, so all of them are read; a layout
/// beyond this belongs into a registry.
const MAX_SCANNED: usize = 10_000;

/// The manifests among the entries and, at any depth, their children whose `subject` is `subject`, by digest.
pub(crate) fn find(
    directory: &Directory,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<BTreeMap<String, Descriptor>> {
    let mut found = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut wanted: Vec<Descriptor> = directory.index()?.descriptors().collect();
    while let Some(next) = wanted.pop() {
        if !seen.insert(next.digest) {
            continue;
        }
        if seen.len() > MAX_SCANNED {
            tracing::warn!(limit = MAX_SCANNED, "not all manifests were searched for referrers");
            break;
        }
        let manifest = match directory.read_manifest(&next.digest, Some(&next.media_type)) {
            Ok(Some(manifest)) => manifest,
            // Platforms that were left out, entries of unknown types, damage: none of it is a referrer.
            Ok(None) | Err(_) => continue,
        };
        if manifest.subject().is_some_and(|named| named.digest == *subject) {
            let descriptor = manifest.referrer_descriptor();
            if artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted)) {
                found.insert(next.digest.to_string(), descriptor);
            }
        }
        wanted.extend(manifest.children().iter().cloned());
    }
    Ok(found)
}
