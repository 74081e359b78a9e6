use std::collections::{HashMap, HashSet};
use std::sync::Arc;

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
            let mut eviction = Eviction {
                inner: &self.inner,
                limit,
                stop,
                obscure: self.inner.prepare(stop).await?,
                evicted: &mut evicted,
            };
            // What a tagged child or a referrer was held by may be gone after a pass over all.
            while eviction.pass().await? {}
        }
        if self.inner.all_bytes().await? > limit {
            let (blobs, bytes) = sweep(&self.inner, stop).await?;
            evicted.blobs += blobs;
            evicted.bytes += bytes;
        }
        evicted.left = self.inner.all_bytes().await?;
        Ok(evicted)
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

struct Eviction<'a> {
    inner: &'a Arc<Inner>,
    limit: u64,
    stop: &'a CancellationToken,
    obscure: HashSet<Key>,
    evicted: &'a mut Evicted,
}

impl Eviction<'_> {
    /// Goes through the candidates once; true if it may help to do so again.
    async fn pass(&mut self) -> Result<bool> {
        let cutoff = self.inner.catalog.cutoff(self.inner.options.in_use);
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
                if self.stop.is_cancelled() || self.inner.needed_bytes().await? <= self.limit {
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
            let claim = |digest: &_| {
                if !claims.contains_key(digest)
                    && let Some(claim) = inner.claim(digest, cutoff)
                {
                    claims.insert(*digest, claim);
                }
                claims.contains_key(digest)
            };
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
