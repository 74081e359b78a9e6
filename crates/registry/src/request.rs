use bytes::Bytes;
use ferry_store::Kind;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Response;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::access::Access;
use crate::error::{Tried, What, broken};
use crate::retry::Retry;
use crate::transport::{Cargo, host};

/// `Accept` of everything that answers JSON other than manifests; some registries refuse a list of manifest types.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request to a registry, complete but for the authorization.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) what: What,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) access: Access,
    pub(crate) retry: Retry,
    pub(crate) cargo: Cargo,
}

impl Request {
    /// A request without body that is tried again.
    pub(crate) fn new(what: What, method: Method, url: Url, access: Access) -> Self {
        let mut headers = HeaderMap::new();
        if !matches!(method, Method::GET | Method::HEAD) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Self {
            what,
            method,
            url,
            headers,
            body: Bytes::new(),
            access,
            retry: Retry::Transient,
            cargo: Cargo::Call,
        }
    }

    /// A request for a list.
    pub(crate) fn list(what: What, url: Url, access: Access) -> Self {
        Self::new(what, Method::GET, url, access).header(ACCEPT, JSON)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The answer is content.
    pub(crate) fn content(mut self) -> Self {
        self.cargo = Cargo::Content;
        self
    }

    /// Sends `body`, which is of type `content_type`.
    pub(crate) fn body(mut self, content_type: &'static str, body: Bytes) -> Self {
        self.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        self.body = body;
        self.header(CONTENT_TYPE, HeaderValue::from_static(content_type))
    }
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) url: Url,
    pub(crate) body: Bytes,
}

/// The text of a header, if it is one.
pub(crate) fn text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The length that a message announces; two that differ are none.
pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    let mut all = headers.get_all(CONTENT_LENGTH).iter();
    let first = all.next()?;
    let length = first.to_str().ok()?.trim();
    let plain = all.all(|other| other == first) && length.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| length.parse().ok()).flatten()
}

/// Refuses content that somebody encoded on the way: its bytes are not those that the digest is of.
pub(crate) fn plain(what: &What, headers: &HeaderMap) -> Tried<()> {
    match text(headers, CONTENT_ENCODING) {
        None | Some("" | "identity") => Ok(()),
        Some(encoding) => {
            Err(what.failure(Kind::Invalid, format!("the content was sent in the encoding {encoding:?}")))
        }
    }
}

/// A body may be late by so many times the idle time-out in all,
pub(crate) const GRACE: u32 = 4;
/// and else brings at least so many bytes in a second: one that trickles would hold us for days.
pub(crate) const LEAST: u32 = 1024;

/// A body that is read whole.
struct Whole<'a> {
    response: &'a mut Response,
    idle: Duration,
    begun: Instant,
    received: Vec<u8>,
}

impl<'a> Whole<'a> {
    fn new(response: &'a mut Response, idle: Duration) -> Self {
        Self { response, idle, begun: Instant::now(), received: Vec::new() }
    }

    /// How long the next piece is waited for.
    fn patience(&self) -> Duration {
        let earned = Duration::from_secs(self.received.len() as u64) / LEAST;
        (self.idle * GRACE + earned).saturating_sub(self.begun.elapsed()).min(self.idle)
    }

    /// The next piece of the body; `None` at its end.
    async fn piece(&mut self, what: &What) -> Tried<Option<Bytes>> {
        match timeout(self.patience(), self.response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(broken(what, &host(self.response.url()), &error)),
            Err(_) => {
                let (from, waited) = (host(self.response.url()), self.begun.elapsed().as_secs_f32());
                let detail = format!("{from} sent {} bytes in {waited:.1} s", self.received.len());
                Err(what.failure(Kind::Stalled, detail))
            }
        }
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn collect(
    what: &What,
    mut response: Response,
    limit: u64,
    idle: Duration,
) -> Tried<Answer> {
    let mut body = Whole::new(&mut response, idle);
    while let Some(bytes) = body.piece(what).await? {
        if (body.received.len() + bytes.len()) as u64 > limit {
            return Err(what.failure(Kind::Invalid, format!("the answer is longer than {limit} bytes")));
        }
        body.received.extend_from_slice(&bytes);
    }
    let body = body.received.into();
    let (status, url) = (response.status(), response.url().clone());
    Ok(Answer { status, url, body, headers: std::mem::take(response.headers_mut()) })
}

/// Reads as much of an error body as may hold a message; a body that breaks off is as good as none.
pub(crate) async fn error_body(what: &What, response: &mut Response, idle: Duration) -> Vec<u8> {
    const LIMIT: usize = 64 * 1024;
    let mut body = Whole::new(response, idle);
    while let Ok(Some(bytes)) = body.piece(what).await {
        let room = LIMIT - body.received.len();
        body.received.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if body.received.len() == LIMIT {
            break;
        }
    }
    body.received
}
