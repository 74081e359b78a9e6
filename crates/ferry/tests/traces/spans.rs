//! What is seen of pulls through a mirror.

use ferry_oci::Digest;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use reqwest::Method;

use crate::collector::{Collector, Seen};
use crate::harness::{Ferry, push};
use crate::{Traced, granted, http, image};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A mirror of a registry; both send traces to the same collector.
struct Pulled {
    collector: Collector,
    address: std::net::SocketAddr,
    upstream: Traced,
    mirror: Traced,
    host: String,
    blob: Digest,
    size: usize,
    _ferry: Ferry,
}

impl Pulled {
    async fn new() -> Self {
        let (collector, address) = Collector::start().await;
        let ferry = Ferry::new();
        let endpoint = format!("http://{address}");
        let of_upstream = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_SERVICE_NAME", "upstream")];
        let upstream = Traced::start(&ferry, "upstream", &[], &of_upstream).await;
        let (host, named) = (upstream.address.clone(), image());
        push(std::slice::from_ref(&named), &host).await;
        let config = format!("serve: {{mirror: {{upstreams: [\"{host}\"], default: \"{host}\"}}}}\n");
        std::fs::write(ferry.path("ferry.yaml"), config).unwrap();
        let of_mirror = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*format!("{endpoint}/v1/traces")),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=images"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ];
        let mirror = Traced::start(&ferry, "cache", &["--config", "ferry.yaml"], &of_mirror).await;
        let largest = named.image.blobs.iter().max_by_key(|(_, content)| content.len()).unwrap();
        let (blob, size) = (*largest.0, largest.1.len());
        Self { collector, address, upstream, mirror, host, blob, size, _ferry: ferry }
    }

    /// Ends both, which sends what is left.
    async fn spans(self) -> (Vec<Seen>, Vec<Seen>) {
        for server in [self.mirror, self.upstream] {
            let said = server.stop().await;
            assert_eq!(said, format!("ferry: traces are sent to {}\n", self.address));
        }
        let (of_upstream, of_mirror) =
            self.collector.spans().into_iter().partition(|seen| seen.service == "upstream");
        (of_mirror, of_upstream)
    }
}

fn one<'a>(spans: &'a [Seen], what: &str, is: impl Fn(&Seen) -> bool) -> &'a Seen {
    let found: Vec<&Seen> = spans.iter().filter(|seen| is(seen)).collect();
    assert_eq!(found.len(), 1, "{what}: {spans:#?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_a_trace_of_what_was_asked_and_where_it_came_from() {
    let at = Pulled::new().await;
    let (host, blob, size) = (at.host.clone(), at.blob.to_string(), at.size);
    let manifest = "/v2/a/b/manifests/v1";
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    granted(at.mirror.get(manifest).header("traceparent", &traceparent)).await;
    let read = granted(at.mirror.get(&format!("/v2/a/b/blobs/{blob}")).header("traceparent", &traceparent));
    assert_eq!(read.await.len(), size);
    granted(at.mirror.get(manifest).header("user-agent", "tests")).await;
    assert_eq!(at.mirror.get("/v2/a/b/manifests/none").send().await.unwrap().status(), 404);
    granted(at.mirror.get("/healthz")).await;
    let (spans, of_upstream) = at.spans().await;

    let is_server = |seen: &Seen| seen.span.kind == SpanKind::Server as i32;
    let requests: Vec<Seen> = spans.iter().filter(|seen| is_server(seen)).cloned().collect();
    assert_eq!(requests.len(), 4, "all but the probe: {requests:#?}");
    check_missed(&spans, &requests, &host);

    let pulled = one(&requests, "the blob", |seen| seen.text("ferry.reference") == Some(blob.clone()));
    assert_eq!(pulled.span.name, "GET /v2/{name}/blobs/{digest}");
    assert_eq!(pulled.number("http.response.body.size"), Some(size as i64));
    let read = one(&spans, "its bytes", |seen| {
        seen.span.parent_span_id == pulled.span.span_id && seen.span.name == "upstream blob"
    });
    assert_eq!(read.number("ferry.bytes"), Some(size as i64));

    let hit = one(&requests, "the hit", |seen| seen.text("ferry.cache").as_deref() == Some("hit"));
    assert!(hit.span.parent_span_id.is_empty() && hex(&hit.span.trace_id) != TRACE, "a trace of its own");
    assert_eq!(hit.text("user_agent.original").as_deref(), Some("tests"));
    assert!(spans.iter().all(|seen| seen.span.parent_span_id != hit.span.span_id), "nobody was asked");

    let absent =
        one(&requests, "what is not there", |seen| seen.number("http.response.status_code") == Some(404));
    assert!(absent.span.status.as_ref().is_none_or(|status| status.code != StatusCode::Error as i32));
    let absent = one(&spans, "that it is not", |seen| seen.span.parent_span_id == absent.span.span_id);
    assert_eq!(absent.text("error.type").as_deref(), Some("not_found"));

    let pulls = of_upstream.iter().filter(|seen| seen.text("http.request.method").as_deref() == Some("GET"));
    assert!(pulls.clone().count() >= 3, "{of_upstream:#?}");
    for seen in pulls {
        assert!(seen.span.parent_span_id.is_empty(), "upstreams are told nothing: {seen:#?}");
    }
}

