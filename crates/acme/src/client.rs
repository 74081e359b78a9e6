//! How requests reach the authority.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use ferry_store::{Error, Kind, Result};
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use reqwest::{Certificate, redirect};

/// The most that an answer may hold; a chain has some kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long the authority asked to be left alone when it last refused a request for its rate limits.
pub(crate) type Refused = Arc<Mutex<Option<Duration>>>;

/// A client that trusts `roots` (PEM) beside the system's and speaks HTTPS only.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    refused: Refused,
}

impl Client {
    /// # Errors
    /// If a root is no certificate.
    pub(crate) fn new(roots: &[Vec<u8>], refused: Refused) -> Result<Self> {
        let failed =
            |e: reqwest::Error| Error::new(Kind::Invalid, "set up", "ACME", e.to_string()).caused_by(e);
        let mut all = Vec::new();
        for pem in roots {
            all.extend(Certificate::from_pem_bundle(pem).map_err(failed)?);
        }
        let builder = || {
            reqwest::Client::builder()
                .https_only(true)
                .no_proxy()
                .redirect(redirect::Policy::none())
                .timeout(LIMIT)
                .user_agent(concat!("ferry/", env!("CARGO_PKG_VERSION")))
        };
        let http = builder().tls_certs_merge(all.clone()).build();
        // A system without any certificates of its own is no reason to fail if we have some.
        let http = match http {
            Err(_) if !all.is_empty() => builder().tls_certs_only(all).build(),
            other => other,
        };
        Ok(Self { http: http.map_err(failed)?, refused })
    }

    async fn send(
        self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> std::result::Result<BytesResponse, instant_acme::Error> {
        let (parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        let request = reqwest::Request::try_from(Request::from_parts(parts, body)).map_err(other)?;
        let mut response = self.http.execute(request).await.map_err(other)?;
        let mut head = Response::new(());
        *head.status_mut() = response.status();
        *head.headers_mut() = response.headers().clone();
        let (parts, ()) = head.into_parts();
        if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&parts.status) {
            let after = parts.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok());
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) =
                after.and_then(|after| wait(after, SystemTime::now()));
        }
        let mut body = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(other)? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_ANSWER {
                return Err(instant_acme::Error::Other("the answer is larger than 1 MiB".into()));
            }
        }
        Ok(BytesResponse { parts, body: Box::new(body.freeze()) })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<BytesResponse, instant_acme::Error>> + Send>> {
        Box::pin(self.clone().send(request))
    }
}

/// With its causes, because the first says only that a request failed.
fn other(error: reqwest::Error) -> instant_acme::Error {
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    instant_acme::Error::Other(text.into())
}

/// How long `Retry-After` says (RFC 9110 section 10.2.3): seconds, or until when.
fn wait(after: &str, now: SystemTime) -> Option<Duration> {
    let seconds = || after.trim().parse().ok().map(Duration::from_secs);
    let date = || httpdate::parse_http_date(after).ok()?.duration_since(now).ok();
    seconds().or_else(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_waiting_are_understood() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(wait("120", now), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT", now), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:40:37 GMT", now), None, "it is over");
        assert_eq!(wait("soon", now), None);
    }
}
