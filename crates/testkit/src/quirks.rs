//! What registries are particular about, each with who is and where that is public; and a store that refuses what they
//! refuse.

mod known;
mod listings;
mod manifests;
mod tokens;
mod uploads;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, media_type, rewrite};
use ferry_store::{
    Begun, Blob, ByteRange, Error, Expect, Kind, Page, PageRequest, Removed, Repository, RepositoryEntry,
    RepositoryMut, Resolved, Result, Scope, Store, Stored, TagEntry, Upload, UploadToken,
};

pub use listings::{Link, Listings, TooMany};
pub use manifests::{Head, Manifests};
pub use tokens::{Challenge, Tokens};
pub use uploads::{Location, MountAnswer, Mounts, Patches, Progress, Stale, Uploads, Whole};

/// What a registry refuses or does in its own way; by default nothing. A [`QuirkyStore`] knows only the refusals; what
/// concerns HTTP is `FakeRegistry`'s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quirks {
    /// Manifests and indexes of OCI types, in the words of Huawei SWR.
    pub refuses_oci: bool,
    /// Indexes with attestations, or with entries of an unknown platform.
    pub refuses_attestations: bool,
    /// Repository names of more parts than so many.
    pub depth: Option<usize>,
    /// Manifests of more bytes than so many.
    pub manifest_size: Option<u64>,
    /// How it takes blobs.
    pub uploads: Uploads,
    /// How it mounts them.
    pub mounts: Mounts,
    /// How it takes and gives manifests.
    pub manifests: Manifests,
    /// How it lists.
    pub listings: Listings,
    /// How it asks who is there.
    pub tokens: Tokens,
}

impl Quirks {
    /// Why a repository of this name is refused, if it is.
    pub fn refuse_name(&self, name: &Name) -> Option<String> {
        let found = name.as_str().split('/').count();
        let most = self.depth.filter(|most| found > *most)?;
        Some(format!("a repository name has at most {most} parts"))
    }

    /// Why the manifest is refused, if it is.
    pub fn refuse_manifest(&self, manifest: &Manifest) -> Option<String> {
        let oci = matches!(manifest.media_type(), media_type::OCI_INDEX | media_type::OCI_MANIFEST);
        let unknown = |entry: &Descriptor| {
            let unknown =
                entry.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown");
            unknown || rewrite::is_attestation(entry)
        };
        if self.refuses_oci && oci {
            return Some("Invalid image, fail to parse 'manifest.json'".to_owned());
        }
        if self.refuses_attestations && manifest.children().iter().any(unknown) {
            return Some("an entry is for no known platform".to_owned());
        }
        let most = self.manifest_size.filter(|most| manifest.bytes().len() as u64 > *most)?;
        Some(format!("a manifest has at most {most} bytes"))
    }
}

/// Quirks that can be changed while a store has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedQuirks(Arc<Mutex<Quirks>>);

impl SharedQuirks {
    fn lock(&self) -> MutexGuard<'_, Quirks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> Quirks {
        *self.lock()
    }

    pub(crate) fn set(&self, quirks: Quirks) {
        *self.lock() = quirks;
    }

    pub(crate) fn refuse_name(&self, name: &Name) -> Option<String> {
        self.lock().refuse_name(name)
    }
}

/// Refuses pushes as its quirks say, and passes everything else on.
pub struct QuirkyStore {
    inner: Arc<dyn Store>,
    quirks: SharedQuirks,
}

impl QuirkyStore {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Store>, quirks: Quirks) -> Self {
        let shared = SharedQuirks::default();
        shared.set(quirks);
        Self::sharing(inner, shared)
    }

    pub(crate) fn sharing(inner: Arc<dyn Store>, quirks: SharedQuirks) -> Self {
        Self { inner, quirks }
    }
}

#[async_trait]
impl Store for QuirkyStore {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        self.inner.repository(scope, name)
    }

    fn writable(&self, scope: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        let inner = self.inner.writable(scope, name)?;
        Some(Arc::new(Quirky { inner, name: name.clone(), quirks: self.quirks.clone() }))
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.inner.repositories(prefix, page).await
    }
}

struct Quirky {
    inner: Arc<dyn RepositoryMut>,
    name: Name,
    quirks: SharedQuirks,
}

impl Quirky {
    fn check_name(&self, operation: &'static str) -> Result<()> {
        match self.quirks.refuse_name(&self.name) {
            None => Ok(()),
            Some(reason) => Err(Error::new(Kind::Invalid, operation, &self.name, reason)),
        }
    }
}

#[async_trait]
impl Repository for Quirky {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.inner.resolve(reference).await
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.inner.manifest(reference).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.stat(digest).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        self.inner.blob(digest, range).await
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        self.inner.tags(page).await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        self.inner.referrers(subject, artifact_type, page).await
    }
}

#[async_trait]
impl RepositoryMut for Quirky {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        self.check_name("begin upload to")?;
        self.inner.begin(expect).await
    }

    async fn resume(&self, token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        self.inner.resume(token).await
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        self.check_name("push manifest to")?;
        let refused = self.quirks.lock().refuse_manifest(manifest);
        match refused {
            None => self.inner.put_manifest(manifest, tag).await,
            Some(reason) => Err(Error::new(Kind::Invalid, "push manifest", manifest.digest(), reason)),
        }
    }

    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed> {
        self.inner.delete_manifest(reference).await
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<Removed> {
        self.inner.delete_blob(digest).await
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        Arc::clone(&self.inner).reader()
    }
}
