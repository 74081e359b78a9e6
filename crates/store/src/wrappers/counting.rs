use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ferry_oci::Name;

use super::hook::{self, Hook, Operation};
use crate::{Blob, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut, Result, Scope, Store};

/// How often each operation was called, whether or not it succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`Operation::Repositories`].
    pub repositories: u64,
    /// [`Operation::Resolve`].
    pub resolve: u64,
    /// [`Operation::Manifest`].
    pub manifest: u64,
    /// [`Operation::Stat`].
    pub stat: u64,
    /// [`Operation::Blob`].
    pub blob: u64,
    /// [`Operation::Tags`].
    pub tags: u64,
    /// [`Operation::Referrers`].
    pub referrers: u64,
    /// [`Operation::Begin`].
    pub begin: u64,
    /// [`Operation::Resume`].
    pub resume: u64,
    /// [`Operation::PutManifest`].
    pub put_manifest: u64,
    /// [`Operation::DeleteManifest`].
    pub delete_manifest: u64,
    /// [`Operation::DeleteBlob`].
    pub delete_blob: u64,
    /// [`Operation::DurableOffset`].
    pub durable_offset: u64,
    /// [`Operation::Write`].
    pub write: u64,
    /// Bytes that uploads accepted.
    pub bytes_written: u64,
    /// [`Operation::Commit`].
    pub commit: u64,
    /// [`Operation::Suspend`].
    pub suspend: u64,
    /// [`Operation::Abort`].
    pub abort: u64,
}

impl Counts {
    fn of(&mut self, operation: Operation) -> &mut u64 {
        match operation {
            Operation::Repositories => &mut self.repositories,
            Operation::Resolve => &mut self.resolve,
            Operation::Manifest => &mut self.manifest,
            Operation::Stat => &mut self.stat,
            Operation::Blob => &mut self.blob,
            Operation::Tags => &mut self.tags,
            Operation::Referrers => &mut self.referrers,
            Operation::Begin => &mut self.begin,
            Operation::Resume => &mut self.resume,
            Operation::PutManifest => &mut self.put_manifest,
            Operation::DeleteManifest => &mut self.delete_manifest,
            Operation::DeleteBlob => &mut self.delete_blob,
            Operation::DurableOffset => &mut self.durable_offset,
            Operation::Write => &mut self.write,
            Operation::Commit => &mut self.commit,
            Operation::Suspend => &mut self.suspend,
            Operation::Abort => &mut self.abort,
        }
    }
}

/// Counts what is asked of the store that it wraps.
pub struct CountingStore {
    inner: Arc<dyn Store>,
    counter: Arc<Counter>,
}

impl CountingStore {
    /// Wraps `inner`; every count is zero.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, counter: Arc::default() }
    }

    /// What was asked since the beginning or the last [`CountingStore::take`].
    pub fn counts(&self) -> Counts {
        *self.counter.lock()
    }

    /// What was asked, and begins again at zero.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut *self.counter.lock())
    }
}

#[derive(Default)]
struct Counter(Mutex<Counts>);

impl Counter {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Hook for Counter {
    async fn before(&self, operation: Operation) -> Result<()> {
        *self.lock().of(operation) += 1;
        Ok(())
    }

    fn opened(&self, blob: Blob) -> Blob {
        blob
    }

    fn written(&self, bytes: u64) {
        self.lock().bytes_written += bytes;
    }
}

#[async_trait]
impl Store for CountingStore {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        hook::repository(self.inner.repository(scope, name), Arc::clone(&self.counter) as _)
    }

    fn writable(&self, scope: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        let inner = self.inner.writable(scope, name)?;
        Some(hook::writable(inner, Arc::clone(&self.counter) as _))
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.counter.before(Operation::Repositories).await?;
        self.inner.repositories(prefix, page).await
    }
}
