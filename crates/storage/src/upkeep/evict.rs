use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ferry_store::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::collect::sweep;
use super::step;
use crate::catalog::{self, Candidate, Key};
use crate::storage::{Inner, Storage};

/// Candidates that are read at once.
const WINDOW: i64 = 200;

/// After so many evicted manifests their files are removed.
const SWEEP: u64 = 20;

/// What [`Storage::evict_to`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Manifests of repositories, with the tags on them.
    pub manifests: u64,
    /// Blobs of repositories.
    pub links: u64,
    /// Files.
    pub blobs: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Bytes of content that are left: more than the limit if the rest is in use or hosted.
    pub left: u64,
}

fn failed(error: sqlx::Error) -> Error {
    catalog::error("evict", "storage", error)
}

impl Storage {
    /// Removes what nothing needs and then what has not been used for longest, until all content together has at most
    /// `limit` bytes.
    ///
    /// Manifests go whole: with the tags on them, the children and referrers that no tag keeps, and the blobs that nothing
    /// else in the repository names. Only what was fetched from upstreams goes, unless
    /// [`crate::StorageOptions::evict_hosted`], and nothing that was placed or used within
    /// [`crate::StorageOptions::in_use`]; so the limit may not be reached. Reads candidates by an index of last use, in
    /// small pieces; ends after the piece under way when `stop` is cancelled or the future is dropped.
    ///
    /// # Errors
    /// Whatever the catalog or the file system says; what was removed until then stays removed.
    pub async fn evict_to(&self, limit: u64, stop: &CancellationToken) -> Result<Evicted> {
        let mut evicted = Evicted::default();
        if self.inner.needed_bytes().await? > limit {
            let until = self.inner.options.in_use;
            Eviction::run(&self.inner, Goal { until, limit: Some(limit) }, stop, &mut evicted).await?;
        }
        if self.inner.all_bytes().await? > limit {
            let (blobs, bytes) = sweep(&self.inner, stop).await?;
            evicted.blobs += blobs;
            evicted.bytes += bytes;
        }
        self.finish(evicted).await
    }

    /// Removes what was not used for `age`, in the same way as [`Storage::evict_to`] and with the same exceptions.
    ///
    /// # Errors
    /// Whatever the catalog or the file system says; what was removed until then stays removed.
    pub async fn evict_unused(&self, age: Duration, stop: &CancellationToken) -> Result<Evicted> {
        let mut evicted = Evicted::default();
        let until = age.max(self.inner.options.in_use);
        Eviction::run(&self.inner, Goal { until, limit: None }, stop, &mut evicted).await?;
        if evicted.manifests > 0 {
            let (blobs, bytes) = sweep(&self.inner, stop).await?;
            evicted.blobs += blobs;
            evicted.bytes += bytes;
        }
        self.finish(evicted).await
    }

    async fn finish(&self, mut evicted: Evicted) -> Result<Evicted> {
        evicted.left = self.inner.all_bytes().await?;
        self.inner.evictions.add(&evicted);
        Ok(evicted)
    }
}

/// What was evicted since the storage was opened.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    manifests: AtomicU64,
    bytes: AtomicU64,
}

impl Evictions {
    fn add(&self, evicted: &Evicted) {
        self.manifests.fetch_add(evicted.manifests, Ordering::Relaxed);
        self.bytes.fetch_add(evicted.bytes, Ordering::Relaxed);
    }

    /// Manifests and bytes.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.manifests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Inner {
    /// Bytes of all contents.
    async fn all_bytes(&self) -> Result<u64> {
        Ok(self.catalog.totals().await.map_err(failed)?.bytes as u64)
    }

    /// Bytes of the contents that something needs.
    async fn needed_bytes(&self) -> Result<u64> {
        let unneeded = self.catalog.unneeded_bytes().await.map_err(failed)?;
        Ok(self.all_bytes().await?.saturating_sub(unneeded as u64))
    }
}

/// How far an eviction goes.
#[derive(Clone, Copy)]
struct Goal {
    /// What was used within this time stays.
    until: Duration,
    /// It ends at so many bytes; otherwise when nothing older is left.
    limit: Option<u64>,
}

struct Eviction<'a> {
    inner: &'a Arc<Inner>,
    goal: Goal,
    stop: &'a CancellationToken,
    obscure: HashSet<Key>,
    evicted: &'a mut Evicted,
}

impl Eviction<'_> {
    async fn run(
        inner: &Arc<Inner>,
        goal: Goal,
        stop: &CancellationToken,
        evicted: &mut Evicted,
    ) -> Result<()> {
        let mut eviction = Eviction { inner, goal, stop, obscure: inner.prepare(stop).await?, evicted };
        // What a tagged child or a referrer was held by may be gone after a pass over all.
        while eviction.pass().await? {}
        Ok(())
    }

    async fn is_done(&self) -> Result<bool> {
        Ok(match self.goal.limit {
            Some(limit) => self.inner.needed_bytes().await? <= limit,
            None => false,
        })
    }

    /// Goes through the candidates once; true if it may help to do so again.
    async fn pass(&mut self) -> Result<bool> {
        let cutoff = self.inner.catalog.cutoff(self.goal.until);
        let (mut after, mut helped) = (None, false);
        loop {
            let catalog = &self.inner.catalog;
            let hosted = self.inner.options.evict_hosted;
            let found = catalog.evictable(after.as_ref(), cutoff, hosted, WINDOW).await.map_err(failed)?;
            let Some(last) = found.last() else { return Ok(helped) };
            after = Some(last.clone());
            for candidate in found {
                if self.obscure.contains(&candidate.place.key) {
                    continue;
                }
                if self.stop.is_cancelled() || self.is_done().await? {
                    return Ok(false);
                }
                helped |= self.evict(candidate, cutoff).await?;
            }
        }
    }

    async fn evict(&mut self, candidate: Candidate, cutoff: i64) -> Result<bool> {
        let inner = Arc::clone(self.inner);
        let gone = step(async move {
            let mut claims = HashMap::new();
            let claim = |digest: &_| inner.claim_into(&mut claims, digest, cutoff);
            inner.catalog.evict(&candidate.place, cutoff, claim).await.map_err(failed)
        })
        .await?;
        let Some((manifests, links)) = gone else { return Ok(false) };
        let due = self.evicted.manifests / SWEEP < (self.evicted.manifests + manifests) / SWEEP;
        self.evicted.manifests += manifests;
        self.evicted.links += links;
        if due {
            let (blobs, bytes) = sweep(self.inner, self.stop).await?;
            self.evicted.blobs += blobs;
            self.evicted.bytes += bytes;
        }
        Ok(true)
    }
}
