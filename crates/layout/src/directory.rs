use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_oci::{Digest, Manifest};
use ferry_store::{Error, Expect, FileSlice, Kind, Result};

use crate::files::{Beside, Content, Files, Sink};
use crate::index::Index;
use crate::mark;
use crate::temporary::{Temporary, remove_dead, sync_parent};

/// A layout in a directory.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let directory = Self { root: root.to_owned() };
        match fs::metadata(root) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(directory.invalid("it is not a directory")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(Kind::NotFound, "open layout", root.display(), "no such directory"));
            }
            Err(e) => return Err(directory.failed("open layout", e)),
        }
        directory.check_mark()?;
        directory.index()?;
        if let Err(e) = remove_dead(root) {
            tracing::debug!(error = %e, "unfinished uploads stay"); // Reading needs no permission to write.
        }
        Ok(directory)
    }

    pub(crate) fn create(root: &Path) -> Result<Self> {
        let directory = Self { root: root.to_owned() };
        if root.join(mark::FILE).exists() {
            // A layout of another kind is left as it is.
            directory.check_mark()?;
        }
        let made = || {
            fs::create_dir_all(root)?;
            // Checked before anything is left in what may be somebody's directory. The mark is written first, so who
            // creates the same layout at the same time sees none of our files without it.
            if !root.join(mark::FILE).exists() && has_foreign_files(root)? {
                return Ok(false);
            }
            let lock = directory.lock()?;
            directory.write_if_missing(mark::FILE, &mark::content())?;
            fs::create_dir_all(root.join("blobs/sha256"))?;
            directory.write_if_missing("index.json", &Index::empty().to_bytes())?;
            drop(lock);
            io::Result::Ok(true)
        };
        if !made().map_err(|e| directory.failed("create layout", e))? {
            return Err(directory.invalid("it is not empty and not an image layout"));
        }
        Self::open(root)
    }

    fn check_mark(&self) -> Result<()> {
        let text = match fs::read(self.root.join(mark::FILE)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(self.invalid("it is not an image layout: it has no file oci-layout"));
            }
            Err(e) => return Err(self.failed("open layout", e)),
        };
        mark::check(&text).map_err(|reason| self.invalid(&reason))
    }

    fn invalid(&self, detail: &str) -> Error {
        Error::new(Kind::Invalid, "open layout", self.root.display(), detail)
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> Error {
        Error::io(operation, self.root.display(), error)
    }

    /// Waits for its turn among all writers, in this process and others.
    fn lock(&self) -> io::Result<File> {
        let path = self.root.join(".ferry.lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn write_if_missing(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.root.join(name);
        if path.exists() { Ok(()) } else { self.write(&path, content) }
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = Temporary::create(&self.root)?;
        temporary.file().write_all(content)?;
        temporary.put_in_place(path)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Makes verified content the blob `digest`.
    fn place_blob(&self, content: Temporary, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let place = || {
            if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
                fs::create_dir_all(dir)?;
                sync_parent(dir)?;
            }
            content.put_in_place(&path)
        };
        place().map_err(|e| Error::io("write blob", digest, e))
    }
}

impl Files for Directory {
    fn path(&self) -> &Path {
        &self.root
    }

    fn index(&self) -> Result<Index> {
        let bytes = match fs::read(self.root.join("index.json")) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(self.invalid("it has no index.json"));
            }
            Err(e) => return Err(self.failed("read index.json", e)),
        };
        Index::parse(&bytes).map_err(|reason| self.invalid(&format!("index.json: {reason}")))
    }

    fn edit_index(&self, edit: &mut dyn FnMut(&mut Index) -> bool) -> Result<bool> {
        let failed = |e| self.failed("write index.json", e);
        let _lock = self.lock().map_err(failed)?;
        let mut index = self.index()?;
        let changed = edit(&mut index);
        if changed {
            self.write(&self.root.join("index.json"), &index.to_bytes()).map_err(failed)?;
        }
        Ok(changed)
    }

    fn size_of(&self, digest: &Digest) -> Result<Option<u64>> {
        match fs::metadata(self.blob_path(digest)) {
            Ok(found) => Ok(found.is_file().then_some(found.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("stat blob", digest, e)),
        }
    }

    fn counts_as(&self, digest: &Digest) -> Result<Option<u64>> {
        self.size_of(digest)
    }

    fn read(&self, digest: &Digest) -> Result<Option<Content>> {
        let Some(size) = self.size_of(digest)? else { return Ok(None) };
        match File::open(self.blob_path(digest)) {
            Ok(file) => Ok(Some(Content::File(FileSlice { file: Arc::new(file), range: 0..size }))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read blob", digest, e)),
        }
    }

    fn is_left_over(&self, _digest: &Digest) -> bool {
        false
    }

    fn sink(self: Arc<Self>, _expect: &Expect) -> Result<Box<dyn Sink>> {
        let failed = |e| Error::io("begin upload", self.root.display(), e);
        let temporary = Temporary::create(&self.root).map_err(failed)?;
        Ok(Box::new(Beside::new(temporary, move |temporary, _, digest: &Digest| {
            self.place_blob(temporary, digest)
        })))
    }

    fn place_manifest(&self, manifest: &Manifest) -> Result<()> {
        let digest = manifest.digest();
        if fs::read(self.blob_path(&digest)).is_ok_and(|found| found == *manifest.bytes()) {
            return Ok(());
        }
        let written = || {
            let temporary = Temporary::create(&self.root)?;
            temporary.file().write_all(manifest.bytes())?;
            io::Result::Ok(temporary)
        };
        self.place_blob(written().map_err(|e| Error::io("write manifest", digest, e))?, &digest)
    }

    fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let removed = fs::remove_file(&path).and_then(|()| sync_parent(&path));
        removed.map_err(|e| Error::io("delete", digest, e))
    }
}

/// Whether there is anything but what ferry itself makes before the mark.
fn has_foreign_files(root: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        let own = name.to_string_lossy().starts_with(".ferry") || name == "blobs";
        if !own {
            return Ok(true);
        }
    }
    Ok(false)
}
