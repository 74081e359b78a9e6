use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::Descriptor;
use ferry_store::{ByteRange, ByteStream, Error, Kind, Repository, Result, Side};
use futures_util::StreamExt;

use crate::lanes::{Lanes, Reading};
use crate::retry::{Pauses, Retry};

/// So many bytes since the last failure count as progress; a peer that sends less each time is given up.
const PROGRESS: u64 = 16 * 1024;

/// A repository as a run reads it.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) repository: Arc<dyn Repository>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) retry: Retry,
}

/// Reads a part of a blob in order, going on where a broken body stopped.
pub(crate) struct Reader {
    origin: Origin,
    blob: Descriptor,
    left: Range<u64>,
    failed_at: u64,
    body: Option<ByteStream>,
    pauses: Pauses,
    _reading: Reading,
}

impl Reader {
    pub(crate) fn new(origin: &Origin, blob: &Descriptor, range: Range<u64>) -> Self {
        Self {
            origin: origin.clone(),
            blob: blob.clone(),
            failed_at: range.start,
            left: range,
            body: None,
            pauses: Pauses::new(origin.retry),
            _reading: origin.lanes.reading(),
        }
    }

    /// Asks for the bytes, if there are any to ask for. Returns how many the source sends in front of them, which are
    /// fetched for nothing.
    pub(crate) async fn begin(&mut self) -> Result<u64> {
        loop {
            if self.left.is_empty() {
                return Ok(0);
            }
            match self.open().await {
                Ok(skipped) => return Ok(skipped),
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// The next bytes, or `None` once all were read. A source that has more than the blob's size is an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.left.is_empty() {
                return Ok(None);
            }
            match self.read_some().await {
                Ok(bytes) => {
                    self.left.start += bytes.len() as u64;
                    self.origin.lanes.add(bytes.len());
                    return Ok(Some(bytes));
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }

    async fn read_some(&mut self) -> Result<Bytes> {
        if self.body.is_none() {
            self.open().await?;
        }
        let bytes = loop {
            let next = match &mut self.body {
                Some(body) => body.next().await,
                None => None,
            };
            match next {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => break bytes,
                Some(Err(error)) => return Err(error),
                None => return Err(self.error(Kind::Unavailable, "the body ended early")),
            }
        };
        if bytes.len() as u64 > self.left.end - self.left.start {
            return Err(self.error(Kind::DigestMismatch, "it is longer than its descriptor says"));
        }
        Ok(bytes)
    }

    async fn open(&mut self) -> Result<u64> {
        let end = (self.left.end < self.blob.size).then_some(self.left.end);
        let range = ByteRange { start: self.left.start, end };
        let body = self.origin.repository.blob(&self.blob.digest, range).await?;
        if body.size != self.blob.size {
            let detail = format!("it has {} bytes where its descriptor says {}", body.size, self.blob.size);
            return Err(self.error(Kind::DigestMismatch, &detail));
        }
        let skipped = body.skipped;
        if skipped > 0 {
            self.origin.lanes.ranges_are_ignored();
        }
        self.body = Some(body.into_stream());
        Ok(skipped)
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        self.body = None;
        let offset = self.left.start;
        if offset - self.failed_at >= PROGRESS {
            self.pauses.reset();
        }
        self.failed_at = offset;
        let Some(pause) = self.pauses.after(&error) else { return Err(error.on(Side::Source)) };
        tracing::debug!(digest = %self.blob.digest, offset, %error, ?pause, "source failed, going on");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn error(&self, kind: Kind, detail: &str) -> Error {
        Error::new(kind, "read blob", self.blob.digest, detail)
    }
}
