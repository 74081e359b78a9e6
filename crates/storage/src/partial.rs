use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Digest, Hasher};
use ferry_store::{Error, Extents, Kind, Partial, Result, UploadToken};
use tokio::sync::watch;

use crate::files::{blocking, hash_range, remove_if_there};
use crate::partial_map::{format_extent, format_map, parse_map};

/// So many bytes may be hashed with every write beside those that it brings.
const CATCH_UP: u64 = 1024 * 1024;

/// Where a partial blob lies.
#[derive(Clone)]
pub(crate) struct Paths {
    /// The bytes, with holes.
    pub(crate) part: PathBuf,
    /// Which of them are there.
    pub(crate) map: PathBuf,
    /// Where uploads of the blob go on.
    uploads: PathBuf,
    /// The next map or the next uploads, until they are whole.
    new: PathBuf,
}

impl Paths {
    pub(crate) fn of(directory: &Path, digest: &Digest) -> Self {
        let stem = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
        let file = |suffix: &str| directory.join(format!("{stem}.{suffix}"));
        Self { part: file("part"), map: file("map"), uploads: file("uploads"), new: file("new") }
    }

    /// Removes all files. The bytes go last: whoever finds them finds no map, and begins anew.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.remove_notes()?;
        remove_if_there(&self.part)
    }

    /// Removes all files but the bytes.
    fn remove_notes(&self) -> io::Result<()> {
        for path in [&self.new, &self.map, &self.uploads] {
            remove_if_there(path)?;
        }
        Ok(())
    }

    /// Writes a file that only its owner may read, whole or not at all.
    fn replace(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&self.new, path)
    }
}

/// What the readers of a partial blob watch.
#[derive(Default)]
struct State {
    extents: Extents,
    sealed: bool,
    /// The file of bytes belongs to somebody else, and its former name may be that of another partial blob.
    moved: bool,
    discarded: bool,
}

/// What whoever writes holds: no byte is written twice, and what is hashed is what is in the file.
struct Writing {
    /// The hash of the first `hashed` bytes.
    hasher: Hasher,
    hashed: u64,
    map: File,
}

/// The files of one partial blob and what is known of them. All functions with file work block.
///
/// Nothing here is synchronised to the disk: every byte is verified by [`PartialFile::seal`] before it counts, so
/// what a power cut takes or garbles is found and fetched again. What was written outlives a kill anyway.
pub(crate) struct PartialFile {
    digest: Digest,
    size: u64,
    /// Locked as long as it is open: one process fills a blob.
    file: File,
    paths: Paths,
    state: watch::Sender<State>,
    writing: Mutex<Writing>,
}