/// The first request for the manifest, and what it led to.
fn check_missed(spans: &[Seen], requests: &[Seen], host: &str) {
    let missed = one(requests, "the first request", |seen| {
        seen.text("ferry.cache").as_deref() == Some("miss")
            && seen.text("ferry.reference").as_deref() == Some("v1")
    });
    assert_eq!(missed.service, "ferry");
    assert_eq!(missed.span.name, "GET /v2/{name}/manifests/{reference}");
    assert_eq!(hex(&missed.span.trace_id), TRACE);
    assert_eq!(hex(&missed.span.parent_span_id), PARENT);
    for (key, expected) in [
        ("http.request.method", "GET"),
        ("http.route", "/v2/{name}/manifests/{reference}"),
        ("url.path", "/v2/a/b/manifests/v1"),
        ("url.scheme", "http"),
        ("client.address", "127.0.0.1"),
        ("ferry.upstream", host),
        ("ferry.repository", "a/b"),
    ] {
        assert_eq!(missed.text(key).as_deref(), Some(expected), "{key}");
    }
    assert_eq!(missed.number("http.response.status_code"), Some(200));
    let head = &missed.span.events[0];
    assert!(
        (missed.span.start_time_unix_nano..=missed.span.end_time_unix_nano).contains(&head.time_unix_nano)
    );

    let asked = one(spans, "what was asked", |seen| seen.span.parent_span_id == missed.span.span_id);
    assert_eq!((asked.span.name.as_str(), asked.span.kind), ("upstream manifest", SpanKind::Client as i32));
    assert_eq!(hex(&asked.span.trace_id), TRACE);
    assert_eq!(asked.text("ferry.upstream"), Some(host.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_and_nothing_without_a_bound_is_in_a_span() {
    let at = Pulled::new().await;
    let collector = at.collector.clone();
    let mirror = &at.mirror;
    let long = format!("vendor={}", "long-state".repeat(50));
    let asked = mirror.get("/v2/a/b/manifests/v1?token=hunter2").bearer_auth("hunter3");
    let asked = asked.header("traceparent", format!("00-{TRACE}-{PARENT}-01")).header("tracestate", &long);
    granted(asked).await;
    // Whoever knows where an upload is may write to it.
    let upload = format!("http://{}/v2/own/x/blobs/uploads/hunter4", mirror.address);
    http().patch(upload).send().await.unwrap();
    let odd = http().request(Method::from_bytes(b"HUNTER5").unwrap(), format!("http://{}/", mirror.address));
    odd.send().await.unwrap();
    // A parent that is none.
    granted(mirror.get("/v2/").header("traceparent", "00-hunter6-hunter7-01")).await;
    let unsampled = mirror.get("/v2/a/b/tags/list").header("traceparent", format!("00-{TRACE}-{PARENT}-00"));
    granted(unsampled).await;
    let (spans, _) = at.spans().await;
    one(&spans, "the manifest", |seen| {
        hex(&seen.span.trace_id) == TRACE && hex(&seen.span.parent_span_id) == PARENT
    });
    let odd =
        one(&spans, "the odd method", |seen| seen.text("http.request.method").as_deref() == Some("_OTHER"));
    assert!(odd.span.parent_span_id.is_empty());
    assert!(
        spans.iter().all(|seen| !seen.span.name.contains("tags")),
        "whose client does not trace it: {spans:#?}"
    );
    for (headers, body) in collector.batches() {
        for secret in ["hunter", "HUNTER", "long-state"] {
            let bytes = secret.as_bytes();
            assert!(!body.windows(bytes.len()).any(|part| part == bytes), "{secret}");
        }
        assert_eq!(headers["content-type"], "application/x-protobuf");
    }
    let of_mirror = collector.batches().into_iter().filter(|(headers, _)| headers.contains_key("x-tenant"));
    for (headers, body) in of_mirror {
        assert_eq!(headers["x-tenant"], "images");
        assert!(body.windows(27).any(|part| part == b"deployment.environment.name"));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
