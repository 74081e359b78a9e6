//! The content of blobs, whole or from some byte on.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{ContentRange, Digest};
use ferry_store::{Blob, BlobBody, ByteRange, ByteStream, Error, Kind, Repository, Result};
use futures_util::stream;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::Response;
use tokio::time::{Instant, timeout};

use crate::budget::Permit;
use crate::client::Shared;
use crate::error::{What, broken};
use crate::read::RemoteRepository;
use crate::request::{GRACE, LEAST, length, plain, text};
use crate::stall::Download;
use crate::transport::host;

impl RemoteRepository {
    pub(crate) async fn open_blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        if range.end.is_some_and(|end| end <= range.start) {
            return self.no_bytes(digest, range).await;
        }
        let what = self.what("read blob", digest);
        let mut request = self.blob_request(what, Method::GET, digest).content();
        if let Some(header) = range_header(range) {
            request = request.header(RANGE, header);
        }
        let (response, permit) = match self.host.download(&request).await {
            Ok(opened) => opened,
            Err(failure) if failure.is(StatusCode::RANGE_NOT_SATISFIABLE) => {
                return self.no_bytes(digest, range).await;
            }
            Err(failure) => return Err(failure.into()),
        };
        plain(&request.what, response.headers())?;
        let sent = self.sent(&request.what, digest, range, &response).await?;
        let body = Body {
            what: request.what,
            can_go_on: sent.can_go_on,
            shared: Arc::clone(&self.host.shared),
            download: self.host.running.begin(),
            period: (Duration::ZERO, 0),
            response,
            _permit: permit,
        };
        let (size, range, skipped) = (sent.size, sent.wanted.clone(), sent.skip);
        Ok(Blob { size, range, skipped, fetched: false, body: BlobBody::Stream(body.cut(&sent)) })
    }

    /// An empty part, which no `Range` header can ask for: the end of a blob, or nothing at all.
    async fn no_bytes(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let what = self.what("read blob", digest);
        let size = self.stat(digest).await?.ok_or_else(|| Error::not_found(what.operation, &what.subject))?;
        match range.within(size) {
            Some(part) if part.is_empty() => {
                let body = BlobBody::Stream(Box::pin(stream::empty()));
                Ok(Blob { size, range: part, skipped: 0, fetched: false, body })
            }
            _ => Err(what.error(Kind::Invalid, format!("byte {} is beyond its {size} bytes", range.start))),
        }
    }

    /// Which bytes an answer holds, and which of them are wanted.
    async fn sent(
        &self,
        what: &What,
        digest: &Digest,
        range: ByteRange,
        response: &Response,
    ) -> Result<Sent> {
        let invalid = |detail: String| what.error(Kind::Invalid, detail);
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let header = text(response.headers(), CONTENT_RANGE).unwrap_or_default();
            let part: ContentRange = header.parse().map_err(|_| invalid(format!("a part {header:?}")))?;
            let size = match part.total {
                Some(total) => total,
                None => self.size(what, digest).await?,
            };
            return match range.within(size) {
                Some(wanted) if wanted == part.range => Ok(Sent { size, skip: 0, wanted, can_go_on: true }),
                _ => Err(invalid(format!("the registry sent another part: {header}"))),
            };
        }
        let size = match length(response.headers()) {
            Some(size) => size,
            None => self.size(what, digest).await?,
        };
        let beyond = || invalid(format!("byte {} is beyond its {size} bytes", range.start));
        let wanted = range.within(size).ok_or_else(beyond)?;
        let can_go_on = text(response.headers(), ACCEPT_RANGES) == Some("bytes");
        Ok(Sent { size, skip: wanted.start, wanted, can_go_on })
    }

    async fn size(&self, what: &What, digest: &Digest) -> Result<u64> {
        let size = self.stat(digest).await?;
        size.ok_or_else(|| what.error(Kind::Invalid, "the registry does not say its size"))
    }
}

