//! A collector of OpenTelemetry: what comes to `/v1/traces` is kept, or refused, or never answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ferry_serve::{Handler, Limits, ResponseBody, full, serve};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What it has seen and how it behaves. Clones are the same collector.
#[derive(Clone, Default)]
pub struct Collector(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: AtomicUsize,
    hangs: AtomicBool,
    refuses: AtomicBool,
    batches: Mutex<Vec<(HeaderMap, Vec<u8>)>>,
}

/// A span, with the name of the service that it is of.
#[derive(Debug, Clone)]
pub struct Seen {
    pub service: String,
    pub span: Span,
}

impl Collector {
    /// Returns it with its address. It ends with the test.
    pub async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, collector.clone(), Limits::default(), CancellationToken::new()));
        (collector, address)
    }

    /// Never answers from now on.
    pub fn hang(&self) {
        self.0.hangs.store(true, Ordering::SeqCst);
    }

    /// Refuses everything, or nothing any more.
    pub fn refuse(&self, refuses: bool) {
        self.0.refuses.store(refuses, Ordering::SeqCst);
    }

    /// How many requests have come.
    pub fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// Heads and bodies of the requests that were taken.
    pub fn batches(&self) -> Vec<(HeaderMap, Vec<u8>)> {
        self.0.batches.lock().unwrap().clone()
    }

    /// The spans of all requests that were taken.
    pub fn spans(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for (_, body) in self.batches() {
            for of_service in ExportTraceServiceRequest::decode(body.as_slice()).unwrap().resource_spans {
                let service = text(&of_service.resource.unwrap().attributes, "service.name").unwrap();
                let spans = of_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
                seen.extend(spans.map(|span| Seen { service: service.clone(), span }));
            }
        }
        seen
    }
}

impl Handler for Collector {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        assert_eq!(request.uri().path(), "/v1/traces");
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        // How it behaves is decided before anybody sees that it was asked, and may change that.
        let [hangs, refuses] = [&self.0.hangs, &self.0.refuses].map(|flag| flag.load(Ordering::SeqCst));
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        if hangs {
            std::future::pending::<()>().await;
        }
        let mut response = Response::new(full(""));
        if refuses {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        } else {
            self.0.batches.lock().unwrap().push((parts.headers, body));
        }
        response
    }
}

impl Seen {
    /// An attribute that is a text.
    pub fn text(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    /// An attribute that is a number.
    pub fn number(&self, key: &str) -> Option<i64> {
        match value(&self.span.attributes, key)? {
            any_value::Value::IntValue(number) => Some(number),
            other => panic!("{key} is {other:?}"),
        }
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<any_value::Value> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    attribute.value.clone()?.value
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        any_value::Value::StringValue(text) => Some(text),
        other => panic!("{key} is {other:?}"),
    }
}
