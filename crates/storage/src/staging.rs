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
use crate::room::Room;

/// A partial blob that nobody has written to for so long is given up.
const EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How [`FileStaging`] works.
#[derive(Debug, Clone)]
pub struct StagingOptions {
    /// Bytes that all partial blobs of the directory may take together; `None` is half of what is left and of what they
    /// take already, looked at for each blob.
    pub limit: Option<u64>,
    /// The present time, against which the age of what earlier processes left is measured.
    pub now: SystemTime,
}

impl StagingOptions {
    /// Half of what is left, which is what is free but for some reserve.
    pub fn new(now: SystemTime) -> Self {
        Self { limit: None, now }
    }
}

/// Partial blobs in a directory: `ALGORITHM-HEX.part` with the bytes, `.map` with which of them are there, `.uploads` with
/// where their uploads go on.
///
/// Several processes may share the directory: each blob is filled by one of them, the others do without; and together
/// they keep to the limit. Files of other names are left alone. Nothing is synchronised to the disk, since every byte
/// is verified before it counts.
pub struct FileStaging {
    directory: PathBuf,
    limit: Option<u64>,
    /// Whether what nobody holds makes room for what somebody wants.
    makes_room: bool,
    /// Held while a blob is opened, so that two callers in this process get the same one.
    open: Mutex<HashMap<Digest, Weak<PartialFile>>>,
}

impl FileStaging {
    /// Opens the staging directory, creating it if it is missing, and removes what nobody has written to for 7 days
    /// and no process holds.
    ///
    /// # Errors
    /// Whatever the file system says; [`ferry_store::Kind::Denied`] if nothing can be written there.
    pub async fn open(directory: &Path, options: StagingOptions) -> Result<Arc<Self>> {
        Ok(Arc::new(Self::prepare(directory, options).await?))
    }

    /// The same for a process that does not end: what it left unfinished gives way to what is wanted later, the least recent
    /// first.
    pub(crate) async fn open_making_room(directory: &Path, options: StagingOptions) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { makes_room: true, ..Self::prepare(directory, options).await? }))
    }

    async fn prepare(directory: &Path, options: StagingOptions) -> Result<Self> {
        let root = directory.to_owned();
        blocking_io("open staging", directory.display(), move || {
            fs::create_dir_all(&root)?;
            let _held = lock(&root)?;
            sweep(&root, options.now)
        })
        .await?;
        Ok(Self {
            directory: directory.to_owned(),
            limit: options.limit,
            makes_room: false,
            open: Mutex::default(),
        })
    }
}

#[async_trait]
impl Staging for FileStaging {
    async fn open(&self, digest: &Digest, size: u64) -> Result<Option<Arc<dyn Partial>>> {
        let mut open = self.open.lock().await;
        open.retain(|_, file| file.strong_count() > 0);
        let live = open.get(digest).and_then(Weak::upgrade).filter(|file| !file.is_gone());
        let file = if let Some(file) = live {
            file
        } else {
            let (directory, wanted) = (self.directory.clone(), *digest);
            let room = (self.limit, self.makes_room);
            let opened =
                blocking_io("stage blob", digest, move || open_within(&directory, &wanted, size, room))
                    .await?;
            let Some(file) = opened.map(Arc::new) else { return Ok(None) };
            open.insert(*digest, Arc::downgrade(&file));
            file
        };
        // Two descriptors that do not agree on the size cannot both be right: the first one goes on.
        Ok((file.size() == size).then(|| Arc::new(FilePartial(file)) as Arc<dyn Partial>))
    }

    async fn staged(&self, digest: &Digest) -> Result<Option<u64>> {
        let part = Paths::of(&self.directory, digest).part;
        blocking_io("look for staged blob", digest, move || match fs::metadata(part) {
            Ok(found) => Ok(Some(found.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }
}

/// Opens a partial blob if it has its room already or there is room left.
fn open_within(
    directory: &Path,
    digest: &Digest,
    size: u64,
    (limit, makes_room): (Option<u64>, bool),
) -> io::Result<Option<PartialFile>> {
    let paths = Paths::of(directory, digest);
    let _held = lock(directory)?;
    // A disk may be fuller or emptier than it was.
    let limit = match limit {
        Some(limit) => limit,
        None => Room::of(directory.to_owned()).left()?.saturating_add(taken(directory)?) / 2,
    };
    let has_room = fs::metadata(&paths.part).is_ok_and(|part| part.len() == size);
    if !has_room && makes_room && size <= limit {
        make_room(directory, size, limit)?;
    }
    if !has_room && taken(directory)?.saturating_add(size) > limit {
        return Ok(None);
    }
    PartialFile::open(paths, digest, size)
}

/// Whoever holds this alone gives out room. Held for as long as it takes to look at the directory.
fn lock(directory: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(directory.join("lock"))?;
    file.lock()?;
    Ok(file)
}

/// The room that partial blobs have, of this and of other processes.
fn taken(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().and_then(partial_name).is_some() {
            // It may be gone by now.
            sum += entry.metadata().map_or(0, |part| part.len());
        }
    }
    Ok(sum)
}

/// The partial blobs of a directory, and when they were written to last.
fn partials(directory: &Path) -> io::Result<Vec<(SystemTime, Digest)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(digest) = entry.file_name().to_str().and_then(partial_name) else { continue };
        // It may be gone by now.
        let Ok(metadata) = entry.metadata() else { continue };
        found.push((metadata.modified()?, digest));
    }
    Ok(found)
}

/// Removes stale partial blobs.
fn sweep(directory: &Path, now: SystemTime) -> io::Result<()> {
    for (modified, digest) in partials(directory)? {
        // A clock that was set back makes nothing old.
        if now.duration_since(modified).unwrap_or_default() > EXPIRY {
            remove_unless_held(&Paths::of(directory, &digest))?;
        }
    }
    Ok(())
}

/// Removes partial blobs that nobody holds, the least recent ones first, until `size` more bytes keep to the limit.
fn make_room(directory: &Path, size: u64, limit: u64) -> io::Result<()> {
    let mut partials = partials(directory)?;
    partials.sort_unstable();
    for (_, digest) in partials {
        if taken(directory)?.saturating_add(size) <= limit {
            break;
        }
        remove_unless_held(&Paths::of(directory, &digest))?;
    }
    Ok(())
}

fn remove_unless_held(paths: &Paths) -> io::Result<()> {
    match File::open(&paths.part) {
        Ok(file) if file.try_lock().is_ok() => paths.remove(),
        _ => Ok(()),
    }
}

/// The digest that a file of bytes belongs to.
fn partial_name(name: &str) -> Option<Digest> {
    name.strip_suffix(".part")?.replacen('-', ":", 1).parse().ok()
}
