use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Algorithm, Digest, Hasher};
use ferry_store::{Error, Kind, Result, Upload, UploadToken};

use crate::files::{CHUNK, Sink};
use crate::repository::blocking;

/// A blob on its way into the layout. It cannot be resumed: its file is gone with it. Bytes are collected before they
/// are hashed and written: every turn on another thread costs.
pub(crate) struct LayoutUpload {
    /// Away while a write runs; lost if that was cancelled.
    writer: Option<Writer>,
    batch: Vec<Bytes>,
    batched: usize,
    accepted: u64,
}

struct Writer {
    sink: Box<dyn Sink>,
    hasher: Hasher,
}

impl LayoutUpload {
    /// An upload into `sink` whose digest will probably be of `algorithm`.
    pub(crate) fn new(sink: Box<dyn Sink>, algorithm: Algorithm) -> Self {
        let writer = Some(Writer { sink, hasher: Hasher::new(algorithm) });
        Self { writer, batch: Vec::new(), batched: 0, accepted: 0 }
    }

    fn take_writer(&mut self) -> Result<(Writer, Vec<Bytes>)> {
        self.batched = 0;
        let writer = self.writer.take().ok_or_else(|| {
            Error::new(Kind::Unavailable, "write upload", "blob", "a write before it failed or was cancelled")
        })?;
        Ok((writer, std::mem::take(&mut self.batch)))
    }
}

impl Writer {
    fn append(&mut self, batch: &[Bytes]) -> Result<()> {
        for bytes in batch {
            self.hasher.update(bytes);
            self.sink.append(bytes)?;
        }
        Ok(())
    }

    fn check(&self, digest: &Digest) -> Result<()> {
        let actual = if self.hasher.algorithm() == digest.algorithm() {
            self.hasher.clone().finish()
        } else {
            // That algorithm was not known when the upload began.
            let again = self.sink.digest(digest.algorithm());
            again.map_err(|e| Error::io("verify upload", digest, e))?
        };
        if actual == *digest {
            return Ok(());
        }
        Err(Error::new(Kind::DigestMismatch, "commit upload", digest, format!("the bytes are {actual}")))
    }
}

#[async_trait]
impl Upload for LayoutUpload {
    fn token(&self) -> Option<UploadToken> {
        None
    }

    /// Nothing survives this process, so this is where the next write goes.
    async fn durable_offset(&mut self) -> Result<u64> {
        Ok(self.accepted)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.accepted += bytes.len() as u64;
        self.batched += bytes.len();
        self.batch.push(bytes);
        if self.batched < CHUNK {
            return Ok(());
        }
        let (mut writer, batch) = self.take_writer()?;
        let written = blocking(move || writer.append(&batch).map(|()| writer)).await?;
        self.writer = Some(written);
        Ok(())
    }

    async fn commit(mut self: Box<Self>, digest: &Digest) -> Result<()> {
        let (mut writer, batch) = self.take_writer()?;
        let digest = *digest;
        blocking(move || {
            writer.append(&batch)?;
            writer.check(&digest)?;
            writer.sink.keep(&digest)
        })
        .await
    }

    async fn suspend(self: Box<Self>) -> Result<Option<UploadToken>> {
        Ok(None)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