impl PartialFile {
    /// Opens the files; `None` if another process holds them. The file of bytes gets its full length at once, which is
    /// how all processes know what room is taken.
    pub(crate) fn open(paths: Paths, digest: &Digest, size: u64) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&paths.part)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        let metadata = file.metadata()?;
        // Whoever held the lock before may have removed the file between our opening and locking it.
        if fs::metadata(&paths.part).ok().is_none_or(|there| there.ino() != metadata.ino()) {
            return Ok(None);
        }
        let map = fs::read(&paths.map).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let extents = map.and_then(|text| parse_map(&text, size, metadata.len())).unwrap_or_default();
        if extents.is_empty() {
            file.set_len(0)?;
        }
        file.set_len(size)?;
        paths.replace(&paths.map, &format_map(size, &extents))?;
        let map = OpenOptions::new().append(true).open(&paths.map)?;
        let hasher = Hasher::new(digest.algorithm());
        Ok(Some(Self {
            digest: *digest,
            size,
            file,
            paths,
            state: watch::Sender::new(State { extents, ..State::default() }),
            writing: Mutex::new(Writing { hasher, hashed: 0, map }),
        }))
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn is_discarded(&self) -> bool {
        self.state.borrow().discarded
    }

    /// Whether it is no partial blob any more.
    pub(crate) fn is_gone(&self) -> bool {
        let state = self.state.borrow();
        state.discarded || state.moved
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn invalid(&self, operation: &'static str, detail: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, operation, self.digest, detail)
    }

    fn io(&self, operation: &'static str) -> impl Fn(io::Error) -> Error {
        let digest = self.digest;
        move |e| Error::io(operation, digest, e)
    }

    fn check_usable(&self, operation: &'static str) -> Result<()> {
        if self.is_discarded() { Err(self.invalid(operation, "it was discarded")) } else { Ok(()) }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        const OPERATION: &str = "stage blob";
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        let end = end.ok_or_else(|| self.invalid(OPERATION, "bytes beyond the end"))?;
        let mut writing = self.writing();
        self.check_usable(OPERATION)?;
        // Bytes that are there already stay: they may have been hashed or read.
        let gaps = self.state.borrow().extents.gaps(offset..end);
        for gap in gaps {
            let part = &bytes[(gap.start - offset) as usize..(gap.end - offset) as usize];
            self.file.write_all_at(part, gap.start).map_err(self.io(OPERATION))?;
            if writing.hashed == gap.start {
                writing.hasher.update(part);
                writing.hashed = gap.end;
            }
            writing.map.write_all(format_extent(&gap).as_bytes()).map_err(self.io(OPERATION))?;
            self.state.send_modify(|state| state.extents.insert(gap.clone()));
        }
        self.catch_up(&mut writing, bytes.len() as u64).map_err(self.io(OPERATION))
    }

    /// Hashes bytes that arrived before those in front of them, a share with every write, so that [`Self::seal`] has
    /// little left to do.
    fn catch_up(&self, writing: &mut Writing, written: u64) -> io::Result<()> {
        let share = writing.hashed + written.saturating_mul(2).max(CATCH_UP);
        let reach = self.state.borrow().extents.prefix().min(share);
        if writing.hashed < reach {
            hash_range(&self.file, writing.hashed..reach, &mut writing.hasher)?;
            writing.hashed = reach;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        const OPERATION: &str = "read staged blob";
        self.check_usable(OPERATION)?;
        let extents = self.state.borrow().extents.clone();
        let there = extents.iter().find(|have| have.contains(&offset));
        let available = match there {
            Some(have) => have.end - offset,
            None if offset == self.size => 0,
            None => return Err(self.invalid(OPERATION, format!("byte {offset} is not there"))),
        };
        let mut buffer = vec![0; available.min(length as u64) as usize];
        self.file.read_exact_at(&mut buffer, offset).map_err(self.io(OPERATION))?;
        Ok(Bytes::from(buffer))
    }

    fn seal(&self, digest: &Digest) -> Result<()> {
        const OPERATION: &str = "verify staged blob";
        let writing = self.writing();
        self.check_usable(OPERATION)?;
        if self.state.borrow().sealed && *digest == self.digest {
            return Ok(());
        }
        if !self.state.borrow().extents.covers(&(0..self.size)) {
            return Err(self.invalid(OPERATION, "bytes are missing"));
        }
        let (mut hasher, hashed) = if writing.hasher.algorithm() == digest.algorithm() {
            (writing.hasher.clone(), writing.hashed)
        } else {
            (Hasher::new(digest.algorithm()), 0)
        };
        hash_range(&self.file, hashed..self.size, &mut hasher).map_err(self.io(OPERATION))?;
        let actual = hasher.finish();
        if actual != *digest {
            self.remove()?;
            let detail = format!("the bytes are {actual}");
            return Err(Error::new(Kind::DigestMismatch, OPERATION, digest, detail));
        }
        self.state.send_modify(|state| state.sealed = true);
        Ok(())
    }

    /// The uploads that are remembered; of a file that cannot be read, none.
    fn uploads(&self) -> BTreeMap<String, String> {
        let text = fs::read(&self.paths.uploads).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn keep_upload(&self, target: &str, token: Option<&UploadToken>) -> Result<()> {
        const OPERATION: &str = "remember upload";
        let _writing = self.writing();
        self.check_usable(OPERATION)?;
        let mut uploads = self.uploads();
        match token {
            Some(token) => drop(uploads.insert(target.to_owned(), token.expose().to_owned())),
            None if uploads.remove(target).is_none() => return Ok(()),
            None => {}
        }
        let text = serde_json::json!(uploads).to_string();
        self.paths.replace(&self.paths.uploads, &text).map_err(self.io(OPERATION))
    }

    fn move_to(&self, to: &Path) -> Result<bool> {
        const OPERATION: &str = "adopt staged blob";
        let _writing = self.writing();
        self.check_usable(OPERATION)?;
        if !self.state.borrow().sealed {
            return Err(self.invalid(OPERATION, "it is not verified"));
        }
        if self.state.borrow().moved {
            return Ok(false);
        }
        let moved = self.file.sync_all().and_then(|()| fs::rename(&self.paths.part, to));
        // As long as it does not say that it was moved nobody begins another one of the same name.
        let moved = moved.and_then(|()| self.paths.remove_notes());
        moved.map_err(self.io(OPERATION))?;
        self.state.send_modify(|state| state.moved = true);
        Ok(true)
    }

    fn discard(&self) -> Result<()> {
        let _writing = self.writing();
        // The names may belong to another partial blob by now.
        if self.is_gone() { Ok(()) } else { self.remove() }
    }

    fn remove(&self) -> Result<()> {
        self.state.send_modify(|state| *state = State { discarded: true, ..State::default() });
        self.paths.remove().map_err(self.io("discard staged blob"))
    }
}

/// A user's hold on a partial blob; work that was begun for it keeps the files open beyond it.
pub(crate) struct FilePartial(pub(crate) Arc<PartialFile>);

impl FilePartial {
    async fn with<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&PartialFile) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = Arc::clone(&self.0);
        blocking(operation, move || work(&file)).await
    }
}

