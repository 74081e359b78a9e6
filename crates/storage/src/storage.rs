use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::{Digest, Name};
use ferry_store::{
    Error, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut, Result, Scope, Store,
};

use crate::catalog::{self, Catalog, Key};
use crate::content::Content;
use crate::files::{blocking, blocking_io, sync_directory};
use crate::leases::{Lease, Leases};
use crate::lock::DirectoryLock;
use crate::objects::{self, Objects, S3Options, Uploader};
use crate::options::{Clock, StorageOptions, to_seconds};
use crate::repository::{FileRepository, limit, page, start};
use crate::upkeep::Evictions;
use crate::upload::{Sessions, sweep};
use crate::uses::Uses;

/// Rows that are changed in one transaction at most, so that nobody waits long for the write lock.
pub(crate) const BATCH: usize = 100;

/// A directory that holds repositories: bytes in files, the catalog in SQLite.
///
/// ```text
/// DIR/lock             held while the storage is open; names the process
/// DIR/catalog.sqlite   what is visible where
/// DIR/blobs/           blobs and manifests by digest: sha256/ab/abcd…; with a bucket, what is still to go there
/// DIR/uploads/         what is still being pushed
/// DIR/staging/         blobs that are on their way from an upstream
/// DIR/damaged/         what a check with repair took out of blobs/
/// ```
/// Other files are left alone. A repository exists from its first blob or manifest on. Listings are in byte order, by
/// default 1,000 items a page and never more than 10,000.
pub struct Storage {
    pub(crate) inner: Arc<Inner>,
    /// Whether blobs may be links.
    links: bool,
    uploader: Option<Arc<Uploader>>,
}

/// What repositories and uploads share.
pub(crate) struct Inner {
    /// What is in files.
    pub(crate) content: Content,
    /// What is in a bucket, if there is one. Where both are asked, see `contents`.
    pub(crate) objects: Option<Arc<Objects>>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) sessions: Sessions,
    pub(crate) leases: Arc<Leases>,
    pub(crate) uses: Uses,
    pub(crate) evictions: Evictions,
    pub(crate) clock: Clock,
    pub(crate) options: StorageOptions,
    /// The directory of partial blobs; made when there is one.
    pub(crate) staging: PathBuf,
    _lock: DirectoryLock,
}

impl Inner {
    /// Keeps content from being removed until the lease is dropped.
    pub(crate) async fn lease(&self, digest: &Digest) -> Lease {
        self.leases.lease(digest).await
    }

    /// Notes that content is used. Under a lease, which ends when the note protects it.
    pub(crate) fn note_use(self: &Arc<Self>, digest: &Digest) {
        if self.uses.note(digest, self.clock.seconds()) {
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = inner.record_uses().await {
                    tracing::warn!(%error, "last uses are not recorded");
                }
            });
        }
    }

    /// Brings the last uses that are in memory to the catalog: what rests exactly, and then it is forgotten here; what is
    /// being used only if the catalog is behind by more than the resolution.
    pub(crate) async fn record_uses(&self) -> Result<()> {
        let now = self.clock.seconds();
        let failed = |e| catalog::error("record uses", "storage", e);
        self.catalog.correct_uses(now).await.map_err(failed)?;
        let (uses, many) = self.uses.all(now);
        let resolution = self.options.use_resolution;
        let resting = if many { i64::MAX } else { self.clock.before(resolution) };
        for batch in uses.chunks(BATCH) {
            self.catalog.record_uses(batch, resting, to_seconds(resolution)).await.map_err(failed)?;
        }
        self.uses.forget(&uses, resting);
        Ok(())
    }
}

impl Storage {
    /// Opens the storage with default options. See [`Storage::open_with`].
    ///
    /// # Errors
    /// See [`Storage::open_with`].
    pub async fn open(directory: &Path) -> Result<Arc<Self>> {
        Self::open_with(directory, StorageOptions::default()).await
    }

