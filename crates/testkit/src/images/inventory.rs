use std::collections::{BTreeMap, BTreeSet};

use ferry_oci::{Descriptor, Digest, Hasher, Manifest, Reference};
use ferry_store::{ByteRange, Error, Kind, Repository, Result};
use futures_util::StreamExt;

/// What is reachable from a manifest, each digest once, with sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Manifests.
    pub manifests: BTreeMap<Digest, u64>,
    /// Configurations and layers.
    pub blobs: BTreeMap<Digest, u64>,
}

impl Inventory {
    /// Bytes of everything.
    pub fn bytes(&self) -> u64 {
        self.manifests.values().chain(self.blobs.values()).sum()
    }

    /// Adds what `other` holds.
    pub fn merge(&mut self, other: Self) {
        self.manifests.extend(other.manifests);
        self.blobs.extend(other.blobs);
    }
}

/// Fetches everything that `reference` reaches and computes every digest anew, whatever the store says of itself.
/// Referrers are not reached; verify each by its own digest.
///
/// # Errors
/// Those of the store, [`Kind::NotFound`] for what is missing and [`Kind::DigestMismatch`] for what is not the
/// content that its name says.
pub async fn verify(repository: &dyn Repository, reference: &Reference) -> Result<Inventory> {
    let mut found = Inventory::default();
    let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut wanted = vec![(reference.clone(), None)];
    while let Some((reference, size)) = wanted.pop() {
        let manifest = repository.manifest(&reference).await?;
        check_manifest(&manifest, &reference, size)?;
        if !seen.insert(manifest.digest()) {
            continue;
        }
        found.manifests.insert(manifest.digest(), manifest.bytes().len() as u64);
        blobs.extend(manifest.blobs().into_iter().map(|blob| (blob.digest, blob.clone())));
        wanted.extend(
            manifest.children().iter().map(|child| (Reference::Digest(child.digest), Some(child.size))),
        );
    }
    for blob in blobs.values() {
        check_blob(repository, blob).await?;
        found.blobs.insert(blob.digest, blob.size);
    }
    Ok(found)
}

fn check_manifest(manifest: &Manifest, reference: &Reference, size: Option<u64>) -> Result<()> {
    let actual = Digest::of(manifest.digest().algorithm(), manifest.bytes());
    let expected = match reference {
        Reference::Digest(digest) => *digest,
        Reference::Tag(_) => manifest.digest(),
    };
    if actual != expected || size.is_some_and(|size| size != manifest.bytes().len() as u64) {
        return Err(Error::new(
            Kind::DigestMismatch,
            "verify manifest",
            reference,
            format!("it is {actual}"),
        ));
    }
    Ok(())
}

async fn check_blob(repository: &dyn Repository, blob: &Descriptor) -> Result<()> {
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let mut size = 0;
    let mut stream = repository.blob(&blob.digest, ByteRange::ALL).await?.into_stream();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        size += bytes.len() as u64;
        hasher.update(&bytes);
    }
    let actual = hasher.finish();
    if actual != blob.digest || size != blob.size {
        let detail = format!("{size} bytes of {actual} instead of {} bytes", blob.size);
        return Err(Error::new(Kind::DigestMismatch, "verify blob", blob.digest, detail));
    }
    Ok(())
}
