//! An OCI image layout (image-spec `image-layout.md`), in a directory or an archive, as a store.
//!
//! As a store a layout has no repository names, so it is *one* repository: every name and every [`Scope`] shows the same
//! content. Its tags are the entries of `index.json` whose `org.opencontainers.image.ref.name` follows the tag grammar; other
//! entries, and whatever else stands in that file, are kept as they are. A manifest pushed without a tag gets an entry
//! without a name, until an index that contains it is pushed: everything pushed stays reachable for other tools, and
//! the parts of an image do not stand beside it.
//!
//! Entries may have the name of an image (`io.containerd.image.name`, or a whole reference as `ref.name`).
//! [`Layout::named`] shows and writes those of one name, over the same blobs, so that two names may have the same tag;
//! [`Layout::images`] lists all entries.
//!
//! # Directories
//!
//! Readers need no lock: files appear whole, by rename. Writers to `index.json` take turns, across processes too, with
//! a lock on `.ferry.lock`; unfinished blobs are files `.ferry-upload-…` that their writer holds a lock on, so that
//! whoever opens the layout next can tell the dead ones and removes them. Tools other than ferry do not know these
//! locks: do not let them write at the same time.
//!
//! # Archives
//!
//! [`Layout::open_archive`] reads an uncompressed tar file: a layout as skopeo, podman, buildx and `docker save` since
//! version 25 write it, or what older ones saved, for which manifests are made. Only headers are read before a blob is
//! asked for.
//!
//! [`Layout::create_archive`] writes `.NAME.ferry-part` beside the file, which [`Layout::finish`] gives its name. Each blob
//! gets a region of the size that is expected, several at the same time; its header bears another name until its digest
//! is verified. What is whole in a part file is found again by the next process, by hashing it. `index.json` and
//! `manifest.json` are written at the end. If the file exists already it stays as it is until then, and for good if it
//! has everything. A part file that lost uploads is compacted in place.
//!
//! ```no_run
//! # fn main() -> ferry_store::Result<()> {
//! use ferry_layout::Layout;
//! use ferry_store::{Scope, Store};
//!
//! let layout = Layout::create("images")?;
//! # let name = "any/name".parse().unwrap();
//! let repository = layout.repository(&Scope::Hosted, &name);
//! # drop(repository); Ok(())
//! # }
//! ```

mod backed;
mod directory;
mod files;
mod index;
mod manifests;
mod mark;
mod name;
mod referrers;
mod repository;
mod tarball;
mod temporary;
mod upload;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::{Digest, Name, Platform, Tag};
use ferry_store::{
    Error, Kind, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut, Result, Scope, Store,
};

use backed::Backed;
use directory::Directory;
use files::Files;
pub use name::ImageName;
use repository::{LayoutRepository, View};
use tarball::{Archive, Preview, Writing};

/// An OCI image layout. Clones are the same layout.
#[derive(Clone)]
pub struct Layout {
    files: Arc<dyn Files>,
    access: Access,
    view: View,
}

#[derive(Clone)]
enum Access {
    Read,
    Write,
    /// With an end that has to be told.
    Archive(Arc<Writing>),
}

/// What an archive is made for.
#[derive(Debug, Clone, Default)]
pub struct ArchiveOptions {
    /// Whether `docker load` shall read it too: adds `manifest.json`, which names one image of an index: that for this
    /// platform, else the first one for Linux. The variant counts only if there is such an image.
    pub docker: Option<Platform>,
    /// Archives whose blobs need not be in this one. What they except themselves does not count. Manifests are always
    /// in it; for `docker` also configurations, and layers above one that is new to Docker.
    pub except: Vec<Layout>,
}

/// An entry of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// The name of the image, if it has one.
    pub name: Option<ImageName>,
    /// Its tag, if it has one.
    pub tag: Option<Tag>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The media type of its manifest.
    pub media_type: String,
}

