//! The API for those who look after a mirror: on an address of its own, for who knows its token.

mod answers;
mod calls;

use std::sync::Arc;
use std::time::Duration;

use ferry_oci::Digest;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::answer::{Headers, answer, header};
use crate::body::{ResponseBody, full};
use crate::operations::Operations;
use crate::request::RequestBody;
use crate::service::Handler;

/// What Prometheus is told of the form of the metrics.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// So long a client may send nothing within a body.
const IDLE: Duration = Duration::from_secs(10);

/// The API for those who look after a mirror.
///
/// | request | answer |
/// | --- | --- |
/// | `GET /metrics` | metrics for Prometheus |
/// | `GET /api/v1/figures` | all figures of this moment |
/// | `GET /api/v1/flights` | the blobs that are being fetched |
/// | `GET /api/v1/health` | whether it is ready, and how upstreams answer |
/// | `GET /api/v1/cache?registry=R&n=100&after=A` | the images in the cache, by pages |
/// | `DELETE /api/v1/cache?image=I` | removes an image from the cache |
/// | `POST /api/v1/warm` | `{"images": [I], "platforms": [P]}`: begins to fetch images; 202 |
/// | `GET /api/v1/warm/ID` | how far that is |
/// | `GET /api/v1/pins` | what is never evicted |
/// | `POST /api/v1/pins`, `DELETE /api/v1/pins?image=I` | `{"image": I}`: pins, unpins |
/// | `POST /api/v1/reload` | reads the configuration again |
/// | `GET /api/v1/access` | who may use the registry, in the form of the configuration |
/// | `PUT /api/v1/access` | the same as YAML or JSON: counts until the configuration is read again |
///
/// An image is named as `docker pull` names it, by the registry that it comes from. Errors are `{"error": TEXT}`.
#[derive(Clone)]
pub struct Admin {
    operations: Arc<dyn Operations>,
    token: Digest,
    open_metrics: bool,
}

impl Admin {
    /// For who knows the token; with `open_metrics` anybody may read the metrics.
    pub fn new(operations: Arc<dyn Operations>, token: &str, open_metrics: bool) -> Self {
        Self { operations, token: Digest::sha256(token.as_bytes()), open_metrics }
    }

    /// The refusal of a request that does not show the token. Digests are compared, so the length of neither shows in the time.
    fn refuse(&self, parts: &Parts) -> Option<Response<ResponseBody>> {
        let shown = header(parts, AUTHORIZATION).and_then(|value| value.split_once(' '));
        let Some((_, shown)) = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            let why = "show the token of the admin API: Authorization: Bearer TOKEN";
            return Some(answers::error(StatusCode::UNAUTHORIZED, why).with(WWW_AUTHENTICATE, "Bearer"));
        };
        let shown = Digest::sha256(shown.trim().as_bytes());
        let same = shown.hex().as_bytes().ct_eq(self.token.hex().as_bytes());
        (!bool::from(same))
            .then(|| answers::error(StatusCode::FORBIDDEN, "this is not the token of the admin API"))
    }

    async fn answer(&self, parts: &Parts, body: &mut RequestBody) -> Response<ResponseBody> {
        let path = parts.uri.path();
        let metrics = path == "/metrics";
        if !(metrics && self.open_metrics)
            && let Some(refusal) = self.refuse(parts)
        {
            return refusal;
        }
        if metrics && matches!(parts.method, Method::GET | Method::HEAD) {
            let text = self.operations.metrics().await;
            return answer(StatusCode::OK, full(text)).with(CONTENT_TYPE, METRICS);
        }
        match path.strip_prefix("/api/v1/") {
            Some(what) => calls::call(&*self.operations, what, parts, body).await,
            None => answers::error(StatusCode::NOT_FOUND, "there is no such path; the API is below /api/v1/"),
        }
    }
}

impl Handler for Admin {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let (parts, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, IDLE);
        let response = self.answer(&parts, &mut body).await;
        body.discard().await;
        response.with(CACHE_CONTROL, "no-store")
    }
}

fn of_json(status: StatusCode, value: &Value) -> Response<ResponseBody> {
    answer(status, full(format!("{value}\n"))).with(CONTENT_TYPE, "application/json")
}

fn ok(value: &Value) -> Response<ResponseBody> {
    of_json(StatusCode::OK, value)
}

/// What a change came to: `changed` is false where nothing had to be done.
fn changed(changed: bool) -> Response<ResponseBody> {
    ok(&json!({"changed": changed}))
}
