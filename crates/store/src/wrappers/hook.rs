//! Repositories and uploads that tell a [`Hook`] of every call and pass it on.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Reference, Tag};

use crate::{
    Begun, Blob, ByteRange, Expect, Page, PageRequest, Removed, Repository, RepositoryMut, Resolved, Result,
    Stored, TagEntry, Upload, UploadToken,
};

/// A call that a store, a repository or an upload answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`crate::Store::repositories`].
    Repositories,
    /// [`Repository::resolve`].
    Resolve,
    /// [`Repository::manifest`].
    Manifest,
    /// [`Repository::stat`].
    Stat,
    /// [`Repository::blob`].
    Blob,
    /// [`Repository::tags`].
    Tags,
    /// [`Repository::referrers`].
    Referrers,
    /// [`RepositoryMut::begin`].
    Begin,
    /// [`RepositoryMut::resume`].
    Resume,
    /// [`RepositoryMut::put_manifest`].
    PutManifest,
    /// [`RepositoryMut::delete_manifest`].
    DeleteManifest,
    /// [`RepositoryMut::delete_blob`].
    DeleteBlob,
    /// [`Upload::durable_offset`].
    DurableOffset,
    /// [`Upload::write`].
    Write,
    /// [`Upload::commit`].
    Commit,
    /// [`Upload::suspend`].
    Suspend,
    /// [`Upload::abort`].
    Abort,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a wrapper does besides passing calls on.
#[async_trait]
pub(super) trait Hook: Send + Sync {
    /// Before each call; an error takes its place.
    async fn before(&self, operation: Operation) -> Result<()>;

    /// After a blob was opened.
    fn opened(&self, blob: Blob) -> Blob;

    /// After bytes were accepted by an upload.
    fn written(&self, bytes: u64);
}

pub(super) fn repository(inner: Arc<dyn Repository>, hook: Arc<dyn Hook>) -> Arc<dyn Repository> {
    Arc::new(Hooked { inner, hook })
}

pub(super) fn writable(inner: Arc<dyn RepositoryMut>, hook: Arc<dyn Hook>) -> Arc<dyn RepositoryMut> {
    Arc::new(Hooked { inner, hook })
}

struct Hooked<R: ?Sized> {
    inner: Arc<R>,
    hook: Arc<dyn Hook>,
}

#[async_trait]
impl<R: Repository + ?Sized> Repository for Hooked<R> {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.hook.before(Operation::Resolve).await?;
        self.inner.resolve(reference).await
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.hook.before(Operation::Manifest).await?;
        self.inner.manifest(reference).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.hook.before(Operation::Stat).await?;
        self.inner.stat(digest).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        self.hook.before(Operation::Blob).await?;
        Ok(self.hook.opened(self.inner.blob(digest, range).await?))
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        self.hook.before(Operation::Tags).await?;
        self.inner.tags(page).await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        self.hook.before(Operation::Referrers).await?;
        self.inner.referrers(subject, artifact_type, page).await
    }
}

impl Hooked<dyn RepositoryMut> {
    fn upload(&self, inner: Box<dyn Upload>) -> Box<dyn Upload> {
        Box::new(HookedUpload { inner, hook: Arc::clone(&self.hook) })
    }
}

#[async_trait]
impl RepositoryMut for Hooked<dyn RepositoryMut> {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        self.hook.before(Operation::Begin).await?;
        Ok(match self.inner.begin(expect).await? {
            Begun::Upload(upload) => Begun::Upload(self.upload(upload)),
            done @ (Begun::Exists | Begun::Mounted) => done,
        })
    }

    async fn resume(&self, token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        self.hook.before(Operation::Resume).await?;
        Ok(self.inner.resume(token).await?.map(|upload| self.upload(upload)))
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        self.hook.before(Operation::PutManifest).await?;
        self.inner.put_manifest(manifest, tag).await
    }

    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed> {
        self.hook.before(Operation::DeleteManifest).await?;
        self.inner.delete_manifest(reference).await
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<Removed> {
        self.hook.before(Operation::DeleteBlob).await?;
        self.inner.delete_blob(digest).await
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        repository(Arc::clone(&self.inner).reader(), Arc::clone(&self.hook))
    }
}

struct HookedUpload {
    inner: Box<dyn Upload>,
    hook: Arc<dyn Hook>,
}

#[async_trait]
impl Upload for HookedUpload {
    fn token(&self) -> Option<UploadToken> {
        self.inner.token()
    }

    async fn durable_offset(&mut self) -> Result<u64> {
        self.hook.before(Operation::DurableOffset).await?;
        self.inner.durable_offset().await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.hook.before(Operation::Write).await?;
        let length = bytes.len() as u64;
        self.inner.write(bytes).await?;
        self.hook.written(length);
        Ok(())
    }

    async fn commit(self: Box<Self>, digest: &Digest) -> Result<()> {
        self.hook.before(Operation::Commit).await?;
        self.inner.commit(digest).await
    }

    async fn suspend(self: Box<Self>) -> Result<Option<UploadToken>> {
        self.hook.before(Operation::Suspend).await?;
        self.inner.suspend().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.hook.before(Operation::Abort).await?;
        self.inner.abort().await
    }
}
