use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Reference};
use ferry_store::{Blob, ByteRange, Page, PageRequest, Repository, Resolved, Result, TagEntry};

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
        self.list_tags(page).await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        self.list_referrers(subject, artifact_type, page).await
    }
}
