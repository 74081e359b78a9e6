//! A store in memory.

mod state;
mod upload;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag};

use self::state::{Key, State};
use self::upload::MemoryUpload;
use crate::{
    Begun, Blob, ByteRange, Error, Expect, Kind, Page, PageRequest, Removed, Repository, RepositoryEntry,
    RepositoryMut, Resolved, Result, Scope, Store, Stored, TagEntry, Upload, UploadToken,
};

/// A store in memory, for tests and demonstrations; stricter than reality, so that what works here does not rest on
/// the leniency of one registry.
///
/// Content is visible only through the repository and [`Scope`] that it was linked into, blobs are verified at commit,
/// and a manifest whose blobs or children are missing is refused. Listings are in byte order; without a limit they
/// come in one page. A repository exists from its first blob or manifest on. Clones share their content.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Shared,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same store, but it takes indexes whose manifests are missing, as some registries do.
    #[must_use]
    pub fn taking_sparse_indexes(self) -> Self {
        self.shared.lock().take_sparse_indexes();
        self
    }

    fn open(&self, scope: &Scope, name: &Name) -> Arc<MemoryRepository> {
        let key = Key { scope: scope.clone(), name: name.clone() };
        Arc::new(MemoryRepository { shared: self.shared.clone(), key })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

/// The content, behind a lock that is never held across an await.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is made whole under the lock or not at all, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        self.open(scope, name)
    }

    fn writable(&self, scope: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        Some(self.open(scope, name))
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        Ok(self.shared.lock().hosted(prefix, &page))
    }
}

struct MemoryRepository {
    shared: Shared,
    key: Key,
}

#[async_trait]
impl Repository for MemoryRepository {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let manifest = self.manifest(reference).await?;
        let size = manifest.bytes().len() as u64;
        Ok(Resolved::fresh(Descriptor::new(manifest.media_type(), manifest.digest(), size)))
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        let state = self.shared.lock();
        let found = state.content(&self.key).and_then(|content| content.manifest(reference));
        found.cloned().ok_or_else(|| Error::not_found("read manifest", reference))
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.shared.lock().blob(&self.key, digest).map(|bytes| bytes.len() as u64))
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let bytes = self.shared.lock().blob(&self.key, digest);
        let bytes = bytes.ok_or_else(|| Error::not_found("read blob", digest))?;
        Blob::from_bytes(&bytes, range).ok_or_else(|| {
            let detail = format!("byte {} is beyond the end at {}", range.start, bytes.len());
            Error::new(Kind::Invalid, "read blob", digest, detail)
        })
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        let state = self.shared.lock();
        let content = state.content(&self.key);
        Ok(content.ok_or_else(|| Error::not_found("list tags", &self.key.name))?.tags(&page))
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        let state = self.shared.lock();
        Ok(match state.content(&self.key) {
            Some(content) => content.referrers(subject, artifact_type, &page),
            None => Page::new(Vec::new(), None),
        })
    }
}

#[async_trait]
impl RepositoryMut for MemoryRepository {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        let mut state = self.shared.lock();
        if let Some(digest) = &expect.digest
            && let Some(begun) = state.take_from(&self.key, digest, &expect.mount)
        {
            return Ok(begun);
        }
        let token = state.begin_upload(&self.key);
        Ok(Begun::Upload(Box::new(MemoryUpload::new(self.shared.clone(), token))))
    }

    async fn resume(&self, token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        if !self.shared.lock().hold_upload(&self.key, token)? {
            return Ok(None);
        }
        Ok(Some(Box::new(MemoryUpload::new(self.shared.clone(), token.clone()))))
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        self.shared.lock().put_manifest(&self.key, manifest, tag)?;
        Ok(Stored { subject_indexed: true })
    }

    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed> {
        let mut state = self.shared.lock();
        let removed = state.content_mut(&self.key).is_some_and(|content| content.remove(reference));
        if removed { Ok(Removed::Yes) } else { Err(Error::not_found("delete manifest", reference)) }
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<Removed> {
        let mut state = self.shared.lock();
        let removed = state.content_mut(&self.key).is_some_and(|content| content.unlink(digest));
        if removed { Ok(Removed::Yes) } else { Err(Error::not_found("delete blob", digest)) }
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        self
    }
}

#[cfg(test)]
mod tests;
