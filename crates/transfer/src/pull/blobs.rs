//! Blobs: from the cache, from a flight, or past both.

use std::ops::Range;
use std::sync::Arc;

use ferry_oci::{Descriptor, Digest, Hasher};
use ferry_store::{Blob, BlobBody, ByteRange, ByteStream, Error, Kind, Links, Result};

use super::Pulled;
use super::flight::{Flights, Opened};
use super::follow::{Followed, follow};
use super::recent::Wanted;
use super::tasks::again;
use super::through::through;

impl Pulled {
    pub(super) async fn read_blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        match self.cached.blob(digest, range).await {
            Ok(blob) => {
                self.core.counters.hit();
                return Ok(blob);
            }
            Err(error) if error.kind() == Kind::Invalid => return Err(error),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => tracing::warn!(%error, "the cache cannot be read"),
        }
        let wanted = Wanted::Blob(self.name.clone(), *digest);
        if let Some(error) = self.core.recent.recall(&wanted, self.core.now()) {
            return Err(error);
        }
        self.core.counters.missed();
        if let Some(links) = self.core.options.links.clone()
            && let Some(linked) = self.elsewhere(&*links, digest).await?
        {
            return Ok(linked);
        }
        let flight = Flights::join(self, digest);
        match flight.opened().await {
            Ok(Opened::Kept) => self.cached.blob(digest, range).await,
            Ok(Opened::Staged(room, blob)) => {
                let wanted = within(range, &blob)?;
                let origin = self.core.origin(Arc::clone(&self.upstream));
                let stream = follow(Followed { flight, room, origin, blob: blob.clone() }, wanted.clone());
                Ok(body(&blob, wanted, stream))
            }
            Ok(Opened::Unkept(origin, blob)) => {
                let wanted = within(range, &blob)?;
                let hasher = (wanted.start == 0).then(|| Hasher::new(digest.algorithm()));
                let stream = through(&origin, &blob, wanted.clone(), hasher).await?;
                Ok(body(&blob, wanted, stream))
            }
            Err(error) => {
                if error.kind() == Kind::NotFound {
                    self.core.recent.remember(wanted, self.core.now(), &error);
                }
                Err(again(&error))
            }
        }
    }

    /// The blob as a link, unless some of it is here or on its way. Whoever cannot get one gets the bytes.
    async fn elsewhere(&self, links: &dyn Links, digest: &Digest) -> Result<Option<Blob>> {
        if self.core.flights.is_under_way(&self.name, digest) || self.has_some_of(digest).await {
            return Ok(None);
        }
        match links.link(&self.name, digest).await {
            Ok(linked) => Ok(linked),
            Err(error) if error.kind() == Kind::NotFound => {
                let wanted = Wanted::Blob(self.name.clone(), *digest);
                self.core.recent.remember(wanted, self.core.now(), &error);
                Err(error)
            }
            Err(error) => {
                tracing::debug!(%error, "there is no link");
                Ok(None)
            }
        }
    }

    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.cached.stat(digest).await {
            Ok(Some(size)) => {
                self.core.counters.hit();
                return Ok(Some(size));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the cache cannot be read"),
        }
        if let Some(size) = self.core.flights.size(&self.name, digest) {
            return Ok(Some(size));
        }
        let wanted = Wanted::Blob(self.name.clone(), *digest);
        if self.core.recent.recall(&wanted, self.core.now()).is_some() {
            return Ok(None);
        }
        self.core.counters.missed();
        self.confirmed_size(digest).await
    }

    /// The size that the upstream says that a blob of this repository has. Content that the cache holds for others is shown
    /// here as well from then on.
    pub(super) async fn confirmed_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let (this, digest) = (self.clone(), *digest);
        let key = (self.name.clone(), digest);
        let asked = self.core.sizes.ask(&self.core.tasks, key, || async move {
            let Some(size) = this.upstream.stat(&digest).await? else {
                let wanted = Wanted::Blob(this.name.clone(), digest);
                this.core.recent.remember(wanted, this.core.now(), &Error::not_found("read blob", digest));
                return Ok(None);
            };
            if let Err(error) = this.cached.link(&digest, size).await {
                tracing::warn!(%error, "the cache cannot be written");
            }
            Ok(Some(size))
        });
        asked.answer().await
    }

    /// Whether any bytes of the blob are here, for whomever they were fetched.
    pub(super) async fn has_some_of(&self, digest: &Digest) -> bool {
        let held = self.cached.held(digest).await.is_ok_and(|size| size.is_some());
        held || self.core.options.staging.staged(digest).await.is_ok_and(|size| size.is_some())
    }
}

fn within(range: ByteRange, blob: &Descriptor) -> Result<Range<u64>> {
    range.within(blob.size).ok_or_else(|| {
        let detail = format!("byte {} is beyond the end at {}", range.start, blob.size);
        Error::new(Kind::Invalid, "read blob", blob.digest, detail)
    })
}

fn body(blob: &Descriptor, range: Range<u64>, stream: ByteStream) -> Blob {
    Blob { size: blob.size, range, skipped: 0, fetched: true, body: BlobBody::Stream(stream) }
}
