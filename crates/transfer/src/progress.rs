//! How far a run is: the transfer counts, and whoever wants to know looks.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Descriptor, Digest};
use ferry_store::Partial;

use crate::graph::Place;

/// How far a run is at one moment. Sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Images whose copy has begun, those that are done included.
    pub begun: usize,
    /// Images that are done, however that ended.
    pub done_images: usize,
    /// Blobs that the images walked so far need at their targets, each counted once for a repository.
    pub known: u64,
    /// Those among them that are at their target: sent, mounted, or found there.
    pub done: u64,
    /// Read from sources so far, what was read in vain included.
    pub fetched: u64,
    /// Taken by targets so far, what was sent in vain included.
    pub sent: u64,
    /// Blobs that are under way now.
    pub blobs: Vec<Moving>,
}

/// A blob that is under way. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// Which it is.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// How much of it is here, what an earlier run fetched included.
    pub fetched: u64,
    /// How much of it the target has taken, what an earlier run sent included.
    pub sent: u64,
}

/// So many blobs are told apart. Beyond it those that arrived are forgotten, and count again if they are wanted again.
const MOST: usize = 50_000;

/// What a run counts.
#[derive(Default)]
pub(crate) struct Meter {
    begun: AtomicUsize,
    done_images: AtomicUsize,
    sent: Arc<AtomicU64>,
    wants: Mutex<Wants>,
    moving: Mutex<Vec<Arc<Gauge>>>,
}

/// Blobs by the hash of where they are wanted: that two might share one is of no account here, and keeping names would
/// take more room.
#[derive(Default)]
struct Wants {
    known: u64,
    done: u64,
    entries: HashMap<u64, Want>,
}

struct Want {
    size: u64,
    manifests: usize,
    settled: bool,
}

/// The blobs of a manifest that is walked. Those that did not arrive are not wanted any more when it is dropped.
pub(crate) struct Wanting<'a> {
    meter: &'a Meter,
    keys: Vec<u64>,
}

/// Shows that an image is under way until it is dropped.
pub(crate) struct Walking<'a>(&'a Meter);

/// Shows a blob among those that are under way until it is dropped.
pub(crate) struct Shown<'a>(&'a Meter, &'a Arc<Gauge>);

impl Meter {
    /// One more image is begun.
    pub(crate) fn walk(&self) -> Walking<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Walking(self)
    }

    /// The blobs of a manifest are wanted at `place`.
    pub(crate) fn want<'a>(
        &self,
        place: &Place,
        blobs: impl IntoIterator<Item = &'a Descriptor>,
    ) -> Wanting<'_> {
        let mut wants = self.wants();
        if wants.entries.len() >= MOST {
            wants.entries.retain(|_, want| want.manifests > 0);
        }
        let mut keys = Vec::new();
        for blob in blobs {
            let key = key(place, &blob.digest);
            keys.push(key);
            let new = Want { size: blob.size, manifests: 0, settled: false };
            let want = wants.entries.entry(key).or_insert(new);
            want.manifests += 1;
            if want.manifests == 1 && !want.settled {
                wants.known = wants.known.saturating_add(blob.size);
            }
        }
        Wanting { meter: self, keys }
    }

    /// A blob is at `place`.
    pub(crate) fn settle(&self, place: &Place, digest: &Digest) {
        let mut wants = self.wants();
        if let Some(want) = wants.entries.get_mut(&key(place, digest))
            && !std::mem::replace(&mut want.settled, true)
        {
            wants.done += want.size;
        }
    }

    /// Counts for one blob.
    pub(crate) fn gauge(&self, blob: &Descriptor) -> Arc<Gauge> {
        Arc::new(Gauge {
            digest: blob.digest,
            size: blob.size,
            fetched: AtomicU64::default(),
            sent: AtomicU64::default(),
            staged: Mutex::default(),
            all_sent: Arc::clone(&self.sent),
        })
    }

    /// The blob is under way.
    pub(crate) fn show<'a>(&'a self, gauge: &'a Arc<Gauge>) -> Shown<'a> {
        self.moving().push(Arc::clone(gauge));
        Shown(self, gauge)
    }

    /// Where the run is; `fetched` is what was read from sources.
    pub(crate) fn progress(&self, fetched: u64) -> Progress {
        let blobs = self.moving().iter().map(|gauge| gauge.moving()).collect();
        let wants = self.wants();
        Progress {
            begun: self.begun.load(Ordering::Relaxed),
            done_images: self.done_images.load(Ordering::Relaxed),
            known: wants.known,
            done: wants.done,
            fetched,
            sent: self.sent.load(Ordering::Relaxed),
            blobs,
        }
    }

    fn wants(&self) -> MutexGuard<'_, Wants> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moving(&self) -> MutexGuard<'_, Vec<Arc<Gauge>>> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(place: &Place, digest: &Digest) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&place.id, &place.repository, digest).hash(&mut hasher);
    hasher.finish()
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        let mut wants = self.meter.wants();
        for key in &self.keys {
            let Some(want) = wants.entries.get_mut(key) else { continue };
            want.manifests -= 1;
            if want.manifests == 0 && !want.settled {
                let size = want.size;
                wants.entries.remove(key);
                wants.known = wants.known.saturating_sub(size);
            }
        }
    }
}

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        self.0.done_images.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.moving().retain(|gauge| !Arc::ptr_eq(gauge, self.1));
    }
}

