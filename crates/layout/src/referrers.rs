use std::collections::BTreeMap;

use ferry_oci::{Descriptor, Digest};
use ferry_store::Result;

use crate::files::Files;
use crate::manifests::Walk;

/// The most manifests that are looked through. A layout has no index of referrers, so all of them are read; a layout
/// beyond this belongs into a registry.
const MAX_SCANNED: usize = 10_000;

/// The manifests among the entries and, at any depth, their children whose `subject` is `subject`, by digest.
pub(crate) fn find(
    files: &dyn Files,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<BTreeMap<String, Descriptor>> {
    let mut found = BTreeMap::new();
    let mut walk = Walk::new(files)?;
    while let Some(manifest) = walk.next() {
        if manifest.subject().is_some_and(|named| named.digest == *subject) {
            let descriptor = manifest.referrer_descriptor();
            if artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted)) {
                found.insert(manifest.digest().to_string(), descriptor);
            }
        }
        if walk.looked_for() >= MAX_SCANNED {
            tracing::warn!(limit = MAX_SCANNED, "not all manifests were searched for referrers");
            break;
        }
    }
    Ok(found)
}
