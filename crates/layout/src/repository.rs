use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::{Algorithm, Descriptor, Digest, Manifest, Reference, Tag};
use ferry_store::{
    Begun, Blob, ByteRange, Cursor, Error, Expect, Kind, Mount, Page, PageRequest, Removed, Repository,
    RepositoryMut, Resolved, Result, Stored, TagEntry, Upload, UploadToken,
};

use crate::files::Files;
use crate::manifests;
use crate::name::ImageName;
use crate::referrers;
use crate::upload::LayoutUpload;

/// What of a layout is shown, and how strict it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Whose tags are shown and written.
    pub(crate) name: Option<ImageName>,
    /// Whether an index may lack children.
    pub(crate) sparse: bool,
}

/// The one repository of a layout, or that of one of its names.
pub(crate) struct LayoutRepository {
    files: Arc<dyn Files>,
    view: View,
}

impl LayoutRepository {
    pub(crate) fn new(files: Arc<dyn Files>, view: View) -> Self {
        Self { files, view }
    }

    /// Works on the files where blocking is allowed.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Files, &View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (files, view) = (Arc::clone(&self.files), self.view.clone());
        blocking(move || work(&*files, &view)).await
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
        self.with(move |files, view| manifests::find(files, view.name.as_ref(), &reference)).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let digest = *digest;
        self.with(move |files, _| files.counts_as(&digest)).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let digest = *digest;
        self.with(move |files, _| open_blob(files, &digest, range)).await
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        let tags = self.with(|files, view| Ok(files.index()?.tags(view.name.as_ref()))).await?;
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
        let found =
            self.with(move |files, _| referrers::find(files, &subject, artifact_type.as_deref())).await?;
        Ok(cut(found, &page))
    }
}

#[async_trait]
impl RepositoryMut for LayoutRepository {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        let files = Arc::clone(&self.files);
        blocking(move || {
            if let Some(digest) = expect.digest.filter(|_| expect.mount != Mount::No)
                && let Some(size) = files.counts_as(&digest)?
                // A file of another size is a copy that something cut short.
                && expect.size.is_none_or(|expected| expected == size)
            {
                return Ok(Begun::Exists);
            }
            let algorithm = expect.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
            Ok(Begun::Upload(Box::new(LayoutUpload::new(files.sink(&expect)?, algorithm))))
        })
        .await
    }

    async fn resume(&self, _token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        Ok(None)
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        let (manifest, tag) = (manifest.clone(), tag.cloned());
        self.with(move |files, view| {
            check_complete(files, &manifest, view.sparse)?;
            files.place_manifest(&manifest)?;
            files.edit_index(&mut |index| index.put(&manifest, view.name.as_ref(), tag.as_ref()))?;
            Ok(Stored { subject_indexed: true })
        })
        .await
    }

    /// A tag goes with its entry of `index.json`; a manifest with all its entries and its file. Blobs stay.
    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed> {
        let reference = reference.clone();
        self.with(move |files, view| {
            let removed = match &reference {
                Reference::Tag(tag) => {
                    files.edit_index(&mut |index| index.remove_tag(view.name.as_ref(), tag))?
                }
                Reference::Digest(digest) => {
                    let listed = files.edit_index(&mut |index| index.remove_digest(digest))?;
                    manifests::remove(files, digest)? || listed
                }
            };
            if removed { Ok(Removed::Yes) } else { Err(Error::not_found("delete manifest", &reference)) }
        })
        .await
    }

    /// A manifest is a file too, but goes only by [`RepositoryMut::delete_manifest`].
    async fn delete_blob(&self, digest: &Digest) -> Result<Removed> {
        let digest = *digest;
        self.with(move |files, _| {
            files.size_of(&digest)?.ok_or_else(|| Error::not_found("delete blob", digest))?;
            match manifests::find(files, None, &Reference::Digest(digest)) {
                Ok(_) => Ok(Removed::Unsupported),
                Err(_) => files.remove(&digest).map(|()| Removed::Yes),
            }
        })
        .await
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        self
    }
}

fn open_blob(files: &dyn Files, digest: &Digest, range: ByteRange) -> Result<Blob> {
    let Some(content) = files.read(digest)? else { return Err(absent(files, digest)) };
    let size = content.size();
    content.blob(range).ok_or_else(|| {
        let detail = format!("byte {} is beyond the end at {size}", range.start);
        Error::new(Kind::Invalid, "read blob", digest, detail)
    })
}

/// Why a blob is not here.
fn absent(files: &dyn Files, digest: &Digest) -> Error {
    let except = files.index().map(|index| index.except()).unwrap_or_default();
    if except.is_empty() {
        return Error::not_found("read blob", digest);
    }
    let names = except.join(", ");
    let detail = format!(
        "this archive was made with --except {names}; import {names} first, or name all of them in one run"
    );
    Error::new(Kind::NotFound, "read blob", digest, detail)
}

/// Refuses a manifest that names what is not here, or is here in another size.
fn check_complete(files: &dyn Files, manifest: &Manifest, sparse: bool) -> Result<()> {
    let blobs = manifest.blobs().into_iter().map(|blob| (blob, files.counts_as(&blob.digest), false));
    let children = manifest.children().iter().map(|child| (child, files.size_of(&child.digest), sparse));
    for (named, size, dispensable) in blobs.chain(children) {
        let detail = match size? {
            Some(size) if size == named.size => continue,
            Some(size) => format!("{} has {size} bytes, not {}", named.digest, named.size),
            None if dispensable => continue,
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
    Page::new(items, next)
}