    /// Opens the storage in `directory`, creating it if it is missing, and removes uploads that nobody has written to
    /// for [`StorageOptions::upload_expiry`]. A catalog of an earlier schema is brought up to date at once, which reads
    /// no content. Otherwise this takes as long however much there is: no table but that of the uploads is read.
    ///
    /// # Errors
    /// [`ferry_store::Kind::Unavailable`] if another `Storage`, in this process or another, has it open, or somebody uses the
    /// bucket; [`ferry_store::Kind::Invalid`] if a newer ferry wrote the catalog, it is no catalog at all, or the bucket is not
    /// that of this catalog; [`ferry_store::Kind::Denied`] if the bucket is not there or its keys are refused; whatever
    /// the file system says. A bucket that does not answer is no error: what is in it cannot be read until it does, and what
    /// is placed waits.
    pub async fn open_with(directory: &Path, options: StorageOptions) -> Result<Arc<Self>> {
        let clock = Clock::of(&options);
        let root = directory.to_owned();
        let pending = options.bucket.as_ref().map(|bucket| bucket.pending_limit);
        let (lock, content) = blocking("open storage", move || prepare(&root, pending)).await?;
        let catalog = Arc::new(Catalog::open(&directory.join("catalog.sqlite"), clock.clone()).await?);
        let objects = open_bucket(options.bucket.as_ref(), &catalog, &clock).await?;
        let uploads = directory.join("uploads");
        let failed = |e| catalog::error("open storage", directory.display(), e);
        let known: HashSet<String> = catalog.uploads().await.map_err(failed)?.into_iter().collect();
        let (swept, rows) = (uploads.clone(), known.clone());
        let expired = clock.now().checked_sub(options.upload_expiry);
        let kept =
            blocking_io("open storage", directory.display(), move || sweep(&swept, &rows, expired)).await?;
        for gone in known.difference(&kept) {
            catalog.remove_upload(gone).await.map_err(failed)?;
        }
        let inner = Inner {
            content,
            objects,
            catalog,
            sessions: Sessions::new(uploads),
            leases: Arc::default(),
            uses: Uses::default(),
            evictions: Evictions::default(),
            clock,
            options,
            staging: directory.join("staging"),
            _lock: lock,
        };
        let inner = Arc::new(inner);
        let retry_after = inner.options.bucket.as_ref().map(|bucket| bucket.retry_after).unwrap_or_default();
        let start = |objects| Arc::new(Uploader::start(&inner, objects, retry_after));
        let uploader = inner.objects.as_ref().map(start);
        Ok(Arc::new(Self { inner, links: false, uploader }))
    }

    /// The same storage for whoever can follow links: its blobs are [`ferry_store::BlobBody::Link`]s where
    /// [`S3Options::links`] wants that and they are in the bucket.
    pub fn with_links(&self) -> Arc<Self> {
        let uploader = self.uploader.as_ref().map(Arc::clone);
        Arc::new(Self { inner: Arc::clone(&self.inner), links: true, uploader })
    }

    /// Ends what is going on towards the bucket, and says that it is not in use any more; what is still to be brought there
    /// is found again. Without it, the bucket looks used for a minute. Content can be read on.
    pub async fn close(&self) {
        if let Some(uploader) = &self.uploader {
            uploader.close().await;
        }
    }

    pub(crate) fn at(&self, scope: &Scope, name: &Name) -> Arc<FileRepository> {
        Arc::new(FileRepository::new(Arc::clone(&self.inner), Key::new(scope, name), self.links))
    }
}

/// Makes and locks the directory. Blocks.
fn prepare(root: &Path, pending: Option<Option<u64>>) -> Result<(DirectoryLock, Content)> {
    let failed = |e| Error::io("open storage", root.display(), e);
    fs::create_dir_all(root).map_err(|e| failed(with_remedy(root, e)))?;
    let lock = DirectoryLock::take(root)?;
    fs::create_dir_all(root.join("uploads")).map_err(failed)?;
    let mut content = Content::open(root.join("blobs"), root.join("damaged")).map_err(failed)?;
    if let Some(limit) = pending {
        content = content.awaiting_bucket(limit).map_err(failed)?;
    }
    sync_directory(root).map_err(failed)?;
    Ok((lock, content))
}

/// What to do where there can be no directory.
fn with_remedy(root: &Path, error: io::Error) -> io::Error {
    let remedy = match error.kind() {
        _ if root.is_file() => "it is a file; name a directory, which is made if it is missing",
        ErrorKind::PermissionDenied => "permission denied; name a directory that this user may write to",
        _ => return error,
    };
    io::Error::new(error.kind(), remedy)
}

/// Takes the bucket; one that does not answer is taken later.
async fn open_bucket(
    options: Option<&S3Options>,
    catalog: &Arc<Catalog>,
    clock: &Clock,
) -> Result<Option<Arc<Objects>>> {
    let Some(options) = options else {
        objects::refuse_without(catalog).await?;
        return Ok(None);
    };
    let objects = Objects::open(options, Arc::clone(catalog), clock.clone()).await?;
    match objects.take().await {
        Err(error) if objects.is_silent(&error) => {
            tracing::warn!(%error, "the bucket does not answer; what is in it cannot be read at present");
        }
        taken => taken?,
    }
    Ok(Some(Arc::new(objects)))
}

#[async_trait]
impl Store for Storage {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        self.at(scope, name)
    }

    fn writable(&self, scope: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        Some(self.at(scope, name))
    }

    async fn repositories(&self, prefix: &str, request: PageRequest) -> Result<Page<RepositoryEntry>> {
        let entries = self.inner.catalog.hosted(prefix, start(&request), limit(&request) + 1).await;
        let entries = entries.map_err(|e| catalog::error("list repositories", format!("{prefix}*"), e))?;
        Ok(page(entries, &request, |entry| entry.name.to_string()))
    }
}
