use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ferry_oci::{Digest, Manifest};
use ferry_store::{Error, Result};
use tokio_util::sync::CancellationToken;

use super::{orphans, step};
use crate::catalog::{self, Key, Place, Unlisted, Window, named};
use crate::leases::Claim;
use crate::storage::{BATCH, Inner, Storage};

/// Rows that are read at once.
const WINDOW: i64 = 500;

/// What [`Storage::collect`] removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectOptions {
    /// Instead of [`crate::StorageOptions::grace`].
    pub grace: Option<Duration>,
    /// Removes manifests that no tag leads to, neither as a child nor as a referrer of what it points at, once they were
    /// neither tagged nor pushed nor read for so long; it should be longer than a push of an index takes, which brings the
    /// children first. `None` keeps them all.
    pub untagged_older_than: Option<Duration>,
    /// Whether to look through the directories for files that the catalog does not know. Only a kill or a failing disk
    /// leaves such, and looking takes as long as there are files.
    pub orphans: bool,
}

impl Default for CollectOptions {
    /// The storage's grace; untagged manifests stay; orphans go.
    fn default() -> Self {
        Self { grace: None, untagged_older_than: None, orphans: true }
    }
}

/// What [`Storage::collect`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Untagged manifests of repositories.
    pub manifests: u64,
    /// Blobs of repositories that no manifest named.
    pub links: u64,
    /// Files: blobs and manifests that no repository needed any more.
    pub blobs: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Files among them that the catalog did not know.
    pub orphans: u64,
    /// Whether it was stopped before it was through.
    pub stopped: bool,
}

impl Storage {
    /// Removes what nothing needs: blobs that no manifest of their repository names, and manifests that no tag leads to if
    /// that is asked for, both once they have rested long enough; then the files that no repository has any more.
    ///
    /// Pushes and pulls go on meanwhile: whoever has opened content reads it to the end, and whoever was told that
    /// content is there finds it for the grace period. Reads every row of the catalog once, in small pieces, and holds
    /// the write lock for at most some hundred rows. Ends after the piece under way when `stop` is cancelled or the
    /// future is dropped.
    ///
    /// # Errors
    /// Whatever the catalog or the file system says; what was removed until then stays removed, the rest is found again.
    pub async fn collect(&self, options: &CollectOptions, stop: &CancellationToken) -> Result<Collected> {
        let collection = Collection { inner: &self.inner, stop, obscure: self.inner.prepare(stop).await? };
        let mut collected = Collected::default();
        let grace = options.grace.unwrap_or(self.inner.options.grace);
        if let Some(age) = options.untagged_older_than {
            collected.manifests = collection.untagged(age).await?;
        }
        collected.links = collection.links(grace).await?;
        (collected.blobs, collected.bytes) = sweep(&self.inner, stop).await?;
        if options.orphans {
            let (orphans, bytes) = orphans::remove(&self.inner, grace, stop).await?;
            collected.orphans = orphans;
            collected.blobs += orphans;
            collected.bytes += bytes;
        }
        collected.stopped = stop.is_cancelled();
        Ok(collected)
    }
}

impl Inner {
    /// Brings the catalog up to date for a decision about what may go. Returns the repositories where none can be made.
    pub(crate) async fn prepare(self: &Arc<Self>, stop: &CancellationToken) -> Result<HashSet<Key>> {
        self.record_uses().await?;
        let mut after = String::new();
        while !stop.is_cancelled() {
            let unlisted = self.catalog.unlisted(&after, WINDOW / 10).await.map_err(failed)?;
            let Some(last) = unlisted.last() else { break };
            after = last.digest.to_string();
            let mut listed = Vec::new();
            for wanted in unlisted {
                listed.extend(self.read_named(wanted).await);
            }
            self.catalog.list(&listed).await.map_err(failed)?;
        }
        self.catalog.obscure().await.map_err(failed)
    }

