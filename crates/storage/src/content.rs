use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ferry_oci::{Algorithm, Digest};

use crate::files::{create_new, entries, remove_if_there, sync_directory};
use crate::objects::Pending;
use crate::room::Room;

/// Bytes in files named by their digest: `<algorithm>/<first two characters>/<all characters>`.
///
/// What is here is not yet visible anywhere; that is the catalog's business. All functions block.
pub(crate) struct Content {
    root: PathBuf,
    /// Where damaged files are kept; made when there is one.
    damaged: PathBuf,
    /// Directories whose own entry is durable. Held while one is made, so that nobody relies on it earlier.
    durable: Mutex<HashSet<PathBuf>>,
    room: Room,
    /// What is to go on to a bucket, if there is one.
    pending: Option<Arc<Pending>>,
}

impl Content {
    pub(crate) fn open(root: PathBuf, damaged: PathBuf) -> io::Result<Self> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            fs::create_dir_all(root.join(algorithm.as_str()))?;
        }
        sync_directory(&root)?;
        let room = Room::of(root.clone());
        Ok(Self { root, damaged, durable: Mutex::default(), room, pending: None })
    }

    /// The same as what waits for a bucket: `limit` bytes at most, or half of what is left and of what waits already.
    pub(crate) fn awaiting_bucket(mut self, limit: Option<u64>) -> io::Result<Self> {
        let mut files = Vec::new();
        for (algorithm, directory) in self.directories()? {
            for digest in self.list(algorithm, &directory)? {
                files.extend(self.length(&digest)?.map(|length| (digest, length)));
            }
        }
        let taken: u64 = files.iter().map(|(_, length)| length).sum();
        let limit = match limit {
            Some(limit) => limit,
            None => self.room.left()?.saturating_add(taken) / 2,
        };
        let pending = Arc::new(Pending::new(files, limit));
        self.room = self.room.with(Arc::clone(&pending));
        self.pending = Some(pending);
        Ok(self)
    }

    /// What is to go on to a bucket, if there is one.
    pub(crate) fn pending(&self) -> Option<&Arc<Pending>> {
        self.pending.as_ref()
    }

    /// The room that content may take.
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    fn directory(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.algorithm().as_str()).join(&digest.hex()[..2])
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory(digest).join(digest.hex())
    }

    /// The file of `digest`; `None` if it is missing or not of this size, which is what a damaged disk leaves.
    pub(crate) fn open_file(&self, digest: &Digest, size: u64) -> io::Result<Option<File>> {
        let found = self.open_any(digest)?;
        Ok(found.filter(|(_, length)| *length == size).map(|(file, _)| file))
    }

    /// [`io::ErrorKind::StorageFull`] if no more may wait for the bucket, even of what is on this disk already.
    pub(crate) fn check_pending(&self) -> io::Result<()> {
        match &self.pending {
            Some(pending) if pending.is_full() => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// The file of `digest` and its size, whatever that should be.
    pub(crate) fn open_any(&self, digest: &Digest) -> io::Result<Option<(File, u64)>> {
        match File::open(self.path(digest)) {
            Ok(file) => {
                let length = file.metadata()?.len();
                Ok(Some((file, length)))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// How long the file of `digest` is, if it is there.
    pub(crate) fn length(&self, digest: &Digest) -> io::Result<Option<u64>> {
        match fs::metadata(self.path(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the file of `digest` is there and of this size.
    pub(crate) fn holds(&self, digest: &Digest, size: u64) -> io::Result<bool> {
        Ok(self.length(digest)? == Some(size))
    }

    /// Moves a verified and synchronised file to its place; durable when this returns. A file that is there already
    /// is replaced: it holds the same bytes, or it is damaged.
    pub(crate) fn place(&self, from: &Path, digest: &Digest) -> io::Result<()> {
        fs::rename(from, self.prepare(digest)?)?;
        self.settle(digest)
    }

    /// Where a verified and synchronised file of `digest` is to be moved to. [`Content::settle`] comes after it.
    pub(crate) fn prepare(&self, digest: &Digest) -> io::Result<PathBuf> {
        self.make_durable(&self.directory(digest))?;
        Ok(self.path(digest))
    }

    /// Makes the place of `digest` durable.
    pub(crate) fn settle(&self, digest: &Digest) -> io::Result<()> {
        sync_directory(&self.directory(digest))?;
        // It may have gone on to the bucket by now, from an earlier time that it was placed.
        if let Some(pending) = &self.pending
            && let Some(length) = self.length(digest)?
        {
            pending.add(digest, length);
        }
        Ok(())
    }

    /// Writes bytes that are known to be those of `digest`, by way of the file `temporary`.
    pub(crate) fn put(&self, temporary: &Path, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
        self.room.check()?;
        let written = write_durably(temporary, bytes).and_then(|()| self.place(temporary, digest));
        if written.is_err() {
            remove_if_there(temporary)?;
        }
        written
    }

    /// Removes the file of `digest` and returns how many bytes it had; `None` if it is gone already.
    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<Option<u64>> {
        if let Some(pending) = &self.pending {
            pending.remove(digest);
        }
        let path = self.path(digest);
        match fs::metadata(&path).and_then(|found| fs::remove_file(&path).map(|()| found.len())) {
            Ok(length) => Ok(Some(length)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Moves the file of `digest` to the damaged ones, beside those that are there; it may be gone already.
    pub(crate) fn set_aside(&self, digest: &Digest) -> io::Result<()> {
        if let Some(pending) = &self.pending {
            pending.remove(digest);
        }
        fs::create_dir_all(&self.damaged)?;
        let name = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
        let mut target = self.damaged.join(&name);
        let mut number = 1;
        while target.try_exists()? {
            number += 1;
            target = self.damaged.join(format!("{name}.{number}"));
        }
        match fs::rename(self.path(digest), &target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        sync_directory(&self.damaged)?;
        let directory = self.directory(digest);
        if directory.try_exists()? { sync_directory(&directory) } else { Ok(()) }
    }

    /// The directories with files in them. All but those that [`Content::place`] makes are left out.
    pub(crate) fn directories(&self) -> io::Result<Vec<(Algorithm, PathBuf)>> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for entry in entries(&self.root.join(algorithm.as_str()))? {
                let entry = entry?;
                if entry.file_name().len() == 2 && entry.file_type()?.is_dir() {
                    found.push((algorithm, entry.path()));
                }
            }
        }
        Ok(found)
    }

    /// The contents with a file in one of the [`Content::directories`], sorted. Files of other names are left out.
    pub(crate) fn list(&self, algorithm: Algorithm, directory: &Path) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for entry in entries(directory)? {
            let entry = entry?;
            let digest = entry
                .file_name()
                .to_str()
                .and_then(|hex| format!("{}:{hex}", algorithm.as_str()).parse::<Digest>().ok());
            if let Some(digest) = digest
                && self.directory(&digest) == directory
                && entry.file_type()?.is_file()
            {
                found.push(digest);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// When the file of `digest` was written last; `None` if it is gone.
    pub(crate) fn modified(&self, digest: &Digest) -> io::Result<Option<SystemTime>> {
        match fs::metadata(self.path(digest)).and_then(|metadata| metadata.modified()) {
            Ok(at) => Ok(Some(at)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn make_durable(&self, directory: &Path) -> io::Result<()> {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was empty may have been tidied up since.
        if !durable.contains(directory) || !directory.try_exists()? {
            fs::create_dir_all(directory)?;
            directory.parent().map_or(Ok(()), sync_directory)?;
            durable.insert(directory.to_owned());
        }
        Ok(())
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
