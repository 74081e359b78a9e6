//! Content in a bucket of an S3-compatible store.
//!
//! Whatever is placed lies in files first, exactly as without a bucket, and counts from there. A task then brings it to the
//! bucket: the object is uploaded whole and looked at, a row of `objects` says so, and only then the file goes. So the
//! files are what is *pending*; a process that is killed finds them again, and a bucket that does not answer delays nothing
//! but the upload. Looked for is always in this order: the file, the row, the object.

mod body;
mod bucket;
mod connect;
mod failure;
mod options;
mod owner;
mod pending;
mod upload;

pub use options::{LinkOptions, S3Options, Style};

pub(crate) use bucket::{Bucket, Found};
pub(crate) use owner::refuse_without;
pub(crate) use pending::Pending;
pub(crate) use upload::Uploader;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{ByteStream, Error, Result};
use futures_util::StreamExt;

use self::owner::Owner;
use crate::catalog::{self, Catalog};
use crate::options::Clock;

/// What of a storage's content is in a bucket.
pub(crate) struct Objects {
    pub(crate) bucket: Arc<Bucket>,
    catalog: Arc<Catalog>,
    owner: Owner,
}

impl Objects {
    /// Sets up what is needed; the bucket is not asked.
    ///
    /// # Errors
    /// If the options cannot be meant, or the catalog's content is in another bucket.
    pub(crate) async fn open(options: &S3Options, catalog: Arc<Catalog>, clock: Clock) -> Result<Self> {
        let bucket = Arc::new(Bucket::new(options)?);
        let row = owner::row(&catalog, &bucket.location()).await?;
        let owner = Owner::new(Arc::clone(&bucket), row, options.take_over, clock);
        Ok(Self { bucket, catalog, owner })
    }

    /// The size of the object of `digest`, if it is whole.
    pub(crate) async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let row = self.catalog.object(digest).await;
        Ok(row.map_err(|e| catalog::error("look for object", digest, e))?.map(|(size, _)| size))
    }

    /// Notes that an object is whole.
    async fn add(&self, objects: &[(Digest, u64)]) -> Result<()> {
        let added = self.catalog.add_objects(objects).await;
        added.map_err(|e| catalog::error("note objects", self.bucket.location(), e))
    }

    /// Notes that an object is missing or damaged.
    pub(crate) async fn forget(&self, digest: &Digest) -> Result<()> {
        let forgotten = self.catalog.forget_object(digest).await;
        forgotten.map_err(|e| catalog::error("forget object", digest, e))
    }

    /// Part of an object; `None` if it is not there or not of this size, which is noted.
    pub(crate) async fn read(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<ByteStream>> {
        let found = body::open(&self.bucket, digest, size, range).await?;
        if found.is_none() {
            tracing::warn!(%digest, bucket = self.bucket.location(), "an object is missing or damaged");
            self.forget(digest).await?;
        }
        Ok(found)
    }

    /// A whole object in memory; for small ones.
    pub(crate) async fn read_all(&self, digest: &Digest, size: u64) -> Result<Option<Bytes>> {
        let Some(mut stream) = self.read(digest, size, 0..size).await? else { return Ok(None) };
        let mut all = Vec::with_capacity(size as usize);
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes?);
        }
        Ok(Some(all.into()))
    }

    /// A link to an object for clients; `None` if it is not there or not of this size. A link to nothing would help nobody,
    /// and a bucket that does not answer us may not answer clients either, so it is asked.
    pub(crate) async fn link(&self, digest: &Digest, size: u64) -> Result<Option<String>> {
        match self.bucket.find(digest).await? {
            Some(found) if found.size == size => self.bucket.link(digest).await,
            _ => Ok(None),
        }
    }

    /// Removes an object, its row first; returns its size, if there was one.
    pub(crate) async fn remove(&self, digest: &Digest) -> Result<Option<u64>> {
        let size = match self.size(digest).await? {
            // It may have been uploaded by a process that was killed then.
            None => self.bucket.find(digest).await?.map(|found| found.size),
            known => known,
        };
        if size.is_some() {
            self.owner.check()?;
            self.forget(digest).await?;
            self.bucket.delete(digest).await?;
        }
        Ok(size)
    }

    /// Moves an object to the damaged ones; its row goes first. It may be gone already.
    pub(crate) async fn set_aside(&self, digest: &Digest) -> Result<()> {
        self.owner.check()?;
        self.forget(digest).await?;
        self.bucket.set_aside(digest).await
    }

    /// Since when an object is there, as far as is known, in seconds since 1970.
    pub(crate) async fn since(&self, digest: &Digest) -> Result<Option<i64>> {
        let row = self.catalog.object(digest).await;
        match row.map_err(|e| catalog::error("look for object", digest, e))? {
            Some((_, stored)) => Ok(Some(stored)),
            None => Ok(self.bucket.find(digest).await?.map(|found| found.modified)),
        }
    }

    /// Takes the bucket for this catalog.
    ///
    /// # Errors
    /// See [`Owner::take`].
    pub(crate) async fn take(&self) -> Result<()> {
        self.owner.take().await
    }

    /// Whether this error of [`Objects::take`] says that the bucket does not answer, rather than what it answers.
    pub(crate) fn is_silent(&self, error: &Error) -> bool {
        error.kind() == ferry_store::Kind::Unavailable && std::error::Error::source(error).is_some()
    }

    /// Whether everything that was in the bucket before this catalog is known, so that what is not known is left over.
    pub(crate) fn is_listed(&self) -> bool {
        self.owner.is_listed()
    }

    /// Makes what is in the bucket known, once: another catalog may have brought it, which is lost.
    async fn list_once(&self) -> Result<()> {
        if self.is_listed() {
            return Ok(());
        }
        let mut listed = self.bucket.list().chunks(500);
        while let Some(batch) = listed.next().await {
            let found: Result<Vec<_>> = batch.into_iter().collect();
            self.add(&found?).await?;
        }
        self.owner.set_listed(&self.catalog).await
    }
}
