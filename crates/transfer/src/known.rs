use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Digest, Name};
use ferry_policy::degrade::Changes;
use ferry_store::{Hints, Holding, Rewritten};

use crate::graph::Place;

/// So many facts are kept in memory. Beyond it they are forgotten, which costs requests and nothing else.
const MOST: usize = 50_000;

/// So many new facts are handed to the hints of later runs at once.
const HANDED_OVER: usize = 256;

/// What a run has learnt of its targets. Hints only: whoever acts on one bears that it may be wrong.
pub(crate) struct Known {
    learnt: Mutex<Learnt>,
    hints: Option<Arc<dyn Hints>>,
}

type Key = (Arc<str>, Digest);
type Turn = Arc<tokio::sync::Mutex<()>>;

#[derive(Default)]
struct Learnt {
    holders: HashMap<Key, Name>,
    /// Of those, what the hints do not have yet.
    new: Vec<Holding>,
    mounts: HashMap<Arc<str>, Mounts>,
    /// Whether a target held a blob in the repository that is called as the source's.
    names: HashMap<(Arc<str>, Name), bool>,
    turns: HashMap<Key, Turn>,
    /// By what they were and how they were rewritten.
    rewritten: HashMap<(Digest, Arc<str>), Digest>,
    /// Of those, what the hints do not have yet, or what was seen again.
    new_rewritten: Vec<Rewritten>,
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

/// Another repository of a store that may hold a blob, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// This run put or saw it there.
    Seen(Name),
    /// An earlier run did.
    Remembered(Name),
    /// It is called as the source's repository, which may have been mirrored under that name.
    Named(Name),
    /// None.
    Unknown,
}

impl Holder {
    pub(crate) fn name(&self) -> Option<&Name> {
        match self {
            Self::Seen(name) | Self::Remembered(name) | Self::Named(name) => Some(name),
            Self::Unknown => None,
        }
    }
}

impl Known {
    pub(crate) fn new(hints: Option<Arc<dyn Hints>>) -> Self {
        Self { learnt: Mutex::default(), hints }
    }

