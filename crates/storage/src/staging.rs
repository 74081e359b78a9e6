use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ferry_oci::Digest;
use ferry_store::{Partial, Result, Staging};
use tokio::sync::Mutex;

use crate::files::blocking_io;
use crate::partial::{FilePartial, PartialFile, Paths};

/// A partial blob that nobody has written to for so long is given up.
const EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How [`FileStaging`] works.
#[derive(Debug, Clone)]
pub struct StagingOptions {
    /// After so many bytes of a blob, progress is recorded: what a killed process fetches again at most. At least 1.
    pub piece: u64,
    /// The present time, against which the age of what earlier processes left is measured.
    pub now: SystemTime,
}

impl StagingOptions {
    /// Pieces of 8 MiB.
    pub fn new(now: SystemTime) -> Self {
        Self { piece: 8 * 1024 * 1024, now }
    }
}

/// Partial blobs in a directory: `ALGORITHM-HEX.part` with the bytes, `ALGORITHM-HEX.map` with which of them are there.
///
/// Several processes may share the directory: each blob is filled by one of them, the others do without. Files of
/// other names are left alone. Nothing is synchronised to the disk, since every byte is verified before it counts.
pub struct FileStaging {
    directory: PathBuf,
    piece: u64,
    /// Held while a blob is opened, so that two callers in this process get the same one.
    open: Mutex<HashMap<Digest, Weak<PartialFile>>>,
}

impl FileStaging {
    /// Opens the staging directory, creating it if it is missing, and removes what nobody has written to for 7 days
    /// and no process holds.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn open(directory: &Path, options: StagingOptions) -> Result<Arc<Self>> {
        let root = directory.to_owned();
        blocking_io("open staging", directory.display(), move || {
            fs::create_dir_all(&root)?;
            sweep(&root, options.now)
        })
        .await?;
        let (directory, piece) = (directory.to_owned(), options.piece.max(1));
        Ok(Arc::new(Self { directory, piece, open: Mutex::default() }))
    }
}

#[async_trait]
impl Staging for FileStaging {
    async fn open(&self, digest: &Digest, size: u64) -> Result<Option<Arc<dyn Partial>>> {
        let mut open = self.open.lock().await;
        open.retain(|_, file| file.strong_count() > 0);
        let live = open.get(digest).and_then(Weak::upgrade).filter(|file| !file.is_discarded());
        let file = if let Some(file) = live {
            file
        } else {
            let (paths, wanted, piece) = (Paths::of(&self.directory, digest), *digest, self.piece);
            let opened =
                blocking_io("stage blob", digest, move || PartialFile::open(paths, &wanted, size, piece))
                    .await?;
            let Some(file) = opened.map(Arc::new) else { return Ok(None) };
            open.insert(*digest, Arc::downgrade(&file));
            file
        };
        // Two descriptors that do not agree on the size cannot both be right: the first one goes on.
        Ok((file.size() == size).then(|| Arc::new(FilePartial(file)) as Arc<dyn Partial>))
    }
}

/// Removes stale partial blobs.
fn sweep(directory: &Path, now: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some(digest) = name.to_str().and_then(partial_name) else { continue };
        let paths = Paths::of(directory, &digest);
        let Ok(file) = File::open(&paths.part) else { continue };
        let age = now.duration_since(file.metadata()?.modified()?).unwrap_or_default();
        if age > EXPIRY && file.try_lock().is_ok() {
            paths.remove()?;
        }
    }
    Ok(())
}

/// The digest that a file of bytes belongs to.
fn partial_name(name: &str) -> Option<Digest> {
    name.strip_suffix(".part")?.replacen('-', ":", 1).parse().ok()
}
