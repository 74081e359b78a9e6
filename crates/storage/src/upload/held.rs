use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use ferry_oci::{Algorithm, Digest, Hasher};
use tokio::sync::OwnedMutexGuard;

use super::sessions::Progress;
use crate::content::Content;
use crate::files::{create_new, hash_range, remove_if_there};
use crate::room::Room;

/// Bytes collected before they are written: handing work to another thread costs about as much as writing some KiB.
const BATCH: usize = 128 * 1024;

/// The exclusive hold on an upload with its open file. All functions but `accept` block.
pub(super) struct Held {
    progress: OwnedMutexGuard<Progress>,
    file: File,
    path: PathBuf,
    room: Room,
    /// Accepted but not yet written.
    pending: Vec<Bytes>,
    pending_length: usize,
    /// Written but not yet synchronised.
    dirty: bool,
}

impl Held {
    pub(super) fn create(progress: OwnedMutexGuard<Progress>, path: PathBuf, room: Room) -> io::Result<Self> {
        // Nor does what comes to nothing take room: each upload is a row of the catalog.
        room.check()?;
        let file = create_new(&path)?;
        Ok(Self { progress, file, path, room, pending: Vec::new(), pending_length: 0, dirty: false })
    }

    /// Opens the file of an upload; `None` if it has ended.
    pub(super) fn reopen(
        mut progress: OwnedMutexGuard<Progress>,
        path: PathBuf,
        room: Room,
    ) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let length = file.metadata()?.len();
        let mut dirty = false;
        if length != progress.length {
            // Written by an earlier process: neither its hash nor whether it is durable is known.
            let mut hasher = Hasher::new(progress.hasher.algorithm());
            hash_range(&file, 0..length, &mut hasher)?;
            *progress = Progress { hasher, length };
            dirty = true;
        }
        Ok(Some(Self { progress, file, path, room, pending: Vec::new(), pending_length: 0, dirty }))
    }

    /// How many bytes are in the file.
    pub(super) fn length(&self) -> u64 {
        self.progress.length
    }

    /// Whether there are bytes that a loss of power could take.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty || !self.pending.is_empty()
    }

    /// Takes the next bytes; true if it is time to write.
    pub(super) fn accept(&mut self, bytes: Bytes) -> bool {
        self.pending_length += bytes.len();
        self.pending.push(bytes);
        self.pending_length >= BATCH
    }

    /// Writes what was accepted. If that fails, what did not fit is forgotten and the file is as long as `length` says.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.pending_length = 0;
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.room.check()?;
        }
        for bytes in pending {
            if let Err(e) = self.file.write_all_at(&bytes, self.progress.length) {
                // Should this fail too, the next hold finds another length than it knows of and reads the file.
                let _ = self.file.set_len(self.progress.length);
                return Err(e);
            }
            self.dirty = true;
            self.progress.hasher.update(&bytes);
            self.progress.length += bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes everything durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.dirty {
            self.file.sync_data()?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Verifies the bytes and moves them to their place; returns their size, or their true digest if it is another.
    /// Whatever fails, the file is gone before anyone else can take hold of the upload.
    pub(super) fn seal(mut self, content: &Content, digest: &Digest) -> io::Result<Result<u64, Digest>> {
        let sealed = self.try_seal(content, digest);
        if !matches!(sealed, Ok(Ok(_))) {
            self.pending.clear();
            remove_if_there(&self.path)?;
        }
        sealed
    }

    fn try_seal(&mut self, content: &Content, digest: &Digest) -> io::Result<Result<u64, Digest>> {
        self.flush()?;
        let actual = self.digest(digest.algorithm())?;
        if actual != *digest {
            return Ok(Err(actual));
        }
        self.sync()?;
        content.place(&self.path, digest)?;
        Ok(Ok(self.progress.length))
    }

    fn digest(&self, algorithm: Algorithm) -> io::Result<Digest> {
        if self.progress.hasher.algorithm() == algorithm {
            return Ok(self.progress.hasher.clone().finish());
        }
        let mut hasher = Hasher::new(algorithm);
        hash_range(&self.file, 0..self.progress.length, &mut hasher)?;
        Ok(hasher.finish())
    }

    /// Removes the file and lets go.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.pending.clear();
        remove_if_there(&self.path)
    }
}

impl Drop for Held {
    /// A dropped upload is left as a suspended one: at most a batch goes to the system's cache, which is quick, and
    /// a failure shows in the offset that the next hold finds.
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
