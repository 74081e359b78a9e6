use std::future::Future;

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Reference};
use ferry_store::{Blob, ByteRange, Error, Page, PageRequest, Repository, Resolved, Result, TagEntry};

use super::{Pulled, describe};

#[async_trait]
impl Repository for Pulled {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        match reference {
            Reference::Tag(tag) => Ok(self.look_up(tag).await?.0),
            Reference::Digest(digest) => match self.cached.resolve(reference).await {
                Ok(resolved) => {
                    self.core.counters.hit();
                    Ok(resolved)
                }
                Err(_) => Ok(Resolved::fresh(describe(&self.manifest_of(digest).await?))),
            },
        }
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        match reference {
            Reference::Digest(digest) => self.manifest_of(digest).await,
            Reference::Tag(tag) => match self.look_up(tag).await? {
                (_, Some(manifest)) => Ok(manifest),
                (resolved, None) => self.manifest_of(&resolved.descriptor.digest).await,
            },
        }
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.size(digest).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        self.read_blob(digest, range).await
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        match self.upstream.tags(page.clone()).await {
            Err(error) => instead(error, &page, self.cached.tags(page.clone())).await,
            listed => listed,
        }
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        match self.upstream.referrers(subject, artifact_type, page.clone()).await {
            Err(error) => {
                instead(error, &page, self.cached.referrers(subject, artifact_type, page.clone())).await
            }
            listed => listed,
        }
    }
}

/// What the cache lists, if the upstream cannot and it is all in one page: the two do not know each other's cursors.
async fn instead<T>(
    error: Error,
    page: &PageRequest,
    cached: impl Future<Output = Result<Page<T>>>,
) -> Result<Page<T>> {
    if !error.kind().is_transient() || page.after.is_some() {
        return Err(error);
    }
    match cached.await {
        Ok(listed) if listed.next.is_none() && !listed.items.is_empty() => Ok(listed),
        _ => Err(error),
    }
}
