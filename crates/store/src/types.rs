use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Name, Tag};
use futures_util::{Stream, StreamExt, stream};

use crate::{Error, Kind, Result, Upload};

/// On whose behalf content is held and asked for. Content of one scope is invisible in every other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Pushed here.
    Hosted,
    /// Fetched from an upstream registry.
    Upstream {
        /// The upstream's name.
        host: String,
        /// The group of accounts that fetched it; `None` if it was fetched anonymously.
        account: Option<String>,
    },
}

/// A position in a listing: the last item of the page before, exclusive. Callers pass it on and do not look inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// The position after `last`.
    pub fn after(last: impl Into<String>) -> Self {
        Self(last.into())
    }

    /// The item that the next page comes after.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which page of a listing is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Where to begin; `None` at the beginning.
    pub after: Option<Cursor>,
    /// At most so many items; `None` leaves it to the store.
    pub limit: Option<usize>,
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Cursor>,
    /// How the store came to it.
    pub told: Told,
}

impl<T> Page<T> {
    /// A page that is true at this moment.
    pub fn new(items: Vec<T>, next: Option<Cursor>) -> Self {
        Self { items, next, told: Told::default() }
    }
}

/// How a store came to an answer that changes with time; by default the answer is true at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// How long ago the answer was confirmed; zero if just now.
    pub age: Duration,
    /// Whether it could not be confirmed any more and may be out of date.
    pub stale: bool,
    /// Whether it was confirmed just now because an older one was not fresh any more.
    pub renewed: bool,
}

/// A repository as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryEntry {
    /// Its name.
    pub name: Name,
}

/// A tag as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagEntry {
    /// The tag.
    pub tag: Tag,
    /// What it points at, if the listing says so.
    pub digest: Option<Digest>,
    /// When it was pushed, if the listing says so.
    pub pushed: Option<SystemTime>,
}

/// What a reference means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Type, digest and size of the manifest.
    pub descriptor: Descriptor,
    /// How the store came to it.
    pub told: Told,
}

impl Resolved {
    /// An answer that is true at this moment.
    pub fn fresh(descriptor: Descriptor) -> Self {
        Self { descriptor, told: Told::default() }
    }
}

/// Which bytes of a blob are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last; `None` up to the end.
    pub end: Option<u64>,
}

impl ByteRange {
    /// The whole blob.
    pub const ALL: Self = Self { start: 0, end: None };

    /// Everything from `start` on.
    pub fn from(start: u64) -> Self {
        Self { start, end: None }
    }

    /// The range inside a blob of `size` bytes; `None` if it begins beyond its end.
    pub fn within(self, size: u64) -> Option<Range<u64>> {
        (self.start <= size).then(|| self.start..self.end.unwrap_or(size).clamp(self.start, size))
    }
}

/// Bytes as they arrive.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Some bytes of a blob.
pub struct Blob {
    /// Size of the whole blob.
    pub size: u64,
    /// Which bytes the body holds: the range asked for, cut to the blob.
    pub range: Range<u64>,
    /// Bytes in front of them that the store has to fetch and throw away because its peer ignores `Range`; 0 where it can
    /// begin anywhere. They are fetched when the body is read, not before.
    pub skipped: u64,
    /// Whether a store that answers from a cache has it fetched for whoever asks, because it was not here.
    pub fetched: bool,
    /// The bytes.
    pub body: BlobBody,
}

/// Where the bytes of a blob are.
pub enum BlobBody {
    /// They come one after the other.
    Stream(ByteStream),
    /// They are part of a file, to be read in whatever way is fastest.
    File(FileSlice),
    /// They are elsewhere, for whoever has the link to fetch: all of the blob, whatever range was asked for.
    Link(Link),
}

/// A signed link to content. Whoever has it may read, so it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// The URL.
    pub url: String,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link(…)")
    }
}

