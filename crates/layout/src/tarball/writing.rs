use std::collections::HashSet;
use std::fmt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Digest, Manifest, Platform};
use ferry_store::{Error, Expect, FileSlice, Kind, Result};

use super::load;
use super::part::Part;
use super::reading::{Archive, blob_name};
use super::region::blob_path;
use super::saved::Saved;
use super::sinks;
use crate::files::{Content, Files, Sink};
use crate::index::Index;
use crate::manifests::Walk;
use crate::mark;
use crate::temporary::remove_dead;

/// An archive that is written: what was there before, and the part file of what is new.
pub(crate) struct Writing {
    path: PathBuf,
    base: Option<Archive>,
    pub(super) part: Part,
    state: Mutex<State>,
    docker: Option<Platform>,
    /// Archives before this one, with the names of their files.
    except: Vec<(String, Arc<dyn Files>)>,
}

struct State {
    index: Index,
    /// Blobs of the base that are not wanted any more.
    removed: HashSet<Digest>,
    finished: bool,
}

/// What the index reaches.
#[derive(Default)]
struct Reached {
    digests: HashSet<Digest>,
    /// The names of the archives that hold some of it.
    except: Vec<String>,
}

impl Writing {
    pub(crate) fn create(path: &Path, docker: Option<Platform>, except: Vec<Arc<dyn Files>>) -> Result<Self> {
        let name_of = |files: &Arc<dyn Files>| {
            let name = files.path().file_name().unwrap_or_default();
            (name.to_string_lossy().into_owned(), Arc::clone(files))
        };
        let except = except.iter().map(name_of).collect();
        check_directory(path)?;
        // Locked before the base is looked at, so that nobody replaces it afterwards.
        let part = Part::open(path)?;
        if let Err(e) = remove_dead(directory_of(path)) {
            tracing::debug!(error = %e, "unfinished uploads stay");
        }
        let base = base(path)?;
        let index = base.as_ref().map_or_else(Index::empty, |base| base.index.clone());
        let state = Mutex::new(State { index, removed: HashSet::new(), finished: false });
        Ok(Self { path: path.to_owned(), base, part, state, docker, except })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of an archive that is not finished yet.
    fn open(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match state.finished {
            true => Err(Error::new(Kind::Denied, operation, self.path.display(), "this archive is finished")),
            false => Ok(state),
        }
    }

    /// The directory of the archive, where more room is needed.
    pub(super) fn directory(&self) -> &Path {
        directory_of(&self.path)
    }

    /// Makes the archive whole and gives it its name. Whether there was anything to do.
    pub(crate) fn finish(&self) -> Result<bool> {
        if self.lock().finished {
            return Ok(false);
        }
        self.complete().map_err(|error| match (error.kind(), &self.base) {
            (Kind::Full, Some(_)) => {
                let detail = "no space left; until it is whole, the old file and the new one need room beside each other";
                Error::new(Kind::Full, "finish archive", self.path.display(), detail)
            }
            _ => error,
        })
    }

    fn complete(&self) -> Result<bool> {
        let saved = self.saved()?;
        let reached = self.reached()?;
        self.name_except(&reached.except);
        if self.is_unchanged(saved.as_deref(), &reached) {
            return Ok(false);
        }
        self.join_base(&reached)?;
        self.part.forget_recovered(&reached.digests);
        let mut more = vec![(mark::FILE, mark::content()), ("index.json", self.index()?.to_bytes())];
        more.extend(saved.map(|saved| ("manifest.json", saved)));
        let finished = self.part.finish(&self.path, &more);
        finished.map_err(|e| Error::io("finish archive", self.path.display(), e))?;
        self.lock().finished = true;
        Ok(true)
    }

    /// What `manifest.json` is to be, if there is to be one.
    fn saved(&self) -> Result<Option<Vec<u8>>> {
        let Some(platform) = &self.docker else { return Ok(None) };
        let images = load::images(self, platform)?;
        self.bring_needed(&images, platform)?;
        let json = serde_json::to_vec(&images);
        json.map(Some).map_err(|e| Error::new(Kind::Invalid, "write manifest.json", "", e.to_string()))
    }

    /// Docker wants to read configurations also of images whose layers it has, and it has a layer only upon the same
    /// ones as before.
    fn bring_needed(&self, images: &[Saved], platform: &Platform) -> Result<()> {
        let mut before = Vec::new();
        for (_, files) in &self.except {
            // What could not be loaded is not there.
            before.extend(load::images(&**files, platform).unwrap_or_default());
        }
        for image in images {
            let alike = |other: &Saved| {
                other.layers.iter().zip(&image.layers).take_while(|(there, ours)| there == ours).count()
            };
            let loaded = before.iter().map(alike).max().unwrap_or(0);
            for name in std::iter::once(&image.config).chain(&image.layers[loaded..]) {
                if let Some(digest) = blob_name(name) {
                    self.bring(&digest)?;
                }
            }
        }
        Ok(())
    }

    /// Copies a blob from an archive before this one, unless it is here.
    fn bring(&self, digest: &Digest) -> Result<()> {
        if self.size_of(digest)?.is_some() {
            return Ok(());
        }
        for (_, files) in &self.except {
            if let Some(Content::File(FileSlice { file, range })) = files.read(digest)? {
                return self.part.copy(&file, range, digest);
            }
        }
        Ok(())
    }

    fn reached(&self) -> Result<Reached> {
        let mut reached = Reached::default();
        for manifest in Walk::new(self)? {
            reached.digests.insert(manifest.digest());
            for blob in manifest.blobs() {
                if reached.digests.insert(blob.digest) && self.size_of(&blob.digest)?.is_none() {
                    reached.except.extend(self.excepted(&blob.digest)?.map(|(name, _)| name.clone()));
                }
            }
        }
        reached.except.sort();
        reached.except.dedup();
        Ok(reached)
    }

    /// The archive before this one that holds a blob, with the size of that.
    fn excepted(&self, digest: &Digest) -> Result<Option<(&String, u64)>> {
        for (name, files) in &self.except {
            if let Some(size) = files.size_of(digest)? {
                return Ok(Some((name, size)));
            }
        }
        Ok(None)
    }

    fn name_except(&self, used: &[String]) {
        let mut state = self.lock();
        let mut names = state.index.except();
        let known = names.len();
        names.extend(used.iter().cloned());
        names.sort();
        names.dedup();
        if names.len() > known {
            state.index.set_except(&names);
        }
    }

    fn is_unchanged(&self, saved: Option<&[u8]>, reached: &Reached) -> bool {
        let Some(base) = &self.base else { return false };
        let state = self.lock();
        let same_saved = saved.is_none() || saved == base.saved.as_deref();
        let same_blobs = state.removed.is_empty() && !self.part.holds_any(&reached.digests);
        state.index == base.index && same_saved && same_blobs
    }

    /// Copies what was there before. What is damaged and belongs to no image is left out.
    fn join_base(&self, reached: &Reached) -> Result<()> {
        let Some(base) = &self.base else { return Ok(()) };
        let removed = self.lock().removed.clone();
        for (digest, place) in base.in_order() {
            if removed.contains(&digest) || self.part.blob(&digest).is_some() {
                continue;
            }
            match self.part.copy(base.file(), place, &digest) {
                Err(e) if e.kind() == Kind::DigestMismatch && !reached.digests.contains(&digest) => {
                    tracing::warn!(%digest, "a damaged blob of the archive is left out");
                }
                copied => copied?,
            }
        }
        Ok(())
    }

    /// Throws away what is not finished.
    pub(crate) fn discard(&self) -> Result<()> {
        let mut state = self.lock();
        state.finished = true;
        let discarded = self.part.discard();
        discarded.map_err(|e| Error::io("discard archive", self.path.display(), e))
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let digest = manifest.digest();
        let region = self.part.reserve(&blob_path(&digest), manifest.bytes().len() as u64)?;
        match self.part.file().write_all_at(manifest.bytes(), region.content().start) {
            Ok(()) => self.part.keep(region, &digest),
            Err(e) => {
                self.part.release(region);
                Err(Error::io("write manifest", digest, e))
            }
        }
    }

    /// Refuses new entries that `docker load` could not read.
    fn check_loadable(&self, before: &Index, after: &Index) -> Result<()> {
        let Some(platform) = &self.docker else { return Ok(()) };
        let known: HashSet<Digest> = before.descriptors().map(|entry| entry.digest).collect();
        for (label, entry) in after.labelled().filter(|(_, entry)| !known.contains(&entry.digest)) {
            load::image(self, &label, &entry, platform)?;
        }
        Ok(())
    }
}

/// Refuses a place where no file can be.
pub(super) fn check_directory(path: &Path) -> Result<()> {
    let directory = directory_of(path);
    if directory.is_dir() {
        return Ok(());
    }
    let detail = format!("there is no directory {}; make it first", directory.display());
    Err(Error::new(Kind::NotFound, "create archive", path.display(), detail))
}

/// What was written to the archive before.
pub(super) fn base(path: &Path) -> Result<Option<Archive>> {
    match Archive::open(path) {
        Ok(base) if base.is_layout => Ok(Some(base)),
        Ok(_) => {
            let detail = "it was written by an old docker save and is left as it is; name another file";
            Err(Error::new(Kind::Invalid, "create archive", path.display(), detail))
        }
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writing").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Files for Writing {
    fn path(&self) -> &Path {
        &self.path
    }

    fn index(&self) -> Result<Index> {
        Ok(self.lock().index.clone())
    }

    fn edit_index(&self, edit: &mut dyn FnMut(&mut Index) -> bool) -> Result<bool> {
        let before = self.open("write index.json")?.index.clone();
        let mut checked = before.clone();
        if edit(&mut checked) {
            self.check_loadable(&before, &checked)?;
        }
        let mut state = self.open("write index.json")?;
        Ok(edit(&mut state.index))
    }

    fn size_of(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.read(digest)?.map(|content| content.size()))
    }

    fn counts_as(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.size_of(digest)? {
            Some(size) => Ok(Some(size)),
            None => Ok(self.excepted(digest)?.map(|(_, size)| size)),
        }
    }

    fn read(&self, digest: &Digest) -> Result<Option<Content>> {
        if let Some(region) = self.part.blob(digest) {
            let file = Arc::clone(self.part.file());
            return Ok(Some(Content::File(FileSlice { file, range: region.content() })));
        }
        match &self.base {
            Some(base) if !self.lock().removed.contains(digest) => base.read(digest),
            _ => Ok(None),
        }
    }

    fn is_left_over(&self, digest: &Digest) -> bool {
        self.part.is_recovered(digest)
    }

    fn sink(self: Arc<Self>, expect: &Expect) -> Result<Box<dyn Sink>> {
        drop(self.open("begin upload")?);
        sinks::open(self, expect)
    }

    fn place_manifest(&self, manifest: &Manifest) -> Result<()> {
        drop(self.open("put manifest")?);
        let found = self.read(&manifest.digest())?.map(|content| content.bytes());
        match found {
            Some(Ok(bytes)) if bytes == *manifest.bytes() => Ok(()),
            _ => self.write_manifest(manifest),
        }
    }

    fn remove(&self, digest: &Digest) -> Result<()> {
        let mut state = self.open("delete")?;
        self.part.remove(digest);
        if self.base.as_ref().is_some_and(|base| base.blobs.contains_key(digest)) {
            state.removed.insert(*digest);
        }
        Ok(())
    }
}
