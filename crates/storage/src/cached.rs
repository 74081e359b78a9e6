//! What is kept of upstreams.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use ferry_oci::{Digest, Manifest, Name, Tag};
use ferry_store::{Cache, CachedListing, CachedRepository, CachedTag, Error, Kind, Partial, Result, Scope};

use crate::catalog;
use crate::files::blocking_io;
use crate::options::to_seconds;
use crate::repository::FileRepository;
use crate::staging::{FileStaging, StagingOptions};
use crate::storage::Storage;

impl Storage {
    /// Staging from which this storage adopts blobs: `DIR/staging`. `limit` is that of [`StagingOptions`]; beyond it what
    /// nobody goes on with gives way, the least recent first. To be opened once and shared: two of them keep each other from
    /// filling the same blob.
    ///
    /// # Errors
    /// See [`FileStaging::open`].
    pub async fn staging(&self, limit: Option<u64>) -> Result<Arc<FileStaging>> {
        let options = StagingOptions { limit, now: self.inner.clock.now() };
        FileStaging::open_making_room(&self.inner.staging, options).await
    }
}

impl Cache for Storage {
    fn cached(&self, scope: &Scope, name: &Name) -> Arc<dyn CachedRepository> {
        self.at(scope, name)
    }
}

fn seconds(time: SystemTime) -> i64 {
    to_seconds(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[async_trait]
impl CachedRepository for FileRepository {
    async fn tag(&self, tag: &Tag) -> Result<Option<CachedTag>> {
        let memory = &self.inner.catalog.memory;
        if let Some(known) = memory.tag(&self.key, tag) {
            self.inner.note_use(&known.descriptor.digest);
            return Ok(Some(known));
        }
        let quiet = memory.quiet();
        let found = self.inner.catalog.cached_tag(&self.key, tag).await;
        let found = found.map_err(|e| catalog::error("resolve", tag, e))?;
        if let Some(found) = &found {
            memory.keep_tag(quiet, &self.key, tag, found);
            let _lease = self.inner.lease(&found.descriptor.digest).await;
            self.inner.note_use(&found.descriptor.digest);
        }
        Ok(found)
    }

    async fn keep(&self, manifest: &Manifest, tag: Option<(&Tag, SystemTime)>) -> Result<()> {
        let digest = manifest.digest();
        let _lease = self.put_bytes(digest, manifest.bytes().clone()).await?;
        let tag = tag.map(|(tag, at)| (tag, seconds(at)));
        let kept = self.inner.catalog.keep_manifest(&self.key, manifest, tag).await;
        kept.map_err(|e| catalog::error("keep manifest", digest, e))
    }

    async fn confirm(&self, tag: &Tag, digest: &Digest, at: SystemTime) -> Result<bool> {
        let confirmed = self.inner.catalog.confirm_tag(&self.key, tag, (digest, seconds(at))).await;
        confirmed.map_err(|e| catalog::error("confirm tag", tag, e))
    }

    async fn withdraw(&self, tag: &Tag, at: SystemTime) -> Result<()> {
        let noted = self.inner.catalog.withdraw_tag(&self.key, tag, seconds(at)).await;
        noted.map_err(|e| catalog::error("withdraw tag", tag, e))
    }

    async fn forget(&self, tag: &Tag) -> Result<()> {
        let forgotten = self.inner.catalog.delete_tag(&self.key, tag).await;
        forgotten.map(drop).map_err(|e| catalog::error("forget tag", tag, e))
    }

    async fn listing(&self, of: &str) -> Result<Option<CachedListing>> {
        let found = self.inner.catalog.listing(&self.key, of).await;
        found.map_err(|e| catalog::error("look for listing", self.key.name(), e))
    }

    async fn keep_listing(&self, of: &str, listing: Option<&CachedListing>) -> Result<()> {
        let kept = match listing {
            Some(CachedListing { content, confirmed, withdrawn }) => {
                let times = (seconds(*confirmed), withdrawn.map(seconds));
                self.inner.catalog.keep_listing(&self.key, of, content, times).await
            }
            None => self.inner.catalog.forget_listing(&self.key, of).await,
        };
        kept.map_err(|e| catalog::error("keep listing", self.key.name(), e))
    }

    async fn adopt(&self, digest: &Digest, partial: &dyn Partial) -> Result<()> {
        const OPERATION: &str = "adopt staged blob";
        // From before the file is in place until the catalog names it.
        let _lease = self.inner.lease(digest).await;
        let (inner, wanted) = (Arc::clone(&self.inner), *digest);
        let path = blocking_io(OPERATION, digest, move || {
            inner.content.check_pending()?;
            inner.content.prepare(&wanted)
        })
        .await?;
        if partial.move_to(&path).await? {
            let (inner, wanted) = (Arc::clone(&self.inner), *digest);
            blocking_io(OPERATION, digest, move || inner.content.settle(&wanted)).await?;
        } else if self.inner.lacking(OPERATION, vec![(*digest, partial.size())]).await?.is_some() {
            // It was adopted before, and has been evicted since.
            return Err(Error::new(Kind::Unavailable, OPERATION, digest, "it is not here any more"));
        }
        let linked = self.inner.catalog.link(&self.key, digest, partial.size(), None).await;
        linked.map_err(|e| catalog::error(OPERATION, digest, e))
    }

    /// A file counts although no row names it, as a kill between the two leaves it: it was verified before it got its name.
    async fn held(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.length(digest).await
    }

    async fn link(&self, digest: &Digest, size: u64) -> Result<bool> {
        let _lease = self.inner.lease(digest).await;
        if self.held(digest).await? != Some(size) {
            return Ok(false);
        }
        let linked = self.inner.catalog.link(&self.key, digest, size, None).await;
        linked.map_err(|e| catalog::error("link blob", digest, e))?;
        Ok(true)
    }
}
