use bytes::Bytes;
use ferry_store::Kind;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Response;
use std::time::Duration;
use tokio::time::timeout;
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

/// The length that a message announces.
pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_LENGTH)?.parse().ok()
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

/// The next piece of a body; `None` at its end.
pub(crate) async fn piece(what: &What, response: &mut Response, idle: Duration) -> Tried<Option<Bytes>> {
    match timeout(idle, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(broken(what, &host(response.url()), &error)),
        Err(_) => {
            let from = host(response.url());
            Err(what.failure(Kind::Stalled, format!("{from} sent nothing for {} s", idle.as_secs_f32())))
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
    let mut body = Vec::new();
    while let Some(bytes) = piece(what, &mut response, idle).await? {
        if (body.len() + bytes.len()) as u64 > limit {
            return Err(what.failure(Kind::Invalid, format!("the answer is longer than {limit} bytes")));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(Answer {
        status: response.status(),
        headers: response.headers().clone(),
        url: response.url().clone(),
        body: body.into(),
    })
}

/// Reads as much of an error body as may hold a message; a body that breaks off is as good as none.
pub(crate) async fn error_body(what: &What, response: &mut Response, idle: Duration) -> Vec<u8> {
    const LIMIT: usize = 64 * 1024;
    let mut body = Vec::new();
    while let Ok(Some(bytes)) = piece(what, response, idle).await {
        body.extend_from_slice(&bytes[..bytes.len().min(LIMIT - body.len())]);
        if body.len() == LIMIT {
            break;
        }
    }
    body
}
