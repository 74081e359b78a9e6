use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::objects::Pending;

/// The least that is kept free: SQLite's log grows to 4 MiB before it is used again from its beginning, and what it holds
/// then goes into the catalog itself.
const LEAST: u64 = 8 << 20;

/// The most that is kept free.
const MOST: u64 = 64 << 20;

/// Which part of the disk is kept free, between the two.
const PART: u64 = 16;

/// Room on the disk that content does not take: the catalog needs some even to remove what is in the way, so a disk that
/// is full to the last byte could not be emptied.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    path: PathBuf,
    /// What waits for a bucket, and may take only so much.
    pending: Option<Arc<Pending>>,
}

impl Room {
    /// The room on the disk that holds `path`.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self { path, pending: None }
    }

    /// The same, also limited by what waits for a bucket.
    pub(crate) fn with(self, pending: Arc<Pending>) -> Self {
        Self { pending: Some(pending), ..self }
    }

    /// Bytes that are free on the disk, with what is kept free. Blocks.
    pub(crate) fn free(&self) -> io::Result<u64> {
        self.look().map(|(free, _)| free)
    }

    /// Bytes that content may still take of the disk. Blocks.
    pub(crate) fn left(&self) -> io::Result<u64> {
        self.look().map(|(free, kept)| free.saturating_sub(kept))
    }

    /// Bytes that are free on the disk, and how many of them are kept free.
    fn look(&self) -> io::Result<(u64, u64)> {
        let numbers = rustix::fs::statvfs(&self.path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(numbers.f_frsize);
        Ok((bytes(numbers.f_bavail), (bytes(numbers.f_blocks) / PART).clamp(LEAST, MOST)))
    }

    /// [`io::ErrorKind::StorageFull`] if only what is kept free is left. Blocks.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.pending.as_ref().is_some_and(|pending| pending.is_full()) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "too much waits for the bucket"));
        }
        if self.left()? == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
