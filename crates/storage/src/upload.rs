//! Uploads: a file each, named by a random id that a row of the catalog binds to its repository.

mod expire;
mod held;
mod sessions;

pub use expire::Expired;
pub(crate) use sessions::{Sessions, UploadId, sweep};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Algorithm, Digest};
use ferry_store::{Error, Kind, Result, Upload, UploadToken};

use self::held::Held;
use crate::catalog::{self, Key};
use crate::files::{blocking, blocking_io};
use crate::storage::Inner;

/// How long to wait for someone else who writes to the same upload: a client that lost its connection comes back
/// before the server has noticed.
const PATIENCE: Duration = Duration::from_secs(3);

/// What errors call an upload: its id must not be printed.
const SUBJECT: &str = "upload";

/// An upload that nobody else can write to while this is alive.
pub(crate) struct FileUpload {
    inner: Arc<Inner>,
    key: Key,
    id: UploadId,
    /// `None` after an operation was cancelled: what it did is not known here until the upload is resumed.
    held: Option<Held>,
}

impl FileUpload {
    /// Opens a new upload.
    pub(crate) async fn begin(inner: &Arc<Inner>, key: &Key, algorithm: Algorithm) -> Result<Self> {
        let id = UploadId::random();
        let path = inner.sessions.path(&id);
        // A file without a row is removed when the storage is next opened; a row without a file could be resumed.
        let hold = inner.sessions.lock(&id, algorithm).await;
        let room = inner.content.room().clone();
        let held = blocking_io("begin upload", key.name(), move || Held::create(hold, path, room)).await;
        let held = held.inspect_err(|_| inner.sessions.forget(&id))?;
        let upload = Self { inner: Arc::clone(inner), key: key.clone(), id, held: Some(held) };
        match inner.catalog.add_upload(key, upload.id.as_str()).await {
            Ok(()) => Ok(upload),
            Err(e) => {
                upload.discard().await?;
                Err(catalog::error("begin upload", key.name(), e))
            }
        }
    }

    /// Takes hold of an upload; `None` if there is none of this repository.
    pub(crate) async fn resume(inner: &Arc<Inner>, key: &Key, token: &str) -> Result<Option<Self>> {
        let Some(id) = UploadId::parse(token) else { return Ok(None) };
        let known = inner.catalog.has_upload(key, id.as_str()).await;
        if !known.map_err(|e| catalog::error("resume upload", key.name(), e))? {
            return Ok(None);
        }
        let waiting = tokio::time::timeout(PATIENCE, inner.sessions.lock(&id, Algorithm::Sha256));
        let Ok(hold) = waiting.await else {
            let detail = "someone else is writing to it";
            return Err(Error::new(Kind::Unavailable, "resume upload", key.name(), detail));
        };
        let path = inner.sessions.path(&id);
        let room = inner.content.room().clone();
        let held = blocking_io("resume upload", key.name(), move || Held::reopen(hold, path, room)).await?;
        if held.is_none() {
            // It ended after the catalog was asked.
            inner.sessions.forget(&id);
            return Ok(None);
        }
        Ok(Some(Self { inner: Arc::clone(inner), key: key.clone(), id, held }))
    }

    fn take_held(&mut self, operation: &'static str) -> Result<Held> {
        let interrupted =
            || Error::new(Kind::Unavailable, operation, SUBJECT, "interrupted; resume the upload");
        self.held.take().ok_or_else(interrupted)
    }

    /// Does file work. The hold goes along, so that a future that is dropped does not let go of it mid-write.
    async fn with_held(
        &mut self,
        operation: &'static str,
        work: impl FnOnce(&mut Held) -> std::io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let mut held = self.take_held(operation)?;
        let (held, result) = blocking(operation, move || {
            let result = work(&mut held);
            Ok((held, result))
        })
        .await?;
        self.held = Some(held);
        result.map_err(|e| Error::io(operation, SUBJECT, e))
    }

    /// Removes every trace; the row goes last, since without it nobody would look for the file.
    async fn discard(mut self) -> Result<()> {
        self.inner.sessions.forget(&self.id);
        if let Some(held) = self.held.take() {
            blocking_io("remove upload", SUBJECT, move || held.remove()).await?;
        }
        let removed = self.inner.catalog.remove_upload(self.id.as_str()).await;
        removed.map_err(|e| catalog::error("remove upload", SUBJECT, e))
    }
}

#[async_trait]
impl Upload for FileUpload {
    fn token(&self) -> Option<UploadToken> {
        Some(UploadToken::new(self.id.as_str()))
    }

    async fn durable_offset(&mut self) -> Result<u64> {
        if self.held.as_ref().is_none_or(Held::is_dirty) {
            self.with_held("synchronise upload", Held::sync).await?;
        }
        let held = self.take_held("synchronise upload")?;
        let length = held.length();
        self.held = Some(held);
        Ok(length)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut held = self.take_held("write upload")?;
        let full = held.accept(bytes);
        self.held = Some(held);
        if full { self.with_held("write upload", Held::flush).await } else { Ok(()) }
    }

    async fn commit(mut self: Box<Self>, digest: &Digest) -> Result<()> {
        let held = self.take_held("commit upload")?;
        // From before the file is in place until the catalog names it. It goes along to the thread that does the work, which
        // ends even if we are dropped.
        let lease = self.inner.lease(digest).await;
        let (inner, wanted) = (Arc::clone(&self.inner), *digest);
        let sealed = blocking_io("commit upload", digest, move || {
            held.seal(&inner.content, &wanted).map(|sealed| (sealed, lease))
        });
        let error = match sealed.await {
            Ok((Ok(size), _lease)) => {
                self.inner.sessions.forget(&self.id);
                let linked = self.inner.catalog.link(&self.key, digest, size, Some(self.id.as_str())).await;
                return linked.map_err(|e| catalog::error("commit upload", digest, e));
            }
            Ok((Err(actual), _)) => {
                let detail = format!("the bytes are {actual}");
                Error::new(Kind::DigestMismatch, "commit upload", digest, detail)
            }
            Err(e) => e,
        };
        // After a failed synchronisation nobody knows what is on the disk, so no failure leaves anything to resume.
        self.discard().await?;
        Err(error)
    }

    async fn suspend(mut self: Box<Self>) -> Result<Option<UploadToken>> {
        self.durable_offset().await?;
        Ok(self.token())
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.discard().await
    }
}