/// A part of an open file.
pub struct FileSlice {
    /// The file, opened for reading.
    pub file: Arc<File>,
    /// The bytes, as offsets into the file.
    pub range: Range<u64>,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({:?} of {})", self.range, self.size)
    }
}

impl Blob {
    /// A blob that is in memory.
    pub fn from_bytes(content: &Bytes, range: ByteRange) -> Option<Self> {
        let size = content.len() as u64;
        let range = range.within(size)?;
        let part = content.slice(range.start as usize..range.end as usize);
        let body = BlobBody::Stream(Box::pin(stream::iter([Ok(part)])));
        Some(Self { size, range, skipped: 0, fetched: false, body })
    }

    /// The bytes as a stream, wherever they are.
    pub fn into_stream(self) -> ByteStream {
        match self.body {
            BlobBody::Stream(stream) => stream,
            BlobBody::File(slice) => slice.into_stream(),
            BlobBody::Link(_) => {
                let detail = "there is only a link to it, which is for clients";
                Box::pin(stream::iter([Err(Error::new(Kind::Invalid, "read", "blob", detail))]))
            }
        }
    }

    /// The whole body in memory; for small blobs.
    ///
    /// # Errors
    /// Whatever the stream yields.
    pub async fn into_bytes(self) -> Result<Bytes> {
        let mut all = Vec::new();
        let mut stream = self.into_stream();
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes?);
        }
        Ok(Bytes::from(all))
    }
}

/// Bytes read from a file at once; larger reads do not get faster, and many slow readers must fit into memory.
const FILE_CHUNK: u64 = 256 * 1024;

impl FileSlice {
    /// Reads the part chunk by chunk, on threads that may block.
    pub fn into_stream(self) -> ByteStream {
        Box::pin(stream::try_unfold(self, |slice| async move {
            let length = FILE_CHUNK.min(slice.range.end - slice.range.start);
            if length == 0 {
                return Ok(None);
            }
            let at = slice.range.start;
            let file = Arc::clone(&slice.file);
            let read = tokio::task::spawn_blocking(move || read_exact_at(&file, at, length as usize)).await;
            let bytes = match read {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(e)) => return Err(Error::io("read file", "blob", e)),
                Err(e) => return Err(Error::io("read file", "blob", std::io::Error::other(e))),
            };
            let range = at + length..slice.range.end;
            Ok(Some((bytes, Self { file: slice.file, range })))
        }))
    }
}

fn read_exact_at(file: &File, at: u64, length: usize) -> std::io::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, at)?;
    Ok(Bytes::from(buffer))
}

/// What is known of a blob before it is uploaded.
#[derive(Debug, Clone)]
pub struct Expect {
    /// Its digest, if known: a blob that is here already need not be sent.
    pub digest: Option<Digest>,
    /// Its size in bytes, if known.
    pub size: Option<u64>,
    /// Whether it may be taken from another repository of the same store.
    pub mount: Mount,
}

/// Where a blob may be mounted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Nowhere: open an upload even if the blob is here.
    No,
    /// From one of these repositories of the same store and scope, or from the repository itself, tried in order.
    From(Vec<Name>),
    /// From wherever the caller may read.
    Anywhere,
}

/// The answer to a request to upload a blob.
pub enum Begun {
    /// The repository holds it already.
    Exists,
    /// It was mounted from another repository.
    Mounted,
    /// Its bytes are wanted.
    Upload(Box<dyn Upload>),
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exists => "Exists",
            Self::Mounted => "Mounted",
            Self::Upload(_) => "Upload",
        })
    }
}

/// Names an upload so that it can be resumed. Whoever has it may write to the upload, so it is not printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UploadToken(String);

impl UploadToken {
    /// Wraps what the store made of it.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The text to keep or to send.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UploadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadToken(…)")
    }
}

/// What became of a pushed manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Whether its subject now lists it as a referrer (vacuously true without a subject).
    pub subject_indexed: bool,
}

/// Whether something was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Yes,
    /// This store does not remove such things.
    Unsupported,
}
