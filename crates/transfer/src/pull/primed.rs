use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Reference};
use ferry_store::{Blob, ByteRange, Page, PageRequest, Repository, Resolved, Result, TagEntry};

/// A repository of which one blob was opened to learn its size: whoever asks for all of it first gets that answer.
pub(super) struct Primed {
    inner: Arc<dyn Repository>,
    opened: Mutex<Option<Blob>>,
}

impl Primed {
    pub(super) fn new(inner: Arc<dyn Repository>, opened: Blob) -> Arc<Self> {
        Arc::new(Self { inner, opened: Mutex::new(Some(opened)) })
    }
}

#[async_trait]
impl Repository for Primed {
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
        // Whatever else is asked for first, the connection is not kept waiting for somebody who wants it all.
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        match opened.filter(|_| range == ByteRange::ALL) {
            Some(blob) => Ok(blob),
            None => self.inner.blob(digest, range).await,
        }
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
