//! Spans of requests, as the semantic conventions for HTTP servers describe them.

use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use ferry_oci::Registry;
use ferry_serve::{BoxError, CacheState, Handler, Record, ResponseBody};
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{FutureExt, SpanKind, SpanRef, Status, TraceContextExt, Tracer, get_active_span};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::{key, tracer};
use crate::metrics::kind;

/// A handler whose requests are spans. It has to be around the one that is [`ferry_serve::Observed`]: so the span is the
/// active one while the request is answered, and when its record is told, which [`note`] makes attributes of.
#[derive(Clone)]
pub(crate) struct Traced<H>(pub(crate) H);

impl<H: Handler> Handler for Traced<H> {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        // Those who look after the health of the server ask all the time.
        if matches!(request.uri().path(), "/healthz" | "/readyz") {
            return self.0.handle(request).await;
        }
        let span = Ending(begin(request.method(), request.headers()));
        let response = self.0.handle(request).with_context(span.0.clone()).await;
        response.map(|body| Within { body: Some(body), span }.boxed_unsync())
    }
}

fn begin(method: &Method, headers: &HeaderMap) -> Context {
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Caller(headers));
    let (tracer, method) = (tracer(), method_name(method));
    let span = tracer.span_builder(method).with_kind(SpanKind::Server);
    let span = span.with_attributes([KeyValue::new("http.request.method", method)]);
    parent.with_span(span.start_with_context(&tracer, &parent))
}

/// Which trace the client says that the request belongs to. What vendors add to it (`tracestate`) may be as long as a
/// head, would be kept with every span, and is not read.
struct Caller<'a>(&'a HeaderMap);

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let header = self.0.get(key).filter(|_| key == "traceparent")?;
        header.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

/// Ends the span when the request is over, in whatever way: others may still hold it as the parent of theirs.
struct Ending(Context);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.span().end();
    }
}

/// The body of an answer, which is over within its span.
struct Within {
    /// There until the end.
    body: Option<ResponseBody>,
    span: Ending,
}

impl Body for Within {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let _active = self.span.0.clone().attach();
        drop(self.body.take());
    }
}

/// Makes attributes of the active span of what is known of the request now that it is over.
pub(crate) fn note(record: &Record) {
    get_active_span(|span| {
        if span.is_recording() {
            describe(&span, record);
        }
    });
}

fn describe(span: &SpanRef<'_>, record: &Record) {
    let method = method_name(&record.method);
    if let Some(route) = route(record) {
        span.update_name(format!("{method} {route}"));
        span.set_attribute(KeyValue::new("http.route", route));
    }
    let status = i64::from(record.status.as_u16());
    span.set_attributes([
        KeyValue::new("http.response.status_code", status),
        KeyValue::new("http.response.body.size", i64::try_from(record.bytes).unwrap_or(i64::MAX)),
        KeyValue::new("url.path", record.path.clone()),
        KeyValue::new("url.scheme", if record.caller.secure { "https" } else { "http" }),
        KeyValue::new("client.address", record.caller.address.to_string()),
        KeyValue::new(key::WHOLE, record.whole),
    ]);
    span.set_attributes(of_content(record));
    span.add_event_with_timestamp("head of the answer", record.began + record.waited, Vec::new());
    if record.status.is_server_error() {
        span.set_status(Status::error(""));
        span.set_attribute(KeyValue::new("error.type", status.to_string()));
    }
}

/// What was asked for, where it came from and by what.
fn of_content(record: &Record) -> impl Iterator<Item = KeyValue> {
    let served = record.served.as_ref();
    let upstream = served.and_then(|served| served.upstream.as_ref()).map(Registry::to_string);
    let repository = served.map(|served| served.repository.to_string());
    let reference = served.and_then(|served| served.reference.as_ref()).map(ToString::to_string);
    let cache = record.cache.map(|cache| CacheState::as_str(cache).to_owned());
    let known = [
        (key::UPSTREAM, upstream),
        (key::REPOSITORY, repository),
        (key::REFERENCE, reference),
        (key::CACHE, cache),
        ("user_agent.original", record.agent.clone()),
    ];
    known.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?)))
}

/// A path with names in place of what clients choose, so that their number is bounded.
fn route(record: &Record) -> Option<&'static str> {
    let path = record.path.as_str();
    Some(match kind(record.served.as_ref(), path) {
        "manifest" => "/v2/{name}/manifests/{reference}",
        "blob" => "/v2/{name}/blobs/{digest}",
        "upload" => "/v2/{name}/blobs/uploads/",
        "list" if path.ends_with("/tags/list") => "/v2/{name}/tags/list",
        "list" => "/v2/{name}/referrers/{digest}",
        _ => match path {
            "/" => "/",
            "/v2/" => "/v2/",
            "/v2/_catalog" => "/v2/_catalog",
            "/token" => "/token",
            _ if path.starts_with("/page/") => "/page/{file}",
            _ => return None,
        },
    })
}

/// As the conventions want it: what is no usual method is `_OTHER`.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}
