use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ferry_oci::{Algorithm, Digest};

use crate::files::{remove_if_there, sync_directory};

/// Bytes in files named by their digest: `<algorithm>/<first two characters>/<all characters>`.
///
/// What is here is not yet visible anywhere; that is the catalog's business. All functions block.
pub(crate) struct Content {
    root: PathBuf,
    /// Directories whose own entry is durable. Held while one is made, so that nobody relies on it earlier.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Content {
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            fs::create_dir_all(root.join(algorithm.as_str()))?;
        }
        sync_directory(&root)?;
        Ok(Self { root, durable: Mutex::default() })
    }

    fn directory(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.algorithm().as_str()).join(&digest.hex()[..2])
    }

    /// The file of `digest`; `None` if it is missing or not of this size, which is what a damaged disk leaves.
    pub(crate) fn open_file(&self, digest: &Digest, size: u64) -> io::Result<Option<File>> {
        match File::open(self.directory(digest).join(digest.hex())) {
            Ok(file) => Ok((file.metadata()?.len() == size).then_some(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the file of `digest` is there and of this size.
    pub(crate) fn holds(&self, digest: &Digest, size: u64) -> io::Result<bool> {
        match fs::metadata(self.directory(digest).join(digest.hex())) {
            Ok(metadata) => Ok(metadata.len() == size),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Moves a verified and synchronised file to its place; durable when this returns. A file that is there already
    /// is replaced: it holds the same bytes, or it is damaged.
    pub(crate) fn place(&self, from: &Path, digest: &Digest) -> io::Result<()> {
        let directory = self.directory(digest);
        self.make_durable(&directory)?;
        fs::rename(from, directory.join(digest.hex()))?;
        sync_directory(&directory)
    }

    /// Writes bytes that are known to be those of `digest`, by way of the file `temporary`.
    pub(crate) fn put(&self, temporary: &Path, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        let written = write_durably(temporary, bytes).and_then(|()| self.place(temporary, digest));
        if written.is_err() {
            remove_if_there(temporary)?;
        }
        written
    }

    fn make_durable(&self, directory: &Path) -> io::Result<()> {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if !durable.contains(directory) {
            fs::create_dir_all(directory)?;
            directory.parent().map_or(Ok(()), sync_directory)?;
            durable.insert(directory.to_owned());
        }
        Ok(())
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
