use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ferry_oci::{Descriptor, Digest};
use ferry_store::{Partial, Result, Staging};
use tokio::sync::Semaphore;

use crate::fill::fill;
use crate::reader::Origin;
use crate::wants::Wants;

/// The staged blobs of a run. Flights of one blob to several targets share it: the source is read once.
pub(crate) struct Spools {
    staging: Option<Arc<dyn Staging>>,
    from: u64,
    open: Mutex<HashMap<Digest, Weak<Spool>>>,
}

/// A staged blob in use.
pub(crate) struct Spool {
    pub(crate) partial: Arc<dyn Partial>,
    /// Where readers wait for it.
    pub(crate) wants: Arc<Wants>,
    /// Held by the one who fills it.
    filling: tokio::sync::Mutex<()>,
}

impl Spool {
    /// Fetches what is missing and verifies the whole, unless another flight did or does.
    pub(crate) async fn fill(
        &self,
        origin: &Origin,
        blob: &Descriptor,
        slots: &Arc<Semaphore>,
    ) -> Result<()> {
        let _alone = self.filling.lock().await;
        fill(&*self.partial, origin, blob, slots, &self.wants).await
    }
}

impl Spools {
    /// Stages blobs of at least `from` bytes.
    pub(crate) fn new(staging: Option<Arc<dyn Staging>>, from: u64) -> Self {
        Self { staging, from, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Spool>>> {
        // A panic elsewhere cannot leave the map half-written, so the poison is of no account.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob's place in staging, if it is large enough to be worth one and there is room. Without one it goes through
    /// memory, so that staging never is a reason to fail.
    pub(crate) async fn spool(&self, blob: &Descriptor) -> Option<Arc<Spool>> {
        let staging = self.staging.as_ref().filter(|_| blob.size >= self.from)?;
        if let Some(spool) = self.open().get(&blob.digest).and_then(Weak::upgrade) {
            return Some(spool);
        }
        let partial = match staging.open(&blob.digest, blob.size).await {
            Ok(partial) => partial?,
            Err(error) => {
                tracing::warn!(%error, "going on without staging");
                return None;
            }
        };
        let mut open = self.open();
        if let Some(spool) = open.get(&blob.digest).and_then(Weak::upgrade) {
            return Some(spool);
        }
        let spool =
            Arc::new(Spool { partial, wants: Arc::default(), filling: tokio::sync::Mutex::default() });
        open.insert(blob.digest, Arc::downgrade(&spool));
        Some(spool)
    }

    /// Lets go of a blob. The last one who is `done` with it frees its space; otherwise it stays for a later run.
    pub(crate) async fn close(&self, digest: &Digest, spool: Arc<Spool>, done: bool) {
        let last = {
            let mut open = self.open();
            // Clones are made under this lock only, so nobody can join in between.
            let last = Arc::strong_count(&spool) == 1;
            if last {
                open.remove(digest);
            }
            last
        };
        if last
            && done
            && let Err(error) = spool.partial.discard().await
        {
            tracing::warn!(%error, "staged bytes stay behind");
        }
    }

    /// Sees to it that a blob whose staged bytes were wrong is staged anew.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.open().remove(digest);
    }
}
