use std::path::Path;
use std::sync::Arc;

use ferry_oci::{Digest, Manifest};
use ferry_store::{Expect, Result};

use crate::files::{Content, Files, Sink};
use crate::index::Index;

/// A layout whose blobs may be in others: an incremental archive beside those that it builds on.
#[derive(Debug)]
pub(crate) struct Backed {
    own: Arc<dyn Files>,
    others: Vec<Arc<dyn Files>>,
}

impl Backed {
    pub(crate) fn new(own: Arc<dyn Files>, others: Vec<Arc<dyn Files>>) -> Self {
        Self { own, others }
    }
}

impl Files for Backed {
    fn path(&self) -> &Path {
        self.own.path()
    }

    fn index(&self) -> Result<Index> {
        self.own.index()
    }

    fn edit_index(&self, edit: &mut dyn FnMut(&mut Index) -> bool) -> Result<bool> {
        self.own.edit_index(edit)
    }

    fn size_of(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.read(digest)?.map(|content| content.size()))
    }

    fn counts_as(&self, digest: &Digest) -> Result<Option<u64>> {
        self.size_of(digest)
    }

    fn read(&self, digest: &Digest) -> Result<Option<Content>> {
        for files in std::iter::once(&self.own).chain(&self.others) {
            if let Some(content) = files.read(digest)? {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }

    fn is_left_over(&self, digest: &Digest) -> bool {
        self.own.is_left_over(digest)
    }

    fn sink(self: Arc<Self>, expect: &Expect) -> Result<Box<dyn Sink>> {
        Arc::clone(&self.own).sink(expect)
    }

    fn place_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.own.place_manifest(manifest)
    }

    fn remove(&self, digest: &Digest) -> Result<()> {
        self.own.remove(digest)
    }
}
