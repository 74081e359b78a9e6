use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use ferry_store::{Error, Kind, Result};

/// The sole use of a storage directory, until this is dropped or the process ends in whatever way.
pub(crate) struct DirectoryLock {
    /// The operating system's lock is bound to the open file.
    _file: File,
}

impl DirectoryLock {
    /// Locks `directory`.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let failed = |e| Error::io("open storage", directory.display(), e);
        let path = directory.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(directory, file)),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        sign(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Writes down who holds the lock.
fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn in_use(directory: &Path, mut file: File) -> Error {
    let mut holder = String::new();
    // Who holds it is a help only; without it the message is less helpful but as true.
    let known = file.read_to_string(&mut holder).is_ok_and(|length| length > 1);
    let process = if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
    let detail =
        format!("{process} is using this directory; stop it, or choose another directory for this one");
    Error::new(Kind::Unavailable, "open storage", directory.display(), detail)
}
