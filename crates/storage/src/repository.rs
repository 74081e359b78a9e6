use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Algorithm, Descriptor, Digest, Manifest, Name, Reference, Tag};
use ferry_store::{
    Begun, Blob, ByteRange, Cursor, Error, Expect, Kind, Mount, Page, PageRequest, Removed, Repository,
    RepositoryMut, Resolved, Result, Stored, TagEntry, Upload, UploadToken,
};

use crate::catalog::{self, Key};
use crate::files::blocking_io;
use crate::leases::Lease;
use crate::storage::Inner;
use crate::upload::FileUpload;

/// Items of a page if the caller does not say.
const PAGE: usize = 1_000;

/// Items of a page at most.
const MAX_PAGE: usize = 10_000;

/// The item that the page comes after; every name is greater than the empty text.
pub(crate) fn start(request: &PageRequest) -> &str {
    request.after.as_ref().map_or("", Cursor::as_str)
}

/// How many items the page has at most.
pub(crate) fn limit(request: &PageRequest) -> i64 {
    request.limit.unwrap_or(PAGE).min(MAX_PAGE) as i64
}

/// The page, of items among which there is one more if there are more.
pub(crate) fn page<T>(mut items: Vec<T>, request: &PageRequest, key: impl Fn(&T) -> String) -> Page<T> {
    let limit = limit(request) as usize;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| Cursor::after(key(last)));
    Page::new(items, next)
}

/// One repository of one scope.
pub(crate) struct FileRepository {
    pub(crate) inner: Arc<Inner>,
    pub(crate) key: Key,
    /// Whether blobs may be links.
    links: bool,
}

impl FileRepository {
    pub(crate) fn new(inner: Arc<Inner>, key: Key, links: bool) -> Self {
        Self { inner, key, links }
    }

    /// A manifest that the catalog names and whose file is whole, and what keeps it from being removed.
    async fn find(&self, operation: &'static str, reference: &Reference) -> Result<(Descriptor, Lease)> {
        let mut digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(_) => self.row(operation, reference).await?.digest,
        };
        // What a tag points at can only be leased once it is known, and may have changed by then.
        let (descriptor, lease) = loop {
            let lease = self.inner.lease(&digest).await;
            let descriptor = self.row(operation, reference).await?;
            if descriptor.digest == digest {
                break (descriptor, lease);
            }
            digest = descriptor.digest;
        };
        let whole =
            self.inner.lacking(operation, vec![(descriptor.digest, descriptor.size)]).await?.is_none();
        self.inner.note_use(&descriptor.digest);
        if whole { Ok((descriptor, lease)) } else { Err(Error::not_found(operation, reference)) }
    }

    async fn row(&self, operation: &'static str, reference: &Reference) -> Result<Descriptor> {
        let row = self.inner.catalog.manifest(&self.key, reference).await;
        let row = row.map_err(|e| catalog::error(operation, reference, e))?;
        row.ok_or_else(|| Error::not_found(operation, reference))
    }

    /// The size of a blob, if `key` links it and its file is whole.
    async fn blob_of(&self, key: &Key, digest: &Digest) -> Result<Option<u64>> {
        let size = self.inner.catalog.blob(key, digest).await;
        self.whole(digest, size.map_err(|e| catalog::error("stat blob", digest, e))?).await
    }

    async fn whole(&self, digest: &Digest, size: Option<u64>) -> Result<Option<u64>> {
        let Some(size) = size else { return Ok(None) };
        let lacking = self.inner.lacking("stat blob", vec![(*digest, size)]).await?;
        Ok(lacking.is_none().then_some(size))
    }

    /// The size of a blob that may be mounted.
    async fn mountable(&self, digest: &Digest, mount: &Mount) -> Result<Option<u64>> {
        match mount {
            Mount::No => Ok(None),
            Mount::From(names) => self.mountable_from(digest, names).await,
            Mount::Anywhere => {
                let size = self.inner.catalog.blob_anywhere(&self.key, digest).await;
                self.whole(digest, size.map_err(|e| catalog::error("mount blob", digest, e))?).await
            }
        }
    }

    async fn mountable_from(&self, digest: &Digest, names: &[Name]) -> Result<Option<u64>> {
        for name in names {
            let size = self.blob_of(&self.key.sibling(name), digest).await?;
            if size.is_some() {
                return Ok(size);
            }
        }
        Ok(None)
    }

    /// Puts the bytes of a manifest in place. The lease goes along, for the work ends even if we are dropped.
    pub(crate) async fn put_bytes(&self, digest: Digest, bytes: Bytes) -> Result<Lease> {
        let inner = Arc::clone(&self.inner);
        let temporary = inner.sessions.temporary().await;
        let lease = inner.lease(&digest).await;
        blocking_io("push manifest", digest, move || {
            inner.content.put(&temporary.path, &digest, &bytes).map(|()| lease)
        })
        .await
    }
}

fn incomplete(manifest: &Manifest, missing: &Digest) -> Error {
    let detail = format!("the repository lacks {missing}");
    Error::new(Kind::Incomplete, "push manifest", manifest.digest(), detail)
}

