use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferry_store::{Error, Result};
use tokio::sync::OwnedMutexGuard;

use super::SUBJECT;
use super::sessions::{Progress, UploadId};
use crate::catalog;
use crate::files::{blocking_io, remove_if_there};
use crate::storage::{Inner, Storage};

/// The longest that an upload may rest on a full disk: clients try again from the beginning, so what did not fit would be in
/// the way of what now might.
const WHEN_FULL: Duration = Duration::from_secs(10 * 60);

/// What [`Storage::expire_uploads`] gave up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// How many.
    pub uploads: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Storage {
    /// Gives up uploads that nobody has written to for [`crate::StorageOptions::upload_expiry`], or for ten minutes if
    /// the disk is full, and that nobody holds. One that is resumed at this moment either goes on or is unknown.
    ///
    /// # Errors
    /// Whatever the catalog or the file system says.
    pub async fn expire_uploads(&self) -> Result<Expired> {
        let inner = &self.inner;
        let looking = Arc::clone(inner);
        let look = move || Ok((looking.sessions.files()?, looking.content.room().left()? == 0));
        let (files, full) = blocking_io("expire uploads", SUBJECT, look).await?;
        let longest = if full { WHEN_FULL } else { Duration::MAX };
        let expiry = inner.options.upload_expiry.min(longest);
        let Some(expired) = inner.clock.now().checked_sub(expiry) else {
            return Ok(Expired::default());
        };
        let mut sum = Expired::default();
        for (id, metadata) in files {
            if metadata.modified().is_ok_and(|at| at <= expired)
                && let Some(bytes) = expire(inner, id, expired).await?
            {
                sum.uploads += 1;
                sum.bytes += bytes;
            }
        }
        Ok(sum)
    }
}

/// Gives up an upload, unless somebody holds it or has written to it after `expired`; returns its bytes.
async fn expire(inner: &Arc<Inner>, id: UploadId, expired: SystemTime) -> Result<Option<u64>> {
    let Some(hold) = inner.sessions.try_lock(&id) else { return Ok(None) };
    let (sessions, gone) = (Arc::clone(inner), id.clone());
    // The hold goes along, and with it the row: dropped on the way, a future would let a writer in too early.
    let removed =
        blocking_io("expire uploads", SUBJECT, move || remove(&sessions, &gone, hold, expired)).await?;
    if removed.is_some() {
        let row = inner.catalog.remove_upload(id.as_str()).await;
        row.map_err(|e: sqlx::Error| -> Error { catalog::error("expire uploads", SUBJECT, e) })?;
    }
    Ok(removed)
}

/// Removes the file while nobody can write to it. Blocks.
fn remove(
    inner: &Inner,
    id: &UploadId,
    hold: OwnedMutexGuard<Progress>,
    expired: SystemTime,
) -> std::io::Result<Option<u64>> {
    let path = inner.sessions.path(id);
    let removed = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.modified()? > expired => None,
        Ok(metadata) => {
            remove_if_there(&path)?;
            Some(metadata.len())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    // Those who wait for the hold find no file; only then may another hold of the same name be made.
    if removed.is_some() {
        inner.sessions.forget(id);
    }
    drop(hold);
    Ok(removed)
}