    /// What a manifest names, if it can be read.
    async fn read_named(self: &Arc<Self>, wanted: Unlisted) -> Option<(Digest, Vec<Digest>)> {
        let bytes = self.read_all(&wanted.digest, wanted.size).await.ok()??;
        let manifest = Manifest::parse_as(wanted.digest.algorithm(), Some(&wanted.media_type), bytes).ok()?;
        (manifest.digest() == wanted.digest).then(|| (wanted.digest, named(&manifest)))
    }
}

fn failed(error: sqlx::Error) -> Error {
    catalog::error("collect", "storage", error)
}

/// Which table a collection goes through.
#[derive(Clone, Copy)]
enum Table {
    Manifests,
    Links,
}

struct Collection<'a> {
    inner: &'a Arc<Inner>,
    stop: &'a CancellationToken,
    obscure: HashSet<Key>,
}

impl Collection<'_> {
    /// Removes untagged manifests, the topmost first: what is named by one that stays stays too.
    async fn untagged(&self, age: Duration) -> Result<u64> {
        let mut sum = 0;
        loop {
            let removed = self.pass(Table::Manifests, age).await?;
            sum += removed;
            if removed == 0 {
                return Ok(sum);
            }
        }
    }

    async fn links(&self, grace: Duration) -> Result<u64> {
        self.pass(Table::Links, grace).await
    }

    async fn pass(&self, table: Table, age: Duration) -> Result<u64> {
        let (cutoff, mut after, mut removed) = (self.inner.catalog.cutoff(age), None, 0);
        while !self.stop.is_cancelled() {
            let Some((last, found)) = self.window(table, after.as_ref(), cutoff).await? else { break };
            after = Some(last);
            let found: Vec<_> = found.into_iter().filter(|at| !self.obscure.contains(&at.key)).collect();
            for batch in found.chunks(BATCH) {
                let (inner, batch) = (Arc::clone(self.inner), batch.to_vec());
                removed += step(async move { remove(&inner, table, batch, cutoff).await }).await?;
            }
        }
        Ok(removed)
    }

    async fn window(&self, table: Table, after: Option<&Place>, cutoff: i64) -> Result<Window> {
        let catalog = &self.inner.catalog;
        let window = match table {
            Table::Manifests => catalog.unkept_manifests(after, cutoff, WINDOW).await,
            Table::Links => catalog.unnamed_links(after, cutoff, WINDOW).await,
        };
        window.map_err(failed)
    }
}

async fn remove(inner: &Arc<Inner>, table: Table, places: Vec<Place>, cutoff: i64) -> Result<u64> {
    let mut claims = HashMap::new();
    let claimed = |place: &Place| {
        // One content may be here several times, from several repositories.
        if let Some(claim) = inner.claim(&place.digest, cutoff) {
            claims.insert(place.digest, claim);
        }
        claims.contains_key(&place.digest)
    };
    let places: Vec<Place> = places.into_iter().filter(claimed).collect();
    let removed = match table {
        Table::Manifests => inner.catalog.remove_unkept_manifests(&places, cutoff).await,
        Table::Links => inner.catalog.remove_unnamed_links(&places, cutoff).await,
    };
    removed.map_err(failed)
}

/// Removes the files that no repository has any more; returns how many, and their bytes.
pub(crate) async fn sweep(inner: &Arc<Inner>, stop: &CancellationToken) -> Result<(u64, u64)> {
    let (mut after, mut files, mut bytes) = (String::new(), 0, 0);
    while !stop.is_cancelled() {
        let unneeded = inner.catalog.unneeded(&after, BATCH as i64).await.map_err(failed)?;
        let Some(last) = unneeded.last() else { break };
        after = last.to_string();
        let inner = Arc::clone(inner);
        let gone = step(async move {
            let claims: Vec<_> = unneeded.iter().filter_map(|digest| inner.leases.claim(digest)).collect();
            let gone =
                inner.catalog.forget_unneeded(claims.iter().map(Claim::digest)).await.map_err(failed)?;
            let claims: Vec<_> = claims.into_iter().filter(|claim| gone.contains(claim.digest())).collect();
            inner.remove_contents(claims).await
        })
        .await?;
        files += gone.0;
        bytes += gone.1;
    }
    Ok((files, bytes))
}