    fn lock(&self) -> MutexGuard<'_, Learnt> {
        // A panic elsewhere cannot leave the maps half-written, so the poison is of no account.
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A repository of the target's store, other than the target, that may hold the blob.
    pub(crate) async fn holder(&self, target: &Place, digest: &Digest, source_name: &Name) -> Holder {
        let key = (Arc::clone(&target.id), *digest);
        if let Some(name) = self.lock().holders.get(&key).filter(|name| **name != target.repository) {
            return Holder::Seen(name.clone());
        }
        if let Some(hints) = &self.hints {
            match hints.holder(&target.id, digest).await {
                Ok(Some(name)) if name != target.repository => return Holder::Remembered(name),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "no hint"),
            }
        }
        let tried = self.lock().names.get(&(Arc::clone(&target.id), source_name.clone())).copied();
        if *source_name != target.repository && tried != Some(false) {
            return Holder::Named(source_name.clone());
        }
        Holder::Unknown
    }

    /// Records that `place` holds the blob.
    pub(crate) async fn holds(&self, place: &Place, digest: &Digest) {
        let handed_over = {
            let mut learnt = self.lock();
            if learnt.holders.len() >= MOST {
                learnt.holders.clear();
            }
            let key = (Arc::clone(&place.id), *digest);
            let before = learnt.holders.insert(key, place.repository.clone());
            if self.hints.is_some() && before.is_none() {
                let (store, repository) = (Arc::clone(&place.id), place.repository.clone());
                learnt.new.push(Holding { store, repository, digest: *digest });
            }
            if learnt.new.len() >= HANDED_OVER { std::mem::take(&mut learnt.new) } else { Vec::new() }
        };
        self.remember(handed_over).await;
    }

    /// What the manifest became when it was last rewritten so.
    pub(crate) async fn rewritten(&self, from: &Digest, how: &Changes) -> Option<Digest> {
        if how.is_empty() {
            return None;
        }
        self.became(from, how.key().into()).await
    }

    /// Records what a manifest became, and that it is at a target now.
    pub(crate) async fn rewrote(&self, from: Digest, how: &Changes, to: Digest) {
        self.record(from, how.key().into(), to).await;
    }

    /// Whether only some of the manifests that an index names were brought there.
    pub(crate) async fn is_sparse(&self, place: &Place, index: &Digest) -> bool {
        self.became(index, sparse_at(place)).await == Some(*index)
    }

    /// Records whether that is so.
    pub(crate) async fn learn_sparse(&self, place: &Place, index: Digest, sparse: bool) {
        // Hints cannot be taken back, only replaced: an index that became nothing is not sparse.
        let became = if sparse { index } else { Digest::sha256(b"") };
        self.record(index, sparse_at(place), became).await;
    }

    async fn became(&self, from: &Digest, how: Arc<str>) -> Option<Digest> {
        let known = self.lock().rewritten.get(&(*from, Arc::clone(&how))).copied();
        match (known, &self.hints) {
            (None, Some(hints)) => {
                let hint = hints.rewritten(from, &how).await;
                hint.inspect_err(|error| tracing::debug!(%error, "no hint")).ok().flatten()
            }
            (known, _) => known,
        }
    }

    async fn record(&self, from: Digest, how: Arc<str>, to: Digest) {
        let handed_over = {
            let mut learnt = self.lock();
            if learnt.rewritten.len() >= MOST {
                learnt.rewritten.clear();
            }
            let before = learnt.rewritten.insert((from, Arc::clone(&how)), to);
            if self.hints.is_some() && before != Some(to) {
                learnt.new_rewritten.push(Rewritten { from, how, to });
            }
            if learnt.new_rewritten.len() >= HANDED_OVER {
                std::mem::take(&mut learnt.new_rewritten)
            } else {
                Vec::new()
            }
        };
        self.remember_rewritten(handed_over).await;
    }

    /// Hands everything new to the hints of later runs.
    pub(crate) async fn hand_over(&self) {
        let (new, rewritten) = {
            let mut learnt = self.lock();
            (std::mem::take(&mut learnt.new), std::mem::take(&mut learnt.new_rewritten))
        };
        self.remember(new).await;
        self.remember_rewritten(rewritten).await;
    }

    async fn remember_rewritten(&self, new: Vec<Rewritten>) {
        if let Some(hints) = self.hints.as_ref().filter(|_| !new.is_empty())
            && let Err(error) = hints.remember_rewritten(new).await
        {
            tracing::debug!(%error, "later runs will rewrite manifests to compare them");
        }
    }

    async fn remember(&self, new: Vec<Holding>) {
        if let Some(hints) = self.hints.as_ref().filter(|_| !new.is_empty())
            && let Err(error) = hints.remember(new).await
        {
            tracing::debug!(%error, "later runs will not know who holds blobs");
        }
    }

    /// Forgets who holds the blob, because it turned out not to.
    pub(crate) async fn forget(&self, store: &Arc<str>, digest: &Digest) {
        self.lock().holders.remove(&(Arc::clone(store), *digest));
        if let Some(hints) = &self.hints
            && let Err(error) = hints.forget(store, digest).await
        {
            tracing::debug!(%error, "a wrong hint stays");
        }
    }

    pub(crate) fn mounts(&self, store: &Arc<str>) -> Mounts {
        self.lock().mounts.get(store).copied().unwrap_or_default()
    }

    pub(crate) fn learn_mounts(&self, store: &Arc<str>, mounts: Mounts) {
        self.lock().mounts.insert(Arc::clone(store), mounts);
    }

    /// Records whether the repository called `name` held a blob of the source's repository of that name.
    pub(crate) fn learn_name(&self, store: &Arc<str>, name: &Name, held: bool) {
        let mut learnt = self.lock();
        if learnt.names.len() >= MOST {
            learnt.names.clear();
        }
        // One blob that is missing says enough; one that is there outweighs it.
        let known = learnt.names.entry((Arc::clone(store), name.clone())).or_insert(held);
        *known |= held;
    }

    /// The lock that flights of one blob to different repositories of one store take in turn, so that all but the
    /// first can mount.
    pub(crate) fn turn(&self, store: &Arc<str>, digest: &Digest) -> Turn {
        Arc::clone(self.lock().turns.entry((Arc::clone(store), *digest)).or_default())
    }

    /// Gives the lock back; it is gone with the last one who waits for it.
    pub(crate) fn turn_is_over(&self, store: &Arc<str>, digest: &Digest, turn: Turn) {
        let mut learnt = self.lock();
        drop(turn);
        let key = (Arc::clone(store), *digest);
        if learnt.turns.get(&key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            learnt.turns.remove(&key);
        }
    }
}

/// Names, in records of rewritten manifests, that an index is there without some of what it names.
fn sparse_at(place: &Place) -> Arc<str> {
    format!("sparse.1@{}/{}", place.id, place.repository).into()
}
