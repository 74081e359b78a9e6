use std::sync::atomic::{AtomicU64, Ordering};

use ferry_oci::{Digest, Name};

/// What a [`crate::PullThrough`] was asked since it began, and what it is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullFigures {
    /// Manifests, blobs and listings that were answered without asking the upstream.
    pub hits: u64,
    /// Those that had to wait for the upstream.
    pub misses: u64,
    /// Tags and listings among the hits that the upstream did not confirm when it should have.
    pub stale: u64,
    /// Bytes of blobs that came from the upstream.
    pub bytes_fetched: u64,
    /// Blobs that are being fetched.
    pub flights: Vec<FlightFigures>,
}

/// A blob that is being fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlightFigures {
    /// The repository.
    pub repository: Name,
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes, once the upstream has told it.
    pub size: Option<u64>,
    /// Bytes of it that are here.
    pub present: u64,
    /// Who reads it.
    pub readers: usize,
}

#[derive(Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
}

impl Counters {
    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stale(&self) {
        self.hit();
        self.stale.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn figures(&self, bytes_fetched: u64, flights: Vec<FlightFigures>) -> PullFigures {
        let [hits, misses, stale] =
            [&self.hits, &self.misses, &self.stale].map(|count| count.load(Ordering::Relaxed));
        PullFigures { hits, misses, stale, bytes_fetched, flights }
    }
}
