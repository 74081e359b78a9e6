use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Algorithm, Digest, Hasher};
use ferry_store::{Error, Kind, Result, Upload, UploadToken};

use crate::directory::Directory;
use crate::repository::blocking;
use crate::temporary::Temporary;

/// Bytes collected before they are hashed and written: every turn on another thread costs.
const BATCH: usize = 512 * 1024;

/// A blob on its way into the layout. It cannot be resumed: its file is gone with it.
pub(crate) struct LayoutUpload {
    directory: Arc<Directory>,
    /// Away while a write runs; lost if that was cancelled.
    writer: Option<Writer>,
    batch: Vec<Bytes>,
    batched: usize,
    accepted: u64,
}

struct Writer {
    temporary: Temporary,
    hasher: Hasher,
}

impl LayoutUpload {
    /// Opens an upload whose digest will probably be of `algorithm`.
    pub(crate) fn open(directory: Arc<Directory>, algorithm: Algorithm) -> Result<Self> {
        let temporary = Temporary::create(directory.root())
            .map_err(|e| Error::io("begin upload", directory.root().display(), e))?;
        let writer = Some(Writer { temporary, hasher: Hasher::new(algorithm) });
        Ok(Self { directory, writer, batch: Vec::new(), batched: 0, accepted: 0 })
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
            let written = self.temporary.file().write_all(bytes);
            written.map_err(|e| Error::io("write upload", "blob", e))?;
        }
        Ok(())
    }

    fn check(&self, digest: &Digest) -> Result<()> {
        let actual = if self.hasher.algorithm() == digest.algorithm() {
            self.hasher.clone().finish()
        } else {
            self.hash_again(digest.algorithm()).map_err(|e| Error::io("verify upload", digest, e))?
        };
        if actual == *digest {
            return Ok(());
        }
        Err(Error::new(Kind::DigestMismatch, "commit upload", digest, format!("the bytes are {actual}")))
    }

    /// The digest under an algorithm that was not known when the upload began.
    fn hash_again(&self, algorithm: Algorithm) -> io::Result<Digest> {
        let mut file = self.temporary.file();
        file.seek(SeekFrom::Start(0))?;
        let (mut hasher, mut buffer) = (Hasher::new(algorithm), vec![0; BATCH]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                read => hasher.update(&buffer[..read]),
            }
        }
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
        if self.batched < BATCH {
            return Ok(());
        }
        let (mut writer, batch) = self.take_writer()?;
        let written = blocking(move || writer.append(&batch).map(|()| writer)).await?;
        self.writer = Some(written);
        Ok(())
    }

    async fn commit(mut self: Box<Self>, digest: &Digest) -> Result<()> {
        let (mut writer, batch) = self.take_writer()?;
        let (directory, digest) = (Arc::clone(&self.directory), *digest);
        blocking(move || {
            writer.append(&batch)?;
            writer.check(&digest)?;
            directory.place_blob(writer.temporary, &digest)
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