#[async_trait]
impl Partial for FilePartial {
    fn size(&self) -> u64 {
        self.0.size
    }

    fn extents(&self) -> Extents {
        self.0.state.borrow().extents.clone()
    }

    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<()> {
        self.with("stage blob", move |file| file.write_at(offset, &bytes)).await
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.with("read staged blob", move |file| file.read_at(offset, length)).await
    }

    async fn changed(&self, offset: u64) {
        let mut state = self.0.state.subscribe();
        let wanted = offset..offset.saturating_add(1);
        // The sender lives as long as `self`, so there is no error to handle. `wait_for` looks before it waits and
        // after every change, so no wake-up is lost.
        let _ =
            state.wait_for(|state| state.extents.covers(&wanted) || state.sealed || state.discarded).await;
    }

    async fn seal(&self, digest: &Digest) -> Result<()> {
        let digest = *digest;
        self.with("verify staged blob", move |file| file.seal(&digest)).await
    }

    fn is_sealed(&self) -> bool {
        self.0.state.borrow().sealed
    }

    async fn keep_upload(&self, target: &str, token: Option<&UploadToken>) -> Result<()> {
        let (target, token) = (target.to_owned(), token.cloned());
        self.with("remember upload", move |file| file.keep_upload(&target, token.as_ref())).await
    }

    async fn kept_upload(&self, target: &str) -> Result<Option<UploadToken>> {
        let target = target.to_owned();
        self.with("remember upload", move |file| Ok(file.uploads().remove(&target).map(UploadToken::new)))
            .await
    }

    async fn move_to(&self, to: &Path) -> Result<bool> {
        let to = to.to_owned();
        self.with("adopt staged blob", move |file| file.move_to(&to)).await
    }

    async fn discard(&self) -> Result<()> {
        self.with("discard staged blob", PartialFile::discard).await
    }
}
