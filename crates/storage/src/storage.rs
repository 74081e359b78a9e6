use std::collections::HashSet;
use std::fs;
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
/// DIR/blobs/           blobs and manifests by digest: sha256/ab/abcd…
/// DIR/uploads/         what is still being pushed
/// DIR/staging/         blobs that are on their way from an upstream
/// DIR/damaged/         what a check with repair took out of blobs/
/// ```
/// Other files are left alone. A repository exists from its first blob or manifest on. Listings are in byte order, by
/// default 1,000 items a page and never more than 10,000.
pub struct Storage {
    pub(crate) inner: Arc<Inner>,
}

/// What repositories and uploads share.
pub(crate) struct Inner {
    pub(crate) content: Content,
    pub(crate) catalog: Catalog,
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
        let (uses, many) = self.uses.all();
        let resolution = self.options.use_resolution;
        let resting = if many { i64::MAX } else { self.clock.before(resolution) };
        for batch in uses.chunks(BATCH) {
            let written = self.catalog.record_uses(batch, resting, to_seconds(resolution)).await;
            written.map_err(|e| catalog::error("record uses", "storage", e))?;
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
    /// [`ferry_store::Kind::Unavailable`] if another `Storage`, in this process or another, has it open;
    /// [`ferry_store::Kind::Invalid`] if a newer ferry wrote the catalog or it is no catalog at all; whatever the file
    /// system says.
    pub async fn open_with(directory: &Path, options: StorageOptions) -> Result<Arc<Self>> {
        let clock = Clock::of(&options);
        let root = directory.to_owned();
        let (lock, content) = blocking("open storage", move || prepare(&root)).await?;
        let catalog = Catalog::open(&directory.join("catalog.sqlite"), clock.clone()).await?;
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
        Ok(Arc::new(Self { inner: Arc::new(inner) }))
    }

    pub(crate) fn at(&self, scope: &Scope, name: &Name) -> Arc<FileRepository> {
        Arc::new(FileRepository::new(Arc::clone(&self.inner), Key::new(scope, name)))
    }
}

/// Makes and locks the directory. Blocks.
fn prepare(root: &Path) -> Result<(DirectoryLock, Content)> {
    let failed = |e| Error::io("open storage", root.display(), e);
    fs::create_dir_all(root).map_err(failed)?;
    let lock = DirectoryLock::take(root)?;
    fs::create_dir_all(root.join("uploads")).map_err(failed)?;
    let content = Content::open(root.join("blobs"), root.join("damaged")).map_err(failed)?;
    sync_directory(root).map_err(failed)?;
    Ok((lock, content))
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
