use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ferry_oci::{Algorithm, Digest};
use ferry_store::{Error, Expect, Kind, Result};

use super::region::{Region, blob_path};
use super::writing::Writing;
use crate::files::{Beside, Sink, digest_of};
use crate::temporary::Temporary;

/// Where the bytes of a blob go: into a region of the archive, or, if nobody knows how long it must be, into a file
/// beside it first.
pub(super) fn open(archive: Arc<Writing>, expect: &Expect) -> Result<Box<dyn Sink>> {
    let Some(size) = expect.size else {
        let temporary = Temporary::create(archive.directory())
            .map_err(|e| Error::io("begin upload", archive.directory().display(), e))?;
        let keep = move |temporary: Temporary, length, digest: &Digest| {
            archive.part.copy(temporary.file(), 0..length, digest)
        };
        return Ok(Box::new(Beside::new(temporary, keep)));
    };
    let name = blob_path(&expect.digest.unwrap_or_else(|| Digest::sha256(b"")));
    let region = archive.part.reserve(&name, size)?;
    Ok(Box::new(Filling { archive, region: Some(region), written: 0 }))
}

/// A blob that is written into its place.
struct Filling {
    archive: Arc<Writing>,
    /// Until it is handed on.
    region: Option<Region>,
    written: u64,
}

impl Filling {
    fn region(&self) -> io::Result<Region> {
        self.region.ok_or_else(|| io::Error::other("the upload is over"))
    }
}

fn wrong_size(promised: u64) -> Error {
    Error::new(
        Kind::Invalid,
        "write upload",
        "blob",
        format!("it is not of the {promised} bytes that were promised"),
    )
}

impl Sink for Filling {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let failed = |e| Error::io("write upload", "blob", e);
        let region = self.region().map_err(failed)?;
        let written = self.written + bytes.len() as u64;
        if written > region.size {
            return Err(wrong_size(region.size));
        }
        let at = region.content().start + self.written;
        self.archive.part.file().write_all_at(bytes, at).map_err(failed)?;
        self.written = written;
        Ok(())
    }

    fn digest(&self, algorithm: Algorithm) -> io::Result<Digest> {
        let start = self.region()?.content().start;
        digest_of(self.archive.part.file(), start..start + self.written, algorithm)
    }

    fn keep(mut self: Box<Self>, digest: &Digest) -> Result<()> {
        let region = self.region().map_err(|e| Error::io("write blob", digest, e))?;
        if self.written != region.size {
            return Err(wrong_size(region.size));
        }
        let part = &self.archive.part;
        if Region::new(region.start, &blob_path(digest), region.size) != Some(region) {
            // Its headers are of another length than those of the algorithm that was expected.
            return part.copy(part.file(), region.content(), digest);
        }
        self.region = None;
        self.archive.part.keep(region, digest)
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if let Some(region) = self.region.take() {
            self.archive.part.release(region);
        }
    }
}
