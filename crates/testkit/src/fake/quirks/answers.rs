use bytes::Bytes;
use ferry_serve::{ResponseBody, full};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::json;

/// An answer without content.
pub(super) fn nothing(status: u16) -> Response<ResponseBody> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// A refusal in the words of registries.
pub(super) fn error(status: u16, code: &str, message: &str) -> Response<ResponseBody> {
    json(status, json!({"errors": [{"code": code, "message": message}]}).to_string())
}

pub(super) fn json(status: u16, body: String) -> Response<ResponseBody> {
    let mut response = nothing(status);
    *response.body_mut() = full(body);
    with(response, CONTENT_TYPE, "application/json")
}

pub(super) fn with(
    mut response: Response<ResponseBody>,
    name: HeaderName,
    value: impl AsRef<str>,
) -> Response<ResponseBody> {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The same without the length that it would be given otherwise.
pub(super) fn without_length(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let frames = http_body_util::BodyStream::new(body);
    Response::from_parts(parts, http_body_util::StreamBody::new(frames).boxed_unsync())
}

/// Takes what nobody wants: a client that writes all before it reads would otherwise meet a reset.
pub(super) async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// All of a body that arrives.
pub(super) async fn collect(body: Incoming) -> Option<Bytes> {
    Some(body.collect().await.ok()?.to_bytes())
}