/// What is counted of one blob.
pub(crate) struct Gauge {
    digest: Digest,
    size: u64,
    fetched: AtomicU64,
    sent: AtomicU64,
    /// Where its bytes are gathered knows best how many there are.
    staged: Mutex<Option<Arc<dyn Partial>>>,
    all_sent: Arc<AtomicU64>,
}

impl Gauge {
    /// The blob begins from its beginning, through memory.
    pub(crate) fn begins(&self) {
        self.stages(None);
        self.fetched.store(0, Ordering::Relaxed);
        self.sent.store(0, Ordering::Relaxed);
    }

    /// The blob is gathered in staging, or not any more.
    pub(crate) fn stages(&self, partial: Option<Arc<dyn Partial>>) {
        *self.staged.lock().unwrap_or_else(PoisonError::into_inner) = partial;
    }

    /// So many more bytes were read from the source.
    pub(crate) fn fetched(&self, bytes: usize) {
        self.fetched.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The target has so many bytes already, from an upload that is gone on with.
    pub(crate) fn resumes(&self, offset: u64) {
        self.sent.store(offset, Ordering::Relaxed);
    }

    /// The target took so many more bytes.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.all_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn moving(&self) -> Moving {
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fetched = match staged {
            Some(partial) if partial.is_sealed() => self.size,
            Some(partial) => partial.extents().len(),
            None => self.fetched.load(Ordering::Relaxed),
        };
        let sent = self.sent.load(Ordering::Relaxed);
        Moving { digest: self.digest, size: self.size, fetched, sent }
    }
}

#[cfg(test)]
mod tests {
    use ferry_store::MemoryStore;

    use super::*;

    fn place(repository: &str) -> Place {
        Place { id: "r".into(), store: Arc::new(MemoryStore::new()), repository: repository.parse().unwrap() }
    }

    fn blob(text: &str, size: u64) -> Descriptor {
        Descriptor::new("application/octet-stream", Digest::sha256(text.as_bytes()), size)
    }

    fn bytes(meter: &Meter) -> (u64, u64) {
        let progress = meter.progress(0);
        (progress.done, progress.known)
    }

    #[test]
    fn blobs_count_once_for_a_repository_and_not_when_they_failed() {
        let meter = Meter::default();
        let (here, there) = (place("a"), place("b"));
        let (base, own) = (blob("base", 100), blob("own", 7));
        let first = meter.want(&here, [&base, &own]);
        let second = meter.want(&here, [&base]);
        assert_eq!(bytes(&meter), (0, 107));
        let other = meter.want(&there, [&base]);
        assert_eq!(bytes(&meter), (0, 207));
        meter.settle(&here, &base.digest);
        meter.settle(&here, &base.digest);
        assert_eq!(bytes(&meter), (100, 207));
        drop((first, other));
        assert_eq!(bytes(&meter), (100, 100), "what did not arrive is not wanted any more");
        drop(second);
        let third = meter.want(&here, [&base]);
        assert_eq!(bytes(&meter), (100, 100), "what is there is not wanted again");
        drop(third);
    }

    #[test]
    fn a_blob_is_shown_while_it_moves_and_goes_back_when_it_starts_afresh() {
        let meter = Meter::default();
        let gauge = meter.gauge(&blob("x", 10));
        assert!(meter.progress(0).blobs.is_empty());
        {
            let _shown = meter.show(&gauge);
            gauge.resumes(4);
            gauge.sent(3);
            gauge.fetched(9);
            let now = meter.progress(9);
            assert_eq!((now.blobs[0].fetched, now.blobs[0].sent, now.sent, now.fetched), (9, 7, 3, 9));
            gauge.begins();
            let now = meter.progress(9);
            assert_eq!((now.blobs[0].fetched, now.blobs[0].sent, now.sent), (0, 0, 3));
        }
        assert!(meter.progress(9).blobs.is_empty());
    }

    #[test]
    fn images_are_done_when_their_walk_ends() {
        let meter = Meter::default();
        let (first, second) = (meter.walk(), meter.walk());
        drop(first);
        let progress = meter.progress(0);
        assert_eq!((progress.begun, progress.done_images), (2, 1));
        drop(second);
        assert_eq!(meter.progress(0).done_images, 2);
    }
}