impl Layout {
    /// Opens the layout in the directory `dir`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such directory, [`Kind::Invalid`] if it is not an image layout of version
    /// 1.0.0.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(Arc::new(Directory::open(dir.as_ref())?), Access::Write))
    }

    /// Opens the layout in the directory `dir`, making the directory and a layout without images if there is none.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if `dir` holds something that is not an image layout of version 1.0.0.
    pub fn create(dir: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(Arc::new(Directory::create(dir.as_ref())?), Access::Write))
    }

    /// Opens the archive `path` for reading. Blocks while its headers are read.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such file, [`Kind::Invalid`] if it is not an archive of images, is cut short, or is
    /// compressed.
    pub fn open_archive(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(Arc::new(Archive::open(path.as_ref())?), Access::Read))
    }

    /// Opens the archive `path` for writing, or begins one. Blocks while what a process before has left is verified.
    /// Nothing of it stands under its name before [`Layout::finish`]; the part file of one that is dropped is gone on with
    /// by the next process.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if there is a file that is not an image layout of version 1.0.0, [`Kind::Unavailable`] if another
    /// process writes this archive.
    pub fn create_archive(path: impl AsRef<Path>, options: ArchiveOptions) -> Result<Self> {
        let except = options.except.into_iter().map(|layout| layout.files).collect();
        let archive = Arc::new(Writing::create(path.as_ref(), options.docker, except)?);
        Ok(Self::new(Arc::clone(&archive) as Arc<dyn Files>, Access::Archive(archive)))
    }

    /// Opens the archive `path` as [`Layout::create_archive`] would find it, to ask what is there. No file is made or
    /// changed, and whatever is written is refused. Blocks like the other.
    ///
    /// # Errors
    /// Those of [`Layout::create_archive`], except that another process may write the archive.
    pub fn preview_archive(path: impl AsRef<Path>, options: ArchiveOptions) -> Result<Self> {
        let except = options.except.into_iter().map(|layout| layout.files).collect();
        Ok(Self::new(Arc::new(Preview::open(path.as_ref(), except)?), Access::Write))
    }

    fn new(files: Arc<dyn Files>, access: Access) -> Self {
        Self { files, access, view: View::default() }
    }

    /// The same layout, of which only the tags of `name` are shown and written; without a name those of entries that
    /// have none.
    #[must_use]
    pub fn named(&self, name: Option<&ImageName>) -> Self {
        let mut named = self.clone();
        named.view.name = name.cloned();
        named
    }

    /// The same layout, which takes an index also if it does not hold all its children (image-spec `image-layout.md`,
    /// "Blobs", allows that).
    #[must_use]
    pub fn sparse(&self, sparse: bool) -> Self {
        let mut changed = self.clone();
        changed.view.sparse = sparse;
        changed
    }

    /// The same layout, which reads what it does not hold from `others`: an incremental archive beside those that it
    /// builds on.
    #[must_use]
    pub fn backed_by(&self, others: &[Self]) -> Self {
        let mut backed = self.clone();
        let others = others.iter().map(|layout| Arc::clone(&layout.files)).collect();
        backed.files = Arc::new(Backed::new(Arc::clone(&self.files), others));
        backed
    }

    /// All entries of the layout, in their order: every tag of every name, and manifests without tag that are part of
    /// no other. Blocks.
    ///
    /// # Errors
    /// If `index.json` cannot be read.
    pub fn images(&self) -> Result<Vec<ImageEntry>> {
        let index = self.files.index()?;
        let entries = index.labelled().map(|(label, found)| ImageEntry {
            name: label.name,
            tag: label.tag,
            digest: found.digest,
            media_type: found.media_type,
        });
        Ok(entries.collect())
    }

    /// Ends the writing of an archive: it gets its name, durably. Nobody may write to it at the same time or afterwards.
    /// Whether there was anything to do: an archive that had everything is not touched, and a directory needs no end.
    /// Blocks.
    ///
    /// # Errors
    /// [`Kind::Full`] and others while the file is written; the part file stays and it may be tried again.
    pub fn finish(&self) -> Result<bool> {
        match &self.access {
            Access::Archive(archive) => archive.finish(),
            Access::Read | Access::Write => Ok(false),
        }
    }

    /// Throws away what was written to an archive since it was finished last, also by processes before this one.
    /// Nothing can be written to it afterwards. Blocks.
    ///
    /// # Errors
    /// If the part file cannot be removed.
    pub fn discard(&self) -> Result<()> {
        match &self.access {
            Access::Archive(archive) => archive.discard(),
            Access::Read | Access::Write => Ok(()),
        }
    }

    fn repository(&self) -> Arc<LayoutRepository> {
        Arc::new(LayoutRepository::new(Arc::clone(&self.files), self.view.clone()))
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layout").field("files", &self.files).field("view", &self.view).finish()
    }
}

#[async_trait]
impl Store for Layout {
    fn repository(&self, _scope: &Scope, _name: &Name) -> Arc<dyn Repository> {
        self.repository()
    }

    /// `None` for archives that were opened for reading.
    fn writable(&self, _scope: &Scope, _name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        match self.access {
            Access::Read => None,
            Access::Write | Access::Archive(_) => Some(self.repository()),
        }
    }

    /// Always [`Kind::NotFound`]: as a store, a layout knows no names.
    async fn repositories(&self, _prefix: &str, _page: PageRequest) -> Result<Page<RepositoryEntry>> {
        let detail = "an image layout has no repository names";
        Err(Error::new(Kind::NotFound, "list repositories", self.files.path().display(), detail))
    }
}