#[async_trait]
impl Repository for FileRepository {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let (found, _lease) = self.find("resolve", reference).await?;
        Ok(Resolved::fresh(found))
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        let memory = &self.inner.catalog.memory;
        if let Reference::Digest(digest) = reference
            && let Some(manifest) = memory.manifest(&self.key, digest)
        {
            self.inner.note_use(digest);
            return Ok(manifest);
        }
        let quiet = memory.quiet();
        let (found, _lease) = self.find("read manifest", reference).await?;
        let digest = found.digest;
        let bytes = self.inner.read_all(&digest, found.size).await?;
        let bytes = bytes.ok_or_else(|| Error::not_found("read manifest", reference))?;
        let manifest = Manifest::parse_as(digest.algorithm(), Some(&found.media_type), bytes);
        match manifest {
            Ok(manifest) if manifest.digest() == digest => {
                memory.keep_manifest(quiet, &self.key, &manifest);
                Ok(manifest)
            }
            _ => {
                let detail = "the file is damaged; push the manifest again";
                Err(Error::new(Kind::DigestMismatch, "read manifest", digest, detail))
            }
        }
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let _lease = self.inner.lease(digest).await;
        let found = self.blob_of(&self.key, digest).await?;
        if found.is_some() {
            self.inner.note_use(digest);
        }
        Ok(found)
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let _lease = self.inner.lease(digest).await;
        let size = self.inner.catalog.blob(&self.key, digest).await;
        let size = size.map_err(|e| catalog::error("read blob", digest, e))?;
        let size = size.ok_or_else(|| Error::not_found("read blob", digest))?;
        self.inner.note_use(digest);
        if self.links
            && let Some(link) = self.inner.link(digest, size).await?
        {
            return Ok(link);
        }
        let found = self.inner.read(digest, size, range).await?;
        let (range, body) = found.ok_or_else(|| Error::not_found("read blob", digest))?;
        Ok(Blob { size, range, skipped: 0, fetched: false, body })
    }

    async fn tags(&self, request: PageRequest) -> Result<Page<TagEntry>> {
        let failed = |e| catalog::error("list tags", self.key.name(), e);
        if !self.inner.catalog.exists(&self.key).await.map_err(failed)? {
            return Err(Error::not_found("list tags", self.key.name()));
        }
        let entries = self.inner.catalog.tags(&self.key, start(&request), limit(&request) + 1).await;
        Ok(page(entries.map_err(failed)?, &request, |entry| entry.tag.to_string()))
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        request: PageRequest,
    ) -> Result<Page<Descriptor>> {
        let window = (start(&request), limit(&request) + 1);
        let referrers = self.inner.catalog.referrers(&self.key, subject, artifact_type, window).await;
        let referrers = referrers.map_err(|e| catalog::error("list referrers", subject, e))?;
        Ok(page(referrers, &request, |referrer| referrer.digest.to_string()))
    }
}

#[async_trait]
impl RepositoryMut for FileRepository {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        if let Some(digest) = &expect.digest
            && expect.mount != Mount::No
        {
            let _lease = self.inner.lease(digest).await;
            if self.stat(digest).await?.is_some() {
                return Ok(Begun::Exists);
            }
            if let Some(size) = self.mountable(digest, &expect.mount).await? {
                let linked = self.inner.catalog.link(&self.key, digest, size, None).await;
                linked.map_err(|e| catalog::error("mount blob", digest, e))?;
                return Ok(Begun::Mounted);
            }
        }
        let algorithm = expect.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let upload = FileUpload::begin(&self.inner, &self.key, algorithm).await?;
        Ok(Begun::Upload(Box::new(upload)))
    }

    async fn resume(&self, token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        let upload = FileUpload::resume(&self.inner, &self.key, token.expose()).await?;
        Ok(upload.map(|upload| Box::new(upload) as Box<dyn Upload>))
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        let digest = manifest.digest();
        let failed = |e| catalog::error("push manifest", digest, e);
        // What is refused now costs no writing. The transaction below asks the catalog again, for it decides.
        let needed = self.inner.catalog.needed(&self.key, manifest).await.map_err(failed)?;
        let needed = needed.map_err(|missing| incomplete(manifest, &missing))?;
        if let Some(missing) = self.inner.lacking("push manifest", needed).await? {
            return Err(incomplete(manifest, &missing));
        }
        let _lease = self.put_bytes(digest, manifest.bytes().clone()).await?;
        let put = self.inner.catalog.put_manifest(&self.key, manifest, tag).await.map_err(failed)?;
        put.map_err(|missing| incomplete(manifest, &missing))?;
        Ok(Stored { subject_indexed: true })
    }

    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed> {
        let removed = match reference {
            Reference::Tag(tag) => self.inner.catalog.delete_tag(&self.key, tag).await,
            Reference::Digest(digest) => self.inner.catalog.delete_manifest(&self.key, digest).await,
        };
        match removed.map_err(|e| catalog::error("delete manifest", reference, e))? {
            true => Ok(Removed::Yes),
            false => Err(Error::not_found("delete manifest", reference)),
        }
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<Removed> {
        let removed = self.inner.catalog.unlink(&self.key, digest).await;
        match removed.map_err(|e| catalog::error("delete blob", digest, e))? {
            true => Ok(Removed::Yes),
            false => Err(Error::not_found("delete blob", digest)),
        }
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        self
    }
}