fn range_header(range: ByteRange) -> Option<HeaderValue> {
    let text = match (range.start, range.end) {
        (0, None) => return None,
        (start, None) => format!("bytes={start}-"),
        (start, Some(end)) => format!("bytes={start}-{}", end - 1),
    };
    HeaderValue::try_from(text).ok()
}

/// What of an answer is passed on: `skip` bytes not, then those of `wanted`. A registry may ignore `Range`.
struct Sent {
    size: u64,
    skip: u64,
    wanted: Range<u64>,
    /// Whether another request could begin where this one breaks off.
    can_go_on: bool,
}

/// How often a body that is waited for is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A body on its way. The place in the budget is free again when it ends or is dropped.
struct Body {
    what: What,
    response: Response,
    shared: Arc<Shared>,
    download: Download,
    can_go_on: bool,
    /// How long was waited since this was last looked at, and for how many bytes.
    period: (Duration, u64),
    _permit: Permit,
}

impl Body {
    /// Exactly the wanted bytes; fewer are an error, more are not looked at.
    fn cut(self, sent: &Sent) -> ByteStream {
        let wanted = sent.wanted.end - sent.wanted.start;
        Box::pin(stream::try_unfold((self, sent.skip, wanted), |(mut body, mut skip, left)| async move {
            loop {
                if left == 0 {
                    return Ok(None);
                }
                let bytes = body.next(left).await?;
                let passed = skip.min(bytes.len() as u64);
                skip -= passed;
                let bytes = bytes.slice(passed as usize..);
                let bytes = bytes.slice(..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                if !bytes.is_empty() {
                    let left = left - bytes.len() as u64;
                    return Ok(Some((bytes, (body, skip, left))));
                }
            }
        }))
    }

    async fn next(&mut self, left: u64) -> Result<Bytes> {
        let bytes = self.piece().await?.ok_or_else(|| {
            let from = host(self.response.url());
            self.what.error(Kind::Unavailable, format!("{from} ended {left} bytes too early"))
        })?;
        self.shared.down.take(bytes.len()).await;
        Ok(bytes)
    }

    /// Counts what came; an error if it was so little for so long that it will not come to an end.
    fn count(&mut self, bytes: usize, waited: Duration) -> Result<()> {
        self.download.add(bytes, waited);
        let (time, sum) = (self.period.0 + waited, self.period.1 + bytes as u64);
        let over = time >= self.shared.options.idle_timeout * GRACE;
        self.period = if over { (Duration::ZERO, 0) } else { (time, sum) };
        if over && (sum as f64) < f64::from(LEAST) * time.as_secs_f64() {
            return Err(self.stalled(format!("sent {sum} bytes in {} s", time.as_secs_f32())));
        }
        Ok(())
    }

    fn stalled(&self, how: impl fmt::Display) -> Error {
        self.what.error(Kind::Stalled, format!("{} {how}", host(self.response.url())))
    }

    /// Waits for the peer, which may be silent only for so long, and not be far slower than its other downloads.
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let idle = self.shared.options.idle_timeout;
        let begun = Instant::now();
        let mut counted = Duration::ZERO;
        loop {
            let limit = idle.saturating_sub(begun.elapsed()).min(LOOK);
            let waiting = timeout(limit, self.response.chunk()).await;
            let waited = begun.elapsed() - counted;
            counted += waited;
            match waiting {
                Ok(Ok(bytes)) => {
                    self.count(bytes.as_ref().map_or(0, Bytes::len), waited)?;
                    return Ok(bytes);
                }
                Ok(Err(error)) => return Err(broken(&self.what, &host(self.response.url()), &error).into()),
                Err(_) if counted >= idle => {
                    return Err(self.stalled(format!("sent nothing for {} s", idle.as_secs_f32())));
                }
                Err(_) => {
                    self.count(0, waited)?;
                    if self.can_go_on && self.download.has_stalled() {
                        return Err(self.stalled("sends far less than in its other downloads"));
                    }
                }
            }
        }
    }
}
