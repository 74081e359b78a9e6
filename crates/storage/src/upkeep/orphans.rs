//! Files that the catalog does not know: what a kill between a row and its file leaves.

use std::sync::Arc;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_store::{Error, Result};
use futures_util::stream::{BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::step;
use crate::catalog;
use crate::files::blocking_io;
use crate::leases::Claim;
use crate::storage::{BATCH, Inner};

/// Files that are compared with the catalog at once.
const WINDOW: usize = 1_000;

fn failed(error: sqlx::Error) -> Error {
    catalog::error("look for orphans", "storage", error)
}

/// Removes orphans that nobody has written to for `grace`; returns how many, and their bytes.
pub(super) async fn remove(
    inner: &Arc<Inner>,
    grace: Duration,
    stop: &CancellationToken,
) -> Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    let mut search = Search::begin(inner).await?;
    while let Some(orphans) = search.next(stop).await? {
        for batch in orphans.chunks(BATCH) {
            let (inner, batch) = (Arc::clone(inner), batch.to_vec());
            let gone = step(async move { remove_batch(&inner, batch, grace).await }).await?;
            files += gone.0;
            bytes += gone.1;
        }
    }
    Ok((files, bytes))
}

async fn remove_batch(inner: &Arc<Inner>, orphans: Vec<Digest>, grace: Duration) -> Result<(u64, u64)> {
    let claims = confirm(inner, orphans).await?;
    let newest = inner.clock.before(grace);
    let mut old = Vec::new();
    for claim in claims {
        if inner.placed(claim.digest()).await?.is_some_and(|at| at <= newest) {
            old.push(claim);
        }
    }
    inner.remove_contents(old).await
}

/// Those of the files that the catalog still does not know, and that nobody is bringing to its knowledge.
pub(super) async fn confirm(inner: &Arc<Inner>, files: Vec<Digest>) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for digest in files {
        let Some(claim) = inner.leases.claim(&digest) else { continue };
        if !inner.catalog.knows(&digest).await.map_err(failed)? {
            claims.push(claim);
        }
    }
    Ok(claims)
}

/// What a bucket holds, a window at a time.
type Listed = BoxStream<'static, Vec<Result<(Digest, u64)>>>;

/// Goes through the directories, and keeps in memory what one of them has; and then through the bucket.
pub(super) struct Search<'a> {
    inner: &'a Arc<Inner>,
    directories: Vec<(ferry_oci::Algorithm, std::path::PathBuf)>,
    files: Vec<Digest>,
    objects: Option<Listed>,
}

impl<'a> Search<'a> {
    pub(super) async fn begin(inner: &'a Arc<Inner>) -> Result<Self> {
        let content = Arc::clone(inner);
        let directories =
            blocking_io("look for orphans", "storage", move || content.content.directories()).await?;
        let objects = inner.objects.as_ref().filter(|objects| objects.is_listed());
        let objects = objects.map(|objects| objects.bucket.list().chunks(WINDOW).boxed());
        Ok(Self { inner, directories, files: Vec::new(), objects })
    }

    /// Some files that the catalog does not know, which may be none; `None` at the end, or if stopped.
    pub(super) async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Vec<Digest>>> {
        while self.files.is_empty() {
            let Some((algorithm, directory)) = self.directories.pop() else {
                let Some(objects) = self.next_objects().await? else { return Ok(None) };
                self.files = objects;
                break;
            };
            let inner = Arc::clone(self.inner);
            self.files =
                blocking_io("look for orphans", "storage", move || inner.content.list(algorithm, &directory))
                    .await?;
        }
        if stop.is_cancelled() {
            return Ok(None);
        }
        let files = self.files.split_off(self.files.len().saturating_sub(WINDOW));
        let (Some(first), Some(last)) = (files.first(), files.last()) else { return Ok(Some(files)) };
        let known = self.inner.catalog.contents_between(first, last).await.map_err(failed)?;
        Ok(Some(files.into_iter().filter(|digest| !known.contains(digest)).collect()))
    }

    async fn next_objects(&mut self) -> Result<Option<Vec<Digest>>> {
        let Some(objects) = &mut self.objects else { return Ok(None) };
        let Some(window) = objects.next().await else { return Ok(None) };
        let mut digests = window.into_iter().map(|found| Ok(found?.0)).collect::<Result<Vec<_>>>()?;
        digests.sort_unstable();
        Ok(Some(digests))
    }
}
