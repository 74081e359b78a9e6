use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Digest, Name};

use crate::{Extents, Result, UploadToken};

/// Keeps unfinished blobs so that a transfer that was cut short goes on where it stopped, in a later process too.
#[async_trait]
pub trait Staging: Send + Sync {
    /// Opens the partial blob of `digest`, with whatever an earlier run finished of it, or begins an empty one.
    /// `None` if there is no room for `size` bytes or someone else is filling it at present: then do without.
    async fn open(&self, digest: &Digest, size: u64) -> Result<Option<Arc<dyn Partial>>>;

    /// The size of the partial blob of `digest`, if this or an earlier process began one. It was one of a source, which says
    /// nothing about who may see it.
    async fn staged(&self, digest: &Digest) -> Result<Option<u64>>;
}

/// One unfinished blob of known size. Shared: one task fills it while others read what is there.
#[async_trait]
pub trait Partial: Send + Sync {
    /// Size of the finished blob in bytes.
    fn size(&self) -> u64;

    /// Which bytes are there.
    fn extents(&self) -> Extents;

    /// Adds bytes at `offset`. They outlive the process as soon as this returns; bytes that are there already stay as
    /// they are.
    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<()>;

    /// Up to `length` bytes at `offset`, which must be there.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;

    /// Waits until the byte at `offset` is there, or the blob was sealed or discarded.
    async fn changed(&self, offset: u64);

    /// Compares all the bytes with `digest`: from now on they count. [`crate::Kind::DigestMismatch`] discards them.
    async fn seal(&self, digest: &Digest) -> Result<()>;

    /// Whether [`Partial::seal`] has succeeded.
    fn is_sealed(&self) -> bool;

    /// Remembers how the upload of this blob to `target` goes on, for whoever resumes it in this process or a later one;
    /// `None` forgets it. Kept where only the same user can read it, because a token lets write.
    async fn keep_upload(&self, target: &str, token: Option<&UploadToken>) -> Result<()>;

    /// What [`Partial::keep_upload`] remembers for `target`.
    async fn kept_upload(&self, target: &str) -> Result<Option<UploadToken>>;

    /// Makes the sealed bytes durable and moves them to the file `to` of the same file system, which belongs to the caller
    /// from then on; what is read here is still the same. False if they were moved away before.
    /// [`crate::Kind::Invalid`] if they are not sealed.
    async fn move_to(&self, to: &Path) -> Result<bool>;

    /// Frees the space; the partial blob cannot be used any more. Bytes that were moved away stay and can be read.
    async fn discard(&self) -> Result<()>;
}

/// A blob that a repository of a store was seen to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Names the store.
    pub store: Arc<str>,
    /// The repository.
    pub repository: Name,
    /// The blob.
    pub digest: Digest,
}

/// What a manifest became when it was rewritten for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The manifest as the source has it.
    pub from: Digest,
    /// Names the way of rewriting; the same way always comes to the same result.
    pub how: Arc<str>,
    /// The manifest as the target has it.
    pub to: Digest,
}

/// What earlier runs saw of stores. Hints only: whoever acts on one bears that it may be wrong by now.
#[async_trait]
pub trait Hints: Send + Sync {
    /// A repository of `store` that held the blob.
    async fn holder(&self, store: &str, digest: &Digest) -> Result<Option<Name>>;

    /// Remembers what was seen, in place of what was remembered of the same blobs and stores.
    async fn remember(&self, seen: Vec<Holding>) -> Result<()>;

    /// Forgets who holds a blob, because it turned out not to.
    async fn forget(&self, store: &str, digest: &Digest) -> Result<()>;

    /// What `from` became when it was last rewritten in the way `how`.
    async fn rewritten(&self, from: &Digest, how: &str) -> Result<Option<Digest>>;

    /// Remembers what became of manifests, or that it was seen again.
    async fn remember_rewritten(&self, seen: Vec<Rewritten>) -> Result<()>;
}
