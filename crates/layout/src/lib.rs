//! An OCI image layout directory (image-spec `image-layout.md`) as a store.
//!
//! A layout has no repository names, so it is *one* repository: every name and every [`Scope`] shows the same content.
//! Its tags are the entries of `index.json` whose `org.opencontainers.image.ref.name` follows the tag grammar; other
//! entries, and whatever else stands in that file, are kept as they are. A manifest pushed without a tag gets an entry
//! without a name, until an index that contains it is pushed: everything pushed stays reachable for other tools, and
//! the parts of an image do not stand beside it.
//!
//! Readers need no lock: files appear whole, by rename. Writers to `index.json` take turns, across processes too, with
//! a lock on `.ferry.lock`; unfinished blobs are files `.ferry-upload-…` that their writer holds a lock on, so that
//! whoever opens the layout next can tell the dead ones and removes them. Tools other than ferry do not know these
//! locks: do not let them write at the same time.
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

mod directory;
mod index;
mod referrers;
mod repository;
mod temporary;
mod upload;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::Name;
use ferry_store::{
    Error, Kind, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut, Result, Scope, Store,
};

use directory::Directory;
use repository::LayoutRepository;

/// An OCI image layout directory.
#[derive(Debug, Clone)]
pub struct Layout {
    directory: Arc<Directory>,
}

impl Layout {
    /// Opens the layout in `dir`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if there is no such directory, [`Kind::Invalid`] if it is not an image layout of version
    /// 1.0.0.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { directory: Arc::new(Directory::open(dir.as_ref())?) })
    }

    /// Opens the layout in `dir`, making the directory and a layout without images if there is none.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if `dir` holds something that is not an image layout of version 1.0.0.
    pub fn create(dir: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { directory: Arc::new(Directory::create(dir.as_ref())?) })
    }

    fn repository(&self) -> Arc<LayoutRepository> {
        Arc::new(LayoutRepository::new(Arc::clone(&self.directory)))
    }
}

#[async_trait]
impl Store for Layout {
    fn repository(&self, _scope: &Scope, _name: &Name) -> Arc<dyn Repository> {
        self.repository()
    }

    fn writable(&self, _scope: &Scope, _name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        Some(self.repository())
    }

    /// Always [`Kind::NotFound`]: a layout knows no names.
    async fn repositories(&self, _prefix: &str, _page: PageRequest) -> Result<Page<RepositoryEntry>> {
        let detail = "an image layout has no repository names";
        Err(Error::new(Kind::NotFound, "list repositories", self.directory.root().display(), detail))
    }
}
