use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Digest, Name};

use crate::graph::Place;

/// What a run has learnt of its targets. Hints only: whoever acts on one bears that it may be wrong.
#[derive(Default)]
pub(crate) struct Known(Mutex<Learnt>);

#[derive(Default)]
struct Learnt {
    holders: HashMap<(Arc<str>, Digest), Name>,
    mounts: HashMap<Arc<str>, Mounts>,
    turns: HashMap<(Arc<str>, Digest), Arc<tokio::sync::Mutex<()>>>,
}

/// Whether a store is known to mount blobs, its own included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mounts {
    /// It has neither mounted nor refused what it holds so far.
    #[default]
    Unknown,
    /// It mounts, so a refusal means that the blob is not there.
    Work,
    /// It refused to mount what it holds, so a refusal means nothing.
    Ignored,
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Learnt> {
        // A panic elsewhere cannot leave the maps half-written, so the poison is of no account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A repository of the store that holds the blob.
    pub(crate) fn holder(&self, store: &Arc<str>, digest: &Digest) -> Option<Name> {
        self.lock().holders.get(&(Arc::clone(store), *digest)).cloned()
    }

    /// Records that `place` holds the blob.
    pub(crate) fn holds(&self, place: &Place, digest: &Digest) {
        self.lock().holders.insert((Arc::clone(&place.id), *digest), place.repository.clone());
    }

    /// Forgets who holds the blob, because it turned out not to.
    pub(crate) fn forget(&self, store: &Arc<str>, digest: &Digest) {
        self.lock().holders.remove(&(Arc::clone(store), *digest));
    }

    pub(crate) fn mounts(&self, store: &Arc<str>) -> Mounts {
        self.lock().mounts.get(store).copied().unwrap_or_default()
    }

    pub(crate) fn learn_mounts(&self, store: &Arc<str>, mounts: Mounts) {
        self.lock().mounts.insert(Arc::clone(store), mounts);
    }

    /// The lock that flights of one blob to different repositories of one store take in turn, so that all but the
    /// first can mount.
    pub(crate) fn turn(&self, store: &Arc<str>, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.lock().turns.entry((Arc::clone(store), *digest)).or_default())
    }
}
