use std::io;
use std::path::PathBuf;

/// The most that is kept free.
const MOST: u64 = 64 << 20;

/// Which part of the disk is kept free at most.
const PART: u64 = 16;

/// Room on the disk that content does not take: the catalog needs some even to remove what is in the way, so a disk that
/// is full to the last byte could not be emptied.
#[derive(Debug, Clone)]
pub(crate) struct Room(PathBuf);

impl Room {
    /// The room on the disk that holds `path`.
    pub(crate) fn of(path: PathBuf) -> Self {
        Self(path)
    }

    /// [`io::ErrorKind::StorageFull`] if only what is kept free is left. Blocks.
    pub(crate) fn check(&self) -> io::Result<()> {
        let numbers = rustix::fs::statvfs(&self.0)?;
        let kept = (numbers.f_blocks.saturating_mul(numbers.f_frsize) / PART).min(MOST);
        let free = free(&numbers);
        if free < kept { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Bytes that are free on the disk, with what is kept free. Blocks.
    pub(crate) fn free(&self) -> io::Result<u64> {
        Ok(free(&rustix::fs::statvfs(&self.0)?))
    }
}

fn free(numbers: &rustix::fs::StatVfs) -> u64 {
    numbers.f_bavail.saturating_mul(numbers.f_frsize)
}
