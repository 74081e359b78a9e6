use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the names of unfinished files begin with.
const PREFIX: &str = ".ferry-upload-";

/// A file that is not finished. It is locked while this value lives and removed with it, unless it was put in place.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// A new file in `dir`.
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        loop {
            let path = dir.join(format!("{PREFIX}{:032x}", rand::random::<u128>()));
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            let locked = file.try_lock().is_ok();
            let temporary = Self { path, file };
            // Between creation and lock a cleaner may have taken it for a dead one.
            if locked && temporary.file.metadata()?.nlink() > 0 {
                return Ok(temporary);
            }
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Makes the content durable and gives it its name, replacing what had it. The directory of `target` must exist.
    pub(crate) fn put_in_place(self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        sync_parent(target)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Put in place, it is not there any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Removes the unfinished files in `dir` that nobody writes any more.
pub(crate) fn remove_dead(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Another cleaner may be faster.
        let Ok(file) = File::open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            tracing::debug!(path = %entry.path().display(), "removing an unfinished upload");
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn only_dead_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let alive = Temporary::create(dir.path()).unwrap();
        fs::write(dir.path().join(".ferry-upload-dead"), b"half").unwrap();
        fs::write(dir.path().join("unknown"), b"kept").unwrap();
        remove_dead(dir.path()).unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        alive.file().write_all(b"whole").unwrap();
        alive.put_in_place(&dir.path().join("done")).unwrap();
        assert_eq!(fs::read(dir.path().join("done")).unwrap(), b"whole");
        drop(Temporary::create(dir.path()).unwrap());
        assert_eq!(names(dir.path()).len(), 2, "done and unknown");
    }
}
