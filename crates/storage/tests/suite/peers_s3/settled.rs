use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag};
use ferry_storage::Storage;
use ferry_store::{
    Begun, Blob, ByteRange, Expect, Page, PageRequest, Removed, Repository, RepositoryEntry, RepositoryMut,
    Resolved, Result, Scope, Store, Stored, TagEntry, Upload, UploadToken,
};

use super::fixtures::uploaded;

/// A storage that waits before each question until everything is in the bucket.
pub struct Settled(pub Arc<Storage>);

struct Waiting<R: ?Sized> {
    storage: Arc<Storage>,
    inner: Arc<R>,
}

#[async_trait]
impl Store for Settled {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        Arc::new(Waiting { storage: Arc::clone(&self.0), inner: self.0.repository(scope, name) })
    }

    fn writable(&self, scope: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        let inner = self.0.writable(scope, name)?;
        Some(Arc::new(Waiting { storage: Arc::clone(&self.0), inner }))
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.0.repositories(prefix, page).await
    }
}

#[async_trait]
impl<R: Repository + ?Sized> Repository for Waiting<R> {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        uploaded(&self.storage).await;
        self.inner.resolve(reference).await
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        uploaded(&self.storage).await;
        self.inner.manifest(reference).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        uploaded(&self.storage).await;
        self.inner.stat(digest).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        uploaded(&self.storage).await;
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
impl RepositoryMut for Waiting<dyn RepositoryMut> {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        uploaded(&self.storage).await;
        self.inner.begin(expect).await
    }

    async fn resume(&self, token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        self.inner.resume(token).await
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        uploaded(&self.storage).await;
        self.inner.put_manifest(manifest, tag).await
    }

    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed> {
        self.inner.delete_manifest(reference).await
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<Removed> {
        self.inner.delete_blob(digest).await
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        let (storage, inner) = (Arc::clone(&self.storage), Arc::clone(&self.inner).reader());
        Arc::new(Waiting { storage, inner })
    }
}
