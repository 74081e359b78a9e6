use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::Descriptor;
use ferry_store::{ByteRange, ByteStream, Error, Kind, Repository, Result, Side};
use futures_util::StreamExt;

use crate::retry::{Pauses, Retry};

/// So many bytes since the last failure count as progress; a peer that sends less each time is given up.
const PROGRESS: u64 = 16 * 1024;

/// Reads a blob from its source in order, from any offset, going on where a broken body stopped.
pub(crate) struct Reader {
    source: Arc<dyn Repository>,
    blob: Descriptor,
    offset: u64,
    failed_at: u64,
    body: Option<ByteStream>,
    pauses: Pauses,
}

impl Reader {
    pub(crate) fn new(source: Arc<dyn Repository>, blob: &Descriptor, offset: u64, retry: Retry) -> Self {
        let pauses = Pauses::new(retry);
        Self { source, blob: blob.clone(), offset, failed_at: offset, body: None, pauses }
    }

    /// The next bytes, or `None` once all `size` bytes were read. More bytes than that are an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.offset == self.blob.size {
                return Ok(None);
            }
            match self.read_some().await {
                Ok(bytes) => {
                    self.offset += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }

    async fn read_some(&mut self) -> Result<Bytes> {
        let body = match &mut self.body {
            Some(body) => body,
            None => self.body.insert(open(&self.source, &self.blob, self.offset).await?),
        };
        let bytes = loop {
            match body.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => break bytes,
                Some(Err(error)) => return Err(error),
                None => return Err(self.error(Kind::Unavailable, "the body ended early")),
            }
        };
        if self.offset + bytes.len() as u64 > self.blob.size {
            return Err(self.error(Kind::DigestMismatch, "it is longer than its descriptor says"));
        }
        Ok(bytes)
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        self.body = None;
        if self.offset - self.failed_at >= PROGRESS {
            self.pauses.reset();
        }
        self.failed_at = self.offset;
        let Some(pause) = self.pauses.after(&error) else { return Err(error.on(Side::Source)) };
        tracing::debug!(digest = %self.blob.digest, offset = self.offset, %error, ?pause, "source failed, going on");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn error(&self, kind: Kind, detail: &str) -> Error {
        Error::new(kind, "read blob", self.blob.digest, detail)
    }
}

async fn open(source: &Arc<dyn Repository>, blob: &Descriptor, offset: u64) -> Result<ByteStream> {
    let body = source.blob(&blob.digest, ByteRange::from(offset)).await?;
    if body.size != blob.size {
        let detail = format!("it has {} bytes where its descriptor says {}", body.size, blob.size);
        return Err(Error::new(Kind::DigestMismatch, "read blob", blob.digest, detail));
    }
    Ok(body.into_stream())
}
