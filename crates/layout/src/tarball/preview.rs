use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_oci::{Digest, Manifest};
use ferry_store::{Error, Expect, Kind, Result};

use super::part;
use super::reading::Archive;
use super::writing;
use crate::files::{Content, Files, Sink};
use crate::index::Index;

/// An archive as one that writes it would find it. Nothing is written, and no file is made.
#[derive(Debug)]
pub(crate) struct Preview {
    path: PathBuf,
    base: Option<Archive>,
    /// Whole blobs that a run before has left.
    unfinished: HashMap<Digest, u64>,
    except: Vec<Arc<dyn Files>>,
}

impl Preview {
    pub(crate) fn open(path: &Path, except: Vec<Arc<dyn Files>>) -> Result<Self> {
        writing::check_directory(path)?;
        let base = writing::base(path)?;
        let unfinished = part::whole(path)?;
        Ok(Self { path: path.to_owned(), base, unfinished, except })
    }

    fn refuse<T>(&self, operation: &'static str) -> Result<T> {
        Err(Error::new(Kind::Denied, operation, self.path.display(), "nothing is written in a dry run"))
    }
}

impl Files for Preview {
    fn path(&self) -> &Path {
        &self.path
    }

    fn index(&self) -> Result<Index> {
        Ok(self.base.as_ref().map_or_else(Index::empty, |base| base.index.clone()))
    }

    fn edit_index(&self, _edit: &mut dyn FnMut(&mut Index) -> bool) -> Result<bool> {
        self.refuse("write index.json")
    }

    fn size_of(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.read(digest)?.map(|content| content.size()))
    }

    fn counts_as(&self, digest: &Digest) -> Result<Option<u64>> {
        if let Some(size) = self.size_of(digest)?.or_else(|| self.unfinished.get(digest).copied()) {
            return Ok(Some(size));
        }
        for files in &self.except {
            if let Some(size) = files.size_of(digest)? {
                return Ok(Some(size));
            }
        }
        Ok(None)
    }

    fn read(&self, digest: &Digest) -> Result<Option<Content>> {
        self.base.as_ref().map_or(Ok(None), |base| base.read(digest))
    }

    fn is_left_over(&self, _digest: &Digest) -> bool {
        false
    }

    fn sink(self: Arc<Self>, _expect: &Expect) -> Result<Box<dyn Sink>> {
        self.refuse("begin upload")
    }

    fn place_manifest(&self, _manifest: &Manifest) -> Result<()> {
        self.refuse("put manifest")
    }

    fn remove(&self, _digest: &Digest) -> Result<()> {
        self.refuse("delete")
    }
}
