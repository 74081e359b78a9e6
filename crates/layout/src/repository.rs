use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::{Algorithm, Descriptor, Digest, Manifest, Reference, Tag};
use ferry_store::{
    Begun, Blob, BlobBody, ByteRange, Cursor, Error, Expect, FileSlice, Kind, Mount, Page, PageRequest,
    Removed, Repository, RepositoryMut, Resolved, Result, Stored, TagEntry, Upload, UploadToken,
};

use crate::directory::Directory;
use crate::referrers;
use crate::upload::LayoutUpload;

/// The one repository of a layout.
pub(crate) struct LayoutRepository {
    directory: Arc<Directory>,
}

impl LayoutRepository {
    pub(crate) fn new(directory: Arc<Directory>) -> Self {
        Self { directory }
    }

    /// Works on the directory where blocking is allowed.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let directory = Arc::clone(&self.directory);
        blocking(move || work(&directory)).await
    }
}

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::new(Kind::Unavailable, "run", "a task on the layout", e.to_string())),
    }
}

#[async_trait]
impl Repository for LayoutRepository {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let manifest = self.manifest(reference).await?;
        let size = manifest.bytes().len() as u64;
        Ok(Resolved::fresh(Descriptor::new(manifest.media_type(), manifest.digest(), size)))
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        let reference = reference.clone();
        self.with(move |directory| directory.manifest(&reference)).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let digest = *digest;
        self.with(move |directory| directory.size_of(&digest)).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let digest = *digest;
        self.with(move |directory| open_blob(directory, &digest, range)).await
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        let tags = self.with(|directory| Ok(directory.index()?.tags())).await?;
        let entries = tags
            .into_iter()
            .map(|(tag, digest)| (tag.to_string(), TagEntry { tag, digest: Some(digest), pushed: None }));
        Ok(cut(entries, &page))
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        let (subject, artifact_type) = (*subject, artifact_type.map(str::to_owned));
        let found = self
            .with(move |directory| referrers::find(directory, &subject, artifact_type.as_deref()))
            .await?;
        Ok(cut(found, &page))
    }
}

#[async_trait]
impl RepositoryMut for LayoutRepository {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        let directory = Arc::clone(&self.directory);
        blocking(move || {
            if let Some(digest) = expect.digest.filter(|_| expect.mount != Mount::No)
                && let Some(size) = directory.size_of(&digest)?
                // A file of another size is a copy that something cut short.
                && expect.size.is_none_or(|expected| expected == size)
            {
                return Ok(Begun::Exists);
            }
            let algorithm = expect.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
            Ok(Begun::Upload(Box::new(LayoutUpload::open(directory, algorithm)?)))
        })
        .await
    }

    async fn resume(&self, _token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        Ok(None)
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        let (manifest, tag) = (manifest.clone(), tag.cloned());
        self.with(move |directory| {
            check_complete(directory, &manifest)?;
            directory.place_manifest(&manifest)?;
            directory.edit_index(|index| index.put(&manifest, tag.as_ref()))?;
            Ok(Stored { subject_indexed: true })
        })
        .await
    }

    /// A tag goes with its entry of `index.json`; a manifest with all its entries and its file. Blobs stay.
    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed> {
        let reference = reference.clone();
        self.with(move |directory| {
            let removed = match &reference {
                Reference::Tag(tag) => directory.edit_index(|index| index.remove_tag(tag))?,
                Reference::Digest(digest) => {
                    let listed = directory.edit_index(|index| index.remove_digest(digest))?;
                    directory.remove_manifest(digest)? || listed
                }
            };
            if removed { Ok(Removed::Yes) } else { Err(Error::not_found("delete manifest", &reference)) }
        })
        .await
    }

    /// A manifest is a file too, but goes only by [`RepositoryMut::delete_manifest`].
    async fn delete_blob(&self, digest: &Digest) -> Result<Removed> {
        let digest = *digest;
        self.with(move |directory| {
            directory.size_of(&digest)?.ok_or_else(|| Error::not_found("delete blob", digest))?;
            match directory.manifest(&Reference::Digest(digest)) {
                Ok(_) => Ok(Removed::Unsupported),
                Err(_) => directory.remove_file(&digest).map(|()| Removed::Yes),
            }
        })
        .await
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        self
    }
}

fn open_blob(directory: &Directory, digest: &Digest, range: ByteRange) -> Result<Blob> {
    let size = directory.size_of(digest)?.ok_or_else(|| Error::not_found("read blob", digest))?;
    let file = File::open(directory.blob_path(digest)).map_err(|e| Error::io("read blob", digest, e))?;
    let range = range.within(size).ok_or_else(|| {
        let detail = format!("byte {} is beyond the end at {size}", range.start);
        Error::new(Kind::Invalid, "read blob", digest, detail)
    })?;
    let body = BlobBody::File(FileSlice { file: Arc::new(file), range: range.clone() });
    Ok(Blob { size, range, skipped: 0, body })
}

/// Refuses a manifest that names what is not here, or is here in another size.
fn check_complete(directory: &Directory, manifest: &Manifest) -> Result<()> {
    for named in manifest.blobs().into_iter().chain(manifest.children()) {
        let detail = match directory.size_of(&named.digest)? {
            Some(size) if size == named.size => continue,
            Some(size) => format!("{} has {size} bytes, not {}", named.digest, named.size),
            None => format!("{} is missing", named.digest),
        };
        return Err(Error::new(Kind::Incomplete, "put manifest", manifest.digest(), detail));
    }
    Ok(())
}

/// The part of a sorted listing that `page` asks for.
fn cut<T>(sorted: impl IntoIterator<Item = (String, T)>, page: &PageRequest) -> Page<T> {
    let after = page.after.as_ref().map(Cursor::as_str);
    let mut rest =
        sorted.into_iter().skip_while(|(key, _)| after.is_some_and(|after| key.as_str() <= after)).peekable();
    let (mut items, mut last) = (Vec::new(), None);
    while page.limit.is_none_or(|limit| items.len() < limit)
        && let Some((key, item)) = rest.next()
    {
        items.push(item);
        last = Some(key);
    }
    let next = last.filter(|_| rest.peek().is_some()).map(Cursor::after);
    Page { items, next }
}
