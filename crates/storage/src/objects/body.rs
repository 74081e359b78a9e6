use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{ByteStream, Result};
use futures_util::stream::{self, BoxStream, StreamExt};

use super::bucket::Bucket;
use super::failure::failure;

/// How often in a row reading may fail without a byte in between, beside what is tried again within each request.
const PATIENCE: u32 = 5;

/// How long to wait before going on for the first time; longer each time.
const PAUSE: Duration = Duration::from_millis(200);

/// Part of the object of `digest`, as a stream that goes on where a connection broke; `None` if there is no object of this
/// size.
pub(super) async fn open(
    bucket: &Arc<Bucket>,
    digest: &Digest,
    size: u64,
    range: Range<u64>,
) -> Result<Option<ByteStream>> {
    if range.is_empty() {
        let found = bucket.find(digest).await?;
        return Ok(found.filter(|found| found.size == size).map(|_| Box::pin(stream::empty()) as ByteStream));
    }
    let got = match bucket.get(digest, range.clone()).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        // A range beyond the end of an object that was cut short is refused, by some without saying why.
        Err(e) => match bucket.find(digest).await {
            Ok(found) if found.as_ref().is_none_or(|found| found.size != size) => return Ok(None),
            _ => return Err(failure("read blob", digest, e)),
        },
    };
    if got.meta.size != size {
        return Ok(None);
    }
    let body = Body {
        bucket: Arc::clone(bucket),
        digest: *digest,
        left: range,
        stream: Some(got.into_stream()),
        failures: 0,
    };
    Ok(Some(Box::pin(stream::try_unfold(body, Body::next))))
}

struct Body {
    bucket: Arc<Bucket>,
    digest: Digest,
    left: Range<u64>,
    /// `None` after it broke.
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    failures: u32,
}

impl Body {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        while !self.left.is_empty() {
            match self.piece().await {
                Ok(bytes) => {
                    self.failures = 0;
                    self.left.start += bytes.len() as u64;
                    return Ok(Some((bytes, self)));
                }
                Err(e) if self.failures >= PATIENCE || matches!(e, object_store::Error::NotFound { .. }) => {
                    return Err(failure("read blob", self.digest, e));
                }
                Err(error) => {
                    tracing::debug!(%error, digest = %self.digest, at = self.left.start, "reading goes on");
                    self.stream = None;
                    tokio::time::sleep(PAUSE * 2_u32.pow(self.failures)).await;
                    self.failures += 1;
                }
            }
        }
        Ok(None)
    }

    /// The next bytes.
    async fn piece(&mut self) -> object_store::Result<Bytes> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let got = self.bucket.get(&self.digest, self.left.clone()).await?;
                none.insert(got.into_stream())
            }
        };
        let cut = || object_store::Error::Generic {
            store: "S3",
            source: Box::new(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
        };
        stream.next().await.unwrap_or_else(|| Err(cut()))
    }
}
