use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::Digest;

use crate::{Extents, Result};

/// Keeps unfinished blobs so that a transfer that was cut short goes on where it stopped, in a later process too.
#[async_trait]
pub trait Staging: Send + Sync {
    /// Opens the partial blob of `digest`, with whatever an earlier run finished of it, or begins an empty one.
    /// `None` if there is no room for `size` bytes or someone else is filling it at present: then do without.
    async fn open(&self, digest: &Digest, size: u64) -> Result<Option<Arc<dyn Partial>>>;
}

/// One unfinished blob of known size. Shared: one task fills it while others read what is there.
#[async_trait]
pub trait Partial: Send + Sync {
    /// Size of the finished blob in bytes.
    fn size(&self) -> u64;

    /// Which bytes are there.
    fn extents(&self) -> Extents;

    /// Adds bytes at `offset`. They survive the process once the piece that they belong to is complete.
    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<()>;

    /// Up to `length` bytes at `offset`, which must be there.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;

    /// Waits until the bytes that are there without a gap from the beginning are more than `prefix`, or the blob was
    /// sealed or discarded.
    async fn changed(&self, prefix: u64);

    /// Records all that was written, so that a later process finds it.
    async fn flush(&self) -> Result<()>;

    /// Compares all the bytes with `digest`: from now on they count. [`crate::Kind::DigestMismatch`] discards them.
    async fn seal(&self, digest: &Digest) -> Result<()>;

    /// Whether [`Partial::seal`] has succeeded.
    fn is_sealed(&self) -> bool;

    /// Frees the space; the partial blob cannot be used any more.
    async fn discard(&self) -> Result<()>;
}
