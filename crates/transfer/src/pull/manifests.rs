//! Manifests by digest: once they are in the cache nobody is asked again.

use ferry_oci::{Digest, Manifest, Reference, Tag};
use ferry_store::{Error, Kind, Result, Side};

use super::recent::Wanted;
use super::{Found, Pulled};

impl Pulled {
    pub(super) async fn manifest_of(&self, digest: &Digest) -> Result<Manifest> {
        if let Some(manifest) = self.kept(digest).await {
            self.core.counters.hit();
            return Ok(manifest);
        }
        let reference = Reference::Digest(*digest);
        let wanted = Wanted::Manifest(self.name.clone(), reference.clone());
        if let Some(error) = self.core.recent.recall(&wanted, self.core.now()) {
            return Err(error);
        }
        self.core.counters.missed();
        let (this, digest) = (self.clone(), *digest);
        let key = (self.name.clone(), reference.clone());
        let asked = self.core.manifests.ask(&self.core.tasks, key, || async move {
            // It may have come since we looked.
            if let Some(manifest) = this.kept(&digest).await {
                return Ok(Found::of(manifest));
            }
            let found = this.fetch(&reference, None).await;
            if let Err(error) = &found
                && error.kind() == Kind::NotFound
            {
                this.core.recent.remember(wanted, this.core.now(), error);
            }
            found
        });
        let found = asked.answer().await?;
        found.manifest.ok_or_else(|| Error::not_found("read manifest", digest))
    }

    /// A manifest that the cache shows in this repository.
    async fn kept(&self, digest: &Digest) -> Option<Manifest> {
        match self.cached.manifest(&Reference::Digest(*digest)).await {
            Ok(manifest) => Some(manifest),
            Err(error) => {
                if error.kind() != Kind::NotFound {
                    tracing::warn!(%error, "the cache cannot be read");
                }
                None
            }
        }
    }

    /// Fetches a manifest and keeps it, under the tag if it is given. One that cannot be kept is as good.
    pub(super) async fn fetch(&self, reference: &Reference, tag: Option<&Tag>) -> Result<Found> {
        let asked = self.core.now();
        let manifest = self.upstream.manifest(reference).await?;
        if let Reference::Digest(wanted) = reference
            && manifest.digest() != *wanted
        {
            let detail = format!("the bytes are {}", manifest.digest());
            let error = Error::new(Kind::DigestMismatch, "read manifest", wanted, detail);
            return Err(error.on(Side::Source));
        }
        if let Err(error) = self.cached.keep(&manifest, tag.map(|tag| (tag, asked))).await {
            tracing::warn!(%error, "a manifest is not kept");
        }
        Ok(Found::of(manifest))
    }
}
