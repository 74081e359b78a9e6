//! Answers and their headers.

use std::fmt::Display;

use ferry_oci::{Digest, Name};
use http::header::{CONTENT_LENGTH, ETAG, IF_NONE_MATCH, LOCATION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::body::{ResponseBody, empty};
use crate::error::Failure;

pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What a handler comes to.
pub(crate) type Answer = Result<Response<ResponseBody>, Failure>;

/// Building blocks of an answer.
pub(crate) trait Headers: Sized {
    /// Sets a header. Every value here is made of parsed texts and numbers, so none can be refused.
    fn with(self, name: HeaderName, value: impl Display) -> Self;

    /// Names the content: by the digest that was asked for, so that a client sees the algorithm that it knows.
    fn named(self, digest: &Digest) -> Self {
        self.with(DOCKER_CONTENT_DIGEST, digest).with(ETAG, format_args!("\"{digest}\""))
    }
}

impl Headers for Response<ResponseBody> {
    fn with(mut self, name: HeaderName, value: impl Display) -> Self {
        if let Ok(value) = HeaderValue::try_from(value.to_string()) {
            self.headers_mut().insert(name, value);
        }
        self
    }
}

pub(crate) fn answer(status: StatusCode, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// An answer without body whose `Content-Length` says so.
pub(crate) fn nothing(status: StatusCode) -> Response<ResponseBody> {
    answer(status, empty()).with(CONTENT_LENGTH, 0)
}

/// 304 for content that the client has (RFC 9110 section 15.4.5).
pub(crate) fn not_modified(digest: &Digest) -> Response<ResponseBody> {
    answer(StatusCode::NOT_MODIFIED, empty()).named(digest)
}

/// 201 for content that can be read back under `kind`, which is `blobs` or `manifests`.
pub(crate) fn created(name: &Name, kind: &str, digest: &Digest) -> Response<ResponseBody> {
    nothing(StatusCode::CREATED)
        .with(LOCATION, format_args!("/v2/{name}/{kind}/{digest}"))
        .with(DOCKER_CONTENT_DIGEST, digest)
}

/// A header as text, if it is there and is text.
pub(crate) fn header(parts: &Parts, name: HeaderName) -> Option<&str> {
    parts.headers.get(name)?.to_str().ok()
}

/// Whether the client has the content already (RFC 9110 section 13.1.2); Docker's tools also send the digest bare.
pub(crate) fn has_already(parts: &Parts, digest: &Digest) -> bool {
    let digest = digest.to_string();
    header(parts, IF_NONE_MATCH).is_some_and(|tags| tags.split(',').any(|tag| is_tag(tag, &digest)))
}

/// Whether an entity tag, weak or strong, is `digest`.
pub(crate) fn is_tag(tag: &str, digest: &str) -> bool {
    let tag = tag.trim();
    tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == digest
}
