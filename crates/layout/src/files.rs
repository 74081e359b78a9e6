use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::{Algorithm, Digest, Hasher, Manifest};
use ferry_store::{Blob, BlobBody, ByteRange, Error, Expect, FileSlice, Result};

use crate::index::Index;
use crate::temporary::Temporary;

/// Where the files of a layout are: in a directory or in an archive. Everything here blocks.
pub(crate) trait Files: fmt::Debug + Send + Sync {
    /// The directory or the archive.
    fn path(&self) -> &Path;

    fn index(&self) -> Result<Index>;

    /// Changes `index.json` unless `edit` says that there is nothing to change; returns what it said.
    fn edit_index(&self, edit: &mut dyn FnMut(&mut Index) -> bool) -> Result<bool>;

    /// The size of a file that is here.
    fn size_of(&self, digest: &Digest) -> Result<Option<u64>>;

    /// The size of a blob that is here, or that need not be because an archive before this one has it.
    fn counts_as(&self, digest: &Digest) -> Result<Option<u64>>;

    fn read(&self, digest: &Digest) -> Result<Option<Content>>;

    /// Whether a file is only here because a process before has left it, so that no index was seen to reach it.
    fn is_left_over(&self, digest: &Digest) -> bool;

    /// Where the bytes of a new blob go.
    fn sink(self: Arc<Self>, expect: &Expect) -> Result<Box<dyn Sink>>;

    /// Makes the bytes of `manifest` a file, unless they are one already.
    fn place_manifest(&self, manifest: &Manifest) -> Result<()>;

    /// Removes a file that must be there.
    fn remove(&self, digest: &Digest) -> Result<()>;
}

/// A blob that is being written. What is not kept is gone.
pub(crate) trait Sink: Send {
    fn append(&mut self, bytes: &[u8]) -> Result<()>;

    /// What was appended, computed again.
    fn digest(&self, algorithm: Algorithm) -> io::Result<Digest>;

    /// Makes the content, which was verified, the blob `digest`.
    fn keep(self: Box<Self>, digest: &Digest) -> Result<()>;
}

/// A blob that is written into a file of its own first; `keep` makes so many bytes of that file the blob.
pub(crate) struct Beside<K> {
    temporary: Temporary,
    length: u64,
    keep: K,
}

impl<K: FnOnce(Temporary, u64, &Digest) -> Result<()> + Send> Beside<K> {
    pub(crate) fn new(temporary: Temporary, keep: K) -> Self {
        Self { temporary, length: 0, keep }
    }
}

impl<K: FnOnce(Temporary, u64, &Digest) -> Result<()> + Send> Sink for Beside<K> {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.temporary.file().write_all(bytes).map_err(|e| Error::io("write upload", "blob", e))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn digest(&self, algorithm: Algorithm) -> io::Result<Digest> {
        digest_of(self.temporary.file(), 0..self.length, algorithm)
    }

    fn keep(self: Box<Self>, digest: &Digest) -> Result<()> {
        let Self { temporary, length, keep } = *self;
        keep(temporary, length, digest)
    }
}

/// The bytes of a file of a layout.
pub(crate) enum Content {
    File(FileSlice),
    /// A manifest that was made for what has none.
    Memory(Bytes),
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::File(slice) => slice.range.end - slice.range.start,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// All of it; for what is known to be small.
    pub(crate) fn bytes(&self) -> io::Result<Bytes> {
        match self {
            Self::File(slice) => read_at(&slice.file, slice.range.clone()),
            Self::Memory(bytes) => Ok(bytes.clone()),
        }
    }

    /// The part `range` of it; `None` if that begins beyond the end.
    pub(crate) fn blob(self, range: ByteRange) -> Option<Blob> {
        let size = self.size();
        match self {
            Self::File(FileSlice { file, range: all }) => {
                let range = range.within(size)?;
                let part = all.start + range.start..all.start + range.end;
                let body = BlobBody::File(FileSlice { file, range: part });
                Some(Blob { size, range, skipped: 0, fetched: false, body })
            }
            Self::Memory(bytes) => Blob::from_bytes(&bytes, range),
        }
    }
}

/// Bytes read at once where a whole file is read or copied.
pub(crate) const CHUNK: usize = 512 * 1024;

/// Reads a small part of a file.
pub(crate) fn read_at(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(Bytes::from(bytes))
}

/// Calls `each` with the bytes of a part of a file, piece by piece.
pub(crate) fn each_chunk(
    file: &File,
    range: Range<u64>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = range.start;
    while at < range.end {
        let length = usize::try_from(range.end - at).unwrap_or(CHUNK).min(CHUNK);
        file.read_exact_at(&mut buffer[..length], at)?;
        each(&buffer[..length])?;
        at += length as u64;
    }
    Ok(())
}

/// The digest of a part of a file.
pub(crate) fn digest_of(file: &File, range: Range<u64>, algorithm: Algorithm) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    each_chunk(file, range, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finish())
}
