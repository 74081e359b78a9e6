use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ferry_oci::{Digest, ErrorBody, ErrorCode};
use ferry_serve::ResponseBody;
use http::header::{AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::auth::answer;
use super::connection::Wire;
use super::quirks::Particular;
use super::requests::{Kind, Recorded, repository};
use super::rules::Fault;
use super::{State, faulty, lock};

/// The API with faults and the demand for credentials before it.
#[derive(Clone)]
pub(super) struct Faulty {
    inner: Particular,
    state: Arc<State>,
    address: SocketAddr,
}

/// There is to be no answer: the connection ends.
#[derive(Debug)]
pub(super) struct NoAnswer;

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer is withheld")
    }
}

impl std::error::Error for NoAnswer {}

impl Faulty {
    pub(super) fn new(inner: Particular, state: Arc<State>, address: SocketAddr) -> Self {
        Self { inner, state, address }
    }

    /// Answers one request of the connection behind `wire`.
    pub(super) async fn handle(
        &self,
        request: Request<Incoming>,
        wire: Arc<Wire>,
    ) -> Result<Response<ResponseBody>, NoAnswer> {
        let (parts, body) = request.into_parts();
        let recorded = Recorded::of(&parts);
        let (kind, method, path) = (recorded.kind, recorded.method.clone(), recorded.path.clone());
        lock(&self.state.requests).push(recorded);
        // Credentials first: a fault for "the next blob" must not be spent on the request that is refused anyway.
        if kind != Kind::Token
            && let Some(refusal) =
                lock(&self.state.auth).refuse(&parts, self.address, &self.state.quirks.get().tokens)
        {
            return Ok(refusal);
        }
        let fault = lock(&self.state.rules).iter_mut().find_map(|rule| rule.strike(&method, &path));
        if kind == Kind::Token && !matches!(fault, Some(Fault::Status { .. })) {
            let form = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Ok(lock(&self.state.auth).token(&parts, &form, &self.state.quirks.get().tokens));
        }
        let counted = match kind {
            Kind::ManifestGet => self.pull(parts.headers.get(AUTHORIZATION), 1),
            Kind::ManifestHead => self.pull(parts.headers.get(AUTHORIZATION), 0),
            _ => None,
        };
        if counted.as_ref().is_some_and(|(_, allowed)| !allowed) {
            let error = ErrorBody { code: ErrorCode::TooManyRequests, message: "pull rate limit".to_owned() };
            return Ok(refusal(429, None, error.to_json()));
        }
        if let Some(reason) = self.refuse_name(&parts) {
            let error = ErrorBody { code: ErrorCode::NameInvalid, message: reason };
            return Ok(refusal(400, None, error.to_json()));
        }
        let mut response = self.suffer(fault, Request::from_parts(parts, body), wire).await?;
        if let Some((headers, _)) = counted {
            response.headers_mut().extend(headers);
        }
        Ok(response)
    }

    /// Why a push is refused for the name of its repository, if it is.
    fn refuse_name(&self, parts: &Parts) -> Option<String> {
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let name = repository(parts.uri.path()).filter(|_| !reads)?;
        self.state.quirks.refuse_name(&name.parse().ok()?)
    }

    /// Counts a manifest that is read, where there is a quota. Returns what is announced, and whether it is allowed.
    fn pull(&self, who: Option<&HeaderValue>, count: u64) -> Option<(HeaderMap, bool)> {
        let mut quota = lock(&self.state.quota);
        let pulls = quota.as_mut()?;
        let used = pulls.used.entry(who.cloned()).or_default();
        let allowed = *used + count <= pulls.limit;
        *used += if allowed { count } else { 0 };
        let of = |number: u64| HeaderValue::try_from(format!("{number};w={}", pulls.window)).ok();
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit-limit", of(pulls.limit)?);
        headers.insert("ratelimit-remaining", of(pulls.limit - *used)?);
        Some((headers, allowed))
    }

    async fn suffer(
        &self,
        fault: Option<Fault>,
        mut request: Request<Incoming>,
        wire: Arc<Wire>,
    ) -> Result<Response<ResponseBody>, NoAnswer> {
        match fault {
            None => Ok(self.inner.handle(request, wire).await),
            Some(Fault::Status { status, retry_after, body }) => Ok(refusal(status, retry_after, body)),
            Some(Fault::StaleUpload) => {
                let message = "blob upload unknown to registry".to_owned();
                let error = ErrorBody { code: ErrorCode::BlobUploadUnknown, message };
                Ok(refusal(404, None, error.to_json()))
            }
            Some(Fault::Redirect { to }) => {
                let mut response = answer(StatusCode::TEMPORARY_REDIRECT, String::new());
                if let Ok(there) = HeaderValue::try_from(format!("{to}{}", request.uri())) {
                    response.headers_mut().insert(LOCATION, there);
                }
                Ok(response)
            }
            Some(Fault::IgnoreRange) => {
                request.headers_mut().remove(RANGE);
                Ok(self.inner.handle(request, wire).await)
            }
            Some(Fault::WrongDigest) => {
                let mut response = self.inner.handle(request, wire).await;
                let wrong = Digest::sha256(b"something else").to_string();
                if let Ok(wrong) = HeaderValue::from_str(&wrong) {
                    response.headers_mut().insert(faulty::DOCKER_CONTENT_DIGEST, wrong);
                }
                Ok(response)
            }
            Some(Fault::CutRequest { after }) => {
                wire.read_left.store(after, Ordering::SeqCst);
                Ok(self.inner.handle(request, wire).await)
            }
            Some(fault) => {
                let response = self.inner.handle(request, Arc::clone(&wire)).await;
                faulty::spoil(response, &fault, wire)
            }
        }
    }
}

fn refusal(status: u16, retry_after: Option<String>, body: String) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer(status, body);
    if let Some(wait) = retry_after.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(RETRY_AFTER, wait);
    }
    response
}
