//! Small pieces of blocking file work, and the way to threads that may block.

use std::fmt::Display;
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ferry_oci::Hasher;
use ferry_store::{Error, Result};

/// Bytes read at once while hashing a file.
const HASH_CHUNK: u64 = 256 * 1024;

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|e| Err(Error::io(operation, "file", io::Error::other(e))))
}

/// Runs file work on a thread that may block; a failure is one of `operation` on `subject`.
pub(crate) async fn blocking_io<T: Send + 'static>(
    operation: &'static str,
    subject: impl Display,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    let result = ended.unwrap_or_else(|e| Err(io::Error::other(e)));
    result.map_err(|e| Error::io(operation, subject, e))
}

/// Makes a file that is not there yet, to be written and read; and its directory, which somebody may have tidied up while
/// it was empty.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let create = || OpenOptions::new().read(true).write(true).create_new(true).open(path);
    match create() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            create()
        }
        created => created,
    }
}

/// The entries of a directory, which somebody may have tidied up while it was empty.
pub(crate) fn entries(path: &Path) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
    .map(|found| found.into_iter().flatten())
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file that may be gone already.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Adds a part of a file to a hash.
pub(crate) fn hash_range(file: &File, range: Range<u64>, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; HASH_CHUNK.min(range.end.saturating_sub(range.start)) as usize];
    let mut at = range.start;
    while at < range.end {
        let wanted = HASH_CHUNK.min(range.end - at) as usize;
        file.read_exact_at(&mut buffer[..wanted], at)?;
        hasher.update(&buffer[..wanted]);
        at += wanted as u64;
    }
    Ok(())
}
