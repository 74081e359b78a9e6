use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferry_oci::Digest;
use tokio::sync::Notify;

/// The files that are to be brought to the bucket.
#[derive(Debug)]
pub(crate) struct Pending {
    waiting: Mutex<Waiting>,
    limit: u64,
    added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    sizes: HashMap<Digest, u64>,
    bytes: u64,
}

impl Waiting {
    fn remove(&mut self, digest: &Digest) {
        self.bytes -= self.sizes.remove(digest).unwrap_or_default();
    }
}

impl Pending {
    pub(crate) fn new(files: impl IntoIterator<Item = (Digest, u64)>, limit: u64) -> Self {
        let pending = Self { waiting: Mutex::default(), limit, added: Notify::new() };
        files.into_iter().for_each(|(digest, size)| pending.add(&digest, size));
        pending
    }

    /// A file was placed.
    pub(crate) fn add(&self, digest: &Digest, size: u64) {
        let mut waiting = self.waiting();
        waiting.remove(digest);
        waiting.sizes.insert(*digest, size);
        waiting.bytes += size;
        drop(waiting);
        self.added.notify_one();
    }

    /// A file is about to go.
    pub(crate) fn remove(&self, digest: &Digest) {
        self.waiting().remove(digest);
    }

    /// How many there are, and their bytes.
    pub(crate) fn sum(&self) -> (u64, u64) {
        let waiting = self.waiting();
        (waiting.sizes.len() as u64, waiting.bytes)
    }

    /// Whether no more may be placed.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting().bytes >= self.limit
    }

    /// One that is not among those `under_way`.
    pub(super) fn next(&self, under_way: impl Fn(&Digest) -> bool) -> Option<Digest> {
        self.waiting().sizes.keys().find(|digest| !under_way(digest)).copied()
    }

    /// Waits for one more.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_once() {
        let digests = [b"a", b"b"].map(|text| Digest::sha256(text));
        let pending = Pending::new([(digests[0], 10)], 30);
        pending.add(&digests[0], 12);
        pending.add(&digests[1], 5);
        assert_eq!((pending.sum(), pending.is_full()), ((2, 17), false));
        assert_eq!(pending.next(|digest| *digest == digests[0]), Some(digests[1]));
        pending.add(&digests[1], 18);
        assert!(pending.is_full());
        pending.remove(&digests[0]);
        pending.remove(&digests[0]);
        assert_eq!((pending.sum(), pending.is_full()), ((1, 18), false));
    }
}
