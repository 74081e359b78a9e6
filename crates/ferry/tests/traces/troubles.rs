//! A collector that is no help delays nobody.

use crate::collector::Collector;
use crate::harness::Ferry;
use crate::{Traced, granted, until};

/// Where spans go, with little room for those that wait.
fn little_room(endpoint: &str) -> Vec<(&'static str, String)> {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

async fn start(ferry: &Ferry, environment: &[(&'static str, String)]) -> Traced {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Traced::start(ferry, "storage", &[], &environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_delays_neither_requests_nor_the_end() {
    let (collector, address) = Collector::start().await;
    collector.hang();
    let ferry = Ferry::new();
    let mut environment = little_room(&format!("http://{address}"));
    // Whoever waited for it would wait for longer than the test.
    environment.push(("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000".to_owned()));
    let server = start(&ferry, &environment).await;
    granted(server.get("/v2/")).await;
    until("the collector is asked", || collector.asked() == 1).await;
    for _ in 0..300 {
        granted(server.get("/v2/")).await;
    }
    assert_eq!(collector.asked(), 1, "it still has the first request");
    let said = server.stop().await;
    assert!(said.contains("not all spans of traces could be sent"), "{said}");
    assert!(said.contains("lost=301"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn that_traces_are_refused_is_said_once_and_that_they_are_not_any_more() {
    let (collector, address) = Collector::start().await;
    collector.refuse(true);
    let ferry = Ferry::new();
    let mut environment = little_room(&format!("http://hunter:hunter2@{address}"));
    environment.push(("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()));
    let server = start(&ferry, &environment).await;
    for requests in 1..=3 {
        granted(server.get("/v2/")).await;
        until("it is refused", || collector.asked() >= requests).await;
    }
    collector.refuse(false);
    granted(server.get("/v2/")).await;
    until("it is taken", || !collector.batches().is_empty()).await;
    until("that is said", || server.said().contains("traces are sent again")).await;
    let said = server.stop().await;
    let cannot = said.lines().filter(|line| line.contains("traces cannot be sent")).collect::<Vec<_>>();
    assert_eq!(cannot.len(), 1, "{said}");
    assert!(cannot[0].contains("400 Bad Request") && cannot[0].contains(&address.to_string()), "{said}");
    let again = said.lines().find(|line| line.contains("traces are sent again")).unwrap();
    assert!(again.contains("lost=3"), "{said}");
    assert!(!said.contains("hunter"), "{said}");
    let (headers, body) = collector.batches().remove(0);
    assert_eq!((headers["content-encoding"].as_bytes(), &body[..2]), (&b"gzip"[..], &b"\x1f\x8b"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_possible_is_said_and_no_reason_not_to_serve() {
    let ferry = Ferry::new();
    for (name, value, expected) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "no traces are sent: OTEL_EXPORTER_OTLP_PROTOCOL is grpc"),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/none.pem",
            "OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read /none.pem",
        ),
    ] {
        let mut environment = little_room("http://127.0.0.1:9");
        environment.push((name, value.to_owned()));
        let server = start(&ferry, &environment).await;
        granted(server.get("/v2/")).await;
        let said = server.stop().await;
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_that_nobody_asked_for() {
    let (collector, address) = Collector::start().await;
    let ferry = Ferry::new();
    let mut environment = little_room(&format!("http://{address}"));
    environment.push(("OTEL_SDK_DISABLED", "true".to_owned()));
    let server = start(&ferry, &environment).await;
    granted(server.get("/v2/")).await;
    assert_eq!(server.stop().await, "");
    assert_eq!(collector.asked(), 0);
}
