//! The traits of everything that can hold images.
//!
//! A remote registry, an OCI layout directory, the mirror's own storage and memory are all a [`Store`]; moving an image
//! is reading from one [`Repository`] and writing to another [`RepositoryMut`]. The traits are object-safe and have no
//! default methods: a wrapper that forgets one does not compile. What a store cannot do is a value (`None`,
//! [`Begun::Upload`] instead of [`Begun::Mounted`], [`Removed::Unsupported`]), never an error; an [`Error`] carries in
//! its [`Kind`] whether trying again can help.
//!
//! Every implementation passes the suite in `contract`, which is behind the feature of that name so that only tests
//! pay for it; [`MemoryStore`], which is stricter than any registry, is the first of them. [`CountingStore`] and
//! [`FaultyStore`] wrap any store to assert how much work was done and what becomes of it when things break.

mod cache;
#[cfg(any(test, feature = "contract"))]
#[expect(clippy::panic, clippy::unwrap_used, reason = "a case that cannot go on has failed")]
pub mod contract;
mod error;
mod extents;
mod memory;
mod staging;
mod types;
mod wrappers;

pub use cache::{Cache, CachedRepository, CachedTag};
pub use error::{Error, Kind, Result, Side};
pub use extents::Extents;
pub use memory::MemoryStore;
pub use staging::{Hints, Holding, Partial, Rewritten, Staging};
pub use types::{
    Begun, Blob, BlobBody, ByteRange, ByteStream, Cursor, Expect, FileSlice, Link, Mount, Page, PageRequest,
    Removed, RepositoryEntry, Resolved, Scope, Stored, TagEntry, UploadToken,
};
pub use wrappers::{BodyFault, CountingStore, Counts, FaultyStore, Operation};

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag};

/// Something that holds repositories.
#[async_trait]
pub trait Store: Send + Sync {
    /// A repository, whether or not it exists yet; no request is made. Content is visible through it only if it was
    /// linked into this very repository and scope.
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository>;

    /// The same repository for writing; `None` if this store is read-only.
    fn writable(&self, scope: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>>;

    /// The hosted repositories whose name begins with `prefix`, sorted by name. A store without a listing answers
    /// [`Kind::Denied`] or [`Kind::NotFound`] as its peer did.
    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>>;
}

/// A repository that can be read.
#[async_trait]
pub trait Repository: Send + Sync {
    /// What `reference` means now, as cheaply as the store can tell (a HEAD request where there is a network).
    /// [`Kind::NotFound`] if there is no such manifest.
    async fn resolve(&self, reference: &Reference) -> Result<Resolved>;

    /// The manifest, verified against its digest, in one request. [`Kind::NotFound`] if there is none.
    async fn manifest(&self, reference: &Reference) -> Result<Manifest>;

    /// The size of a blob in bytes, or `None` if the repository does not hold it.
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>>;

    /// The bytes of a blob from `range.start` on. The body is *not* verified by the store: whoever collects it
    /// compares it with the digest. [`Kind::NotFound`] if the repository does not hold it, [`Kind::Invalid`] if the
    /// range begins beyond its end.
    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob>;

    /// The tags, a page at a time, with what the cheapest listing knows of each. [`Kind::NotFound`] if the store knows
    /// that there is no such repository. Nothing may be inferred from the order.
    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>>;

    /// The manifests whose `subject` is `subject`, of `artifact_type` if given; empty if there are none or the
    /// subject is unknown.
    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>>;
}

/// A repository that can be written.
#[async_trait]
pub trait RepositoryMut: Repository {
    /// Asks for a place to put a blob. If the blob is here already or could be mounted nothing more is to be done.
    async fn begin(&self, expect: Expect) -> Result<Begun>;

    /// Goes on with a suspended upload; `None` if it is unknown, finished, expired, of another repository, or the
    /// store cannot resume.
    async fn resume(&self, token: &UploadToken) -> Result<Option<Box<dyn Upload>>>;

    /// Stores the manifest under its digest and, if given, points `tag` at it, at once: a reader sees both or
    /// neither. [`Kind::Incomplete`] if the repository lacks a blob or manifest that it names; a `subject` may be
    /// missing.
    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored>;

    /// Removes a tag, or a manifest together with the tags on it. [`Kind::NotFound`] if there is none.
    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed>;

    /// Removes a blob from this repository. [`Kind::NotFound`] if it does not hold it.
    async fn delete_blob(&self, digest: &Digest) -> Result<Removed>;

    /// The same repository, for reading only.
    fn reader(self: Arc<Self>) -> Arc<dyn Repository>;
}

/// The upload of one blob. Bytes are appended in order; the blob exists once `commit` has returned.
///
/// Dropping an upload leaves it as [`Upload::suspend`] would where the store can resume, and ends it elsewhere.
#[async_trait]
pub trait Upload: Send {
    /// What to pass to [`RepositoryMut::resume`], in this process or a later one; `None` if the store cannot resume.
    fn token(&self) -> Option<UploadToken>;

    /// How many bytes are kept even if this process or the peer dies now; the next write goes there.
    async fn durable_offset(&mut self) -> Result<u64>;

    /// Appends bytes. Returns when they are accepted, which need not mean durable.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Ends the upload. The blob is durable when this returns. [`Kind::DigestMismatch`] if the bytes are not those of
    /// `digest`: then they are gone.
    async fn commit(self: Box<Self>, digest: &Digest) -> Result<()>;

    /// Makes what was written durable and leaves the upload to be resumed, if the store can.
    async fn suspend(self: Box<Self>) -> Result<Option<UploadToken>>;

    /// Ends the upload and discards its bytes.
    async fn abort(self: Box<Self>) -> Result<()>;
}
