use std::time::SystemTime;

use ferry_store::{Error, Result};

use crate::catalog;
use crate::files::blocking_io;
use crate::options::to_time;
use crate::storage::Storage;

/// How much a storage holds. See [`Storage::statistics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Repositories of all scopes.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests, counted in every repository that holds them.
    pub manifests: u64,
    /// Blobs, counted in every repository that holds them.
    pub links: u64,
    /// Bytes of these blobs, counted in the same way: what there would be if nothing were shared.
    pub bytes_linked: u64,
    /// Different contents, blobs and manifests, with those that await collection.
    pub blobs: u64,
    /// Their bytes: what the content takes on the disk, or in the bucket.
    pub bytes: u64,
    /// Bytes among them that await collection.
    pub bytes_unneeded: u64,
    /// Files of uploads under way.
    pub uploads: u64,
    /// Their bytes.
    pub upload_bytes: u64,
    /// Contents that wait for the bucket, if there is one.
    pub pending: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// The least recent last use of a manifest; `None` if there is none. Up to
    /// [`crate::StorageOptions::use_resolution`] too early.
    pub oldest_use: Option<SystemTime>,
    /// Manifests that were evicted since the storage was opened.
    pub evicted: u64,
    /// Bytes of files that went with them.
    pub evicted_bytes: u64,
    /// Bytes that are free on the disk that holds the content.
    pub free: u64,
}

fn failed(error: sqlx::Error) -> Error {
    catalog::error("count", "storage", error)
}

impl Storage {
    /// How much there is. Reads one row of sums, the first of an index, the contents that await collection, and the
    /// directory of uploads; so it costs the same with a million blobs.
    ///
    /// # Errors
    /// Whatever the catalog or the file system says.
    pub async fn statistics(&self) -> Result<Statistics> {
        let catalog = &self.inner.catalog;
        let totals = catalog.totals().await.map_err(failed)?;
        let unneeded = catalog.unneeded_bytes().await.map_err(failed)?;
        let oldest = catalog.oldest_use().await.map_err(failed)?;
        let inner = self.inner.clone();
        let (uploads, free) = blocking_io("count", "uploads", move || {
            Ok((inner.sessions.files()?, inner.content.room().free()?))
        })
        .await?;
        let (evicted, evicted_bytes) = self.inner.evictions.so_far();
        let (pending, pending_bytes) = self.inner.content.pending().map_or((0, 0), |pending| pending.sum());
        Ok(Statistics {
            repositories: totals.repositories as u64,
            tags: totals.tags as u64,
            manifests: totals.manifests as u64,
            links: totals.links as u64,
            bytes_linked: totals.bytes_linked as u64,
            blobs: totals.contents as u64,
            bytes: totals.bytes as u64,
            bytes_unneeded: unneeded as u64,
            uploads: uploads.len() as u64,
            upload_bytes: uploads.iter().map(|(_, metadata)| metadata.len()).sum(),
            pending,
            pending_bytes,
            oldest_use: oldest.map(to_time),
            evicted,
            evicted_bytes,
            free,
        })
    }
}
