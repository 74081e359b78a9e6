//! The suite that every store must pass: whoever pushes pushes to the upstream, whoever reads reads through the mirror.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag};
use ferry_store::contract::{Capabilities, Subject};
use ferry_store::{
    Begun, Blob, ByteRange, Expect, Page, PageRequest, Removed, Repository, RepositoryEntry, RepositoryMut,
    Resolved, Result, Scope, Store, Stored, TagEntry, UploadToken,
};

use crate::fixtures::*;

struct Mirrored(Mirror);

#[async_trait]
impl Store for Mirrored {
    fn repository(&self, _: &Scope, name: &Name) -> Arc<dyn Repository> {
        self.0.repository(name.as_str())
    }

    fn writable(&self, _: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        let (reader, writer) = (self.0.repository(name.as_str()), self.0.upstream.writer(name.as_str()));
        Some(Arc::new(Both { reader, writer }))
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.0.pull.repositories(prefix, page).await
    }
}

struct Both {
    reader: Arc<dyn Repository>,
    writer: Arc<dyn RepositoryMut>,
}

#[async_trait]
impl Repository for Both {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.reader.resolve(reference).await
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.reader.manifest(reference).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.reader.stat(digest).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        self.reader.blob(digest, range).await
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        self.reader.tags(page).await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        self.reader.referrers(subject, artifact_type, page).await
    }
}

#[async_trait]
impl RepositoryMut for Both {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        self.writer.begin(expect).await
    }

    async fn resume(&self, token: &UploadToken) -> Result<Option<Box<dyn ferry_store::Upload>>> {
        self.writer.resume(token).await
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        self.writer.put_manifest(manifest, tag).await
    }

    /// What was fetched by its digest stays, so nothing of the mirror is removed in this way.
    async fn delete_manifest(&self, _: &Reference) -> Result<Removed> {
        Ok(Removed::Unsupported)
    }

    async fn delete_blob(&self, _: &Digest) -> Result<Removed> {
        Ok(Removed::Unsupported)
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        Arc::clone(&self.reader)
    }
}

async fn subject() -> Subject {
    let mirror = Mirror::with(|options| ferry_transfer::PullOptions {
        freshness: Arc::new(|_, _| Duration::ZERO),
        remember: Duration::ZERO,
        patience: Duration::from_secs(60),
        ..options
    })
    .await;
    let can = Capabilities { deletes: false, scopes: false, ..Capabilities::default() };
    Subject { store: Arc::new(Mirrored(mirror)), can, guard: Box::new(()) }
}

ferry_store::contract_tests!(subject);
