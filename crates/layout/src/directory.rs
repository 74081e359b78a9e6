use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferry_oci::{Digest, MAX_MANIFEST_SIZE, Manifest, Reference};
use ferry_store::{Error, Kind, Result};
use serde_json::Value;

use crate::index::Index;
use crate::temporary::{Temporary, remove_dead, sync_parent};

/// The file that says that a directory is an image layout.
const MARK: &str = "oci-layout";

/// The one version of the image layout that there is.
const VERSION: &str = "1.0.0";

/// The files of a layout. Everything here blocks.
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
        if root.join(MARK).exists() {
            // A layout of another kind is left as it is.
            directory.check_mark()?;
        }
        let made = || {
            fs::create_dir_all(root)?;
            // Checked before anything is left in what may be somebody's directory. The mark is written first, so who
            // creates the same layout at the same time sees none of our files without it.
            if !root.join(MARK).exists() && has_foreign_files(root)? {
                return Ok(false);
            }
            let lock = directory.lock()?;
            let mark = serde_json::json!({"imageLayoutVersion": VERSION}).to_string();
            directory.write_if_missing(MARK, mark.as_bytes())?;
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

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn check_mark(&self) -> Result<()> {
        let text = match fs::read(self.root.join(MARK)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(self.invalid("it is not an image layout: it has no file oci-layout"));
            }
            Err(e) => return Err(self.failed("open layout", e)),
        };
        let mark: Value = serde_json::from_slice(&text)
            .map_err(|e| self.invalid(&format!("its file oci-layout is not JSON: {e}")))?;
        match mark.get("imageLayoutVersion").and_then(Value::as_str) {
            Some(VERSION) => Ok(()),
            Some(other) => Err(self.invalid(&format!("its version is {other}, known is {VERSION}"))),
            None => Err(self.invalid("its file oci-layout has no imageLayoutVersion")),
        }
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

    pub(crate) fn index(&self) -> Result<Index> {
        let bytes = match fs::read(self.root.join("index.json")) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(self.invalid("it has no index.json"));
            }
            Err(e) => return Err(self.failed("read index.json", e)),
        };
        Index::parse(&bytes).map_err(|reason| self.invalid(&format!("index.json: {reason}")))
    }

    /// Changes `index.json` unless `edit` says that there is nothing to change; returns what it said.
    pub(crate) fn edit_index(&self, edit: impl FnOnce(&mut Index) -> bool) -> Result<bool> {
        let failed = |e| self.failed("write index.json", e);
        let _lock = self.lock().map_err(failed)?;
        let mut index = self.index()?;
        let changed = edit(&mut index);
        if changed {
            self.write(&self.root.join("index.json"), &index.to_bytes()).map_err(failed)?;
        }
        Ok(changed)
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

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    pub(crate) fn size_of(&self, digest: &Digest) -> Result<Option<u64>> {
        match fs::metadata(self.blob_path(digest)) {
            Ok(found) => Ok(found.is_file().then_some(found.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("stat blob", digest, e)),
        }
    }

    /// Makes verified content the blob `digest`.
    pub(crate) fn place_blob(&self, content: Temporary, digest: &Digest) -> Result<()> {
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

    /// Makes the bytes of `manifest` a blob, unless they are one already.
    pub(crate) fn place_manifest(&self, manifest: &Manifest) -> Result<()> {
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

    /// Removes a manifest's file; whether there was one.
    pub(crate) fn remove_manifest(&self, digest: &Digest) -> Result<bool> {
        match self.manifest(&Reference::Digest(*digest)) {
            Ok(_) => {}
            Err(e) if e.kind() == Kind::NotFound => return Ok(false),
            // Nothing is lost with a file that is not what its name says.
            Err(e) if e.kind() == Kind::DigestMismatch => {}
            Err(e) => return Err(e),
        }
        self.remove_file(digest).map(|()| true)
    }

    /// Removes a file that must be there.
    pub(crate) fn remove_file(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let removed = fs::remove_file(&path).and_then(|()| sync_parent(&path));
        removed.map_err(|e| Error::io("delete", digest, e))
    }

    /// The manifest that `reference` means. One that has no entry, such as a child of an index, is found by its file.
    pub(crate) fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        let index = self.index()?;
        let (digest, entry) = match reference {
            Reference::Tag(tag) => {
                let entry = index.by_tag(tag).ok_or_else(|| Error::not_found("read manifest", tag))?;
                (entry.digest, Some(entry))
            }
            Reference::Digest(digest) => (*digest, index.by_digest(digest)),
        };
        let label = entry.map(|entry| entry.media_type);
        let found = self.read_manifest(&digest, label.as_deref())?;
        found.ok_or_else(|| Error::not_found("read manifest", reference))
    }

    /// The manifest `digest` of the type `label`. A file without label that is not a manifest is a blob and thus no
    /// manifest at all.
    pub(crate) fn read_manifest(&self, digest: &Digest, label: Option<&str>) -> Result<Option<Manifest>> {
        let invalid = |reason: String| match label {
            Some(_) => Err(Error::new(Kind::Invalid, "read manifest", digest, reason)),
            None => Ok(None),
        };
        match self.size_of(digest)? {
            None => return Ok(None),
            Some(size) if size > MAX_MANIFEST_SIZE => {
                return invalid(format!("{size} bytes are too many for a manifest"));
            }
            Some(_) => {}
        }
        let bytes = fs::read(self.blob_path(digest)).map_err(|e| Error::io("read manifest", digest, e))?;
        let actual = Digest::of(digest.algorithm(), &bytes);
        if actual != *digest {
            let detail = format!("the file holds {actual}");
            return Err(Error::new(Kind::DigestMismatch, "read manifest", digest, detail));
        }
        match Manifest::parse_as(digest.algorithm(), label, Bytes::from(bytes)) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(malformed) => invalid(malformed.reason),
        }
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
