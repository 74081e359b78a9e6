//! Metrics for Prometheus. Labels are bounded by the configuration and the code: none is a text of a client.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ferry_oci::Registry;
use ferry_policy::access::Action;
use ferry_serve::{CacheState, Figures, Gauge as Live, Health, Record, Served};
use ferry_storage::Statistics;
use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Metrics;

use crate::answers::Asked;

/// Where the head of an answer is counted, in seconds.
const WAITS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

/// How long whole answers take: layers are long.
const TIMES: [f64; 10] = [0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0, 600.0, 3600.0];

/// What a request was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    /// Empty if it was none of an upstream.
    upstream: String,
    kind: &'static str,
    method: &'static str,
    status: &'static str,
    cache: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Upstream {
    upstream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    /// Its file, or the first of its hosts if an authority gives it.
    certificate: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    upstream: String,
    outcome: &'static str,
}

/// A family of histograms that are made in the same way.
type Times = Family<Kind, Histogram, fn() -> Histogram>;

/// What is counted as requests end.
pub(crate) struct Traffic {
    metrics: Metrics,
    requests: Family<Request, Counter>,
    bytes: Family<Upstream, Counter>,
    waits: Times,
    times: Times,
    answered: AtomicU64,
    content_bytes: AtomicU64,
}

/// What is known at the moment of asking.
pub(crate) struct Now<'a> {
    pub(crate) figures: &'a Figures,
    pub(crate) asked: Vec<(Registry, Asked)>,
    pub(crate) statistics: Option<Statistics>,
    pub(crate) connections: &'a Live,
    pub(crate) running: &'a Live,
    /// Those that are shown to clients, with when they end in seconds since 1970.
    pub(crate) certificates: Vec<(String, u64)>,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        let mut metrics = Metrics::with_prefix("ferry");
        let (requests, bytes) = (Family::default(), Family::default());
        let waits = Times::new_with_constructor(|| Histogram::new(WAITS));
        let times = Times::new_with_constructor(|| Histogram::new(TIMES));
        metrics.register("requests", "Requests that were answered", Family::clone(&requests));
        metrics.register("served_bytes", "Bytes of bodies that went to clients", Family::clone(&bytes));
        let wait = "Seconds until the head of the answer was sent";
        metrics.register("request_wait_seconds", wait, waits.clone());
        metrics.register("request_seconds", "Seconds until the answer was over", times.clone());
        Self {
            metrics,
            requests,
            bytes,
            waits,
            times,
            answered: AtomicU64::new(0),
            content_bytes: AtomicU64::new(0),
        }
    }

    /// Counts a request.
    pub(crate) fn count(&self, record: &Record) {
        let served = record.served.as_ref();
        let upstream = served.and_then(|served| served.upstream.as_ref());
        let upstream = upstream.map(ToString::to_string).unwrap_or_default();
        let kind = kind(served, record.path.as_str());
        if kind != "probe" {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        if served.is_some_and(|served| served.reference.is_some()) {
            self.content_bytes.fetch_add(record.bytes, Ordering::Relaxed);
        }
        self.bytes.get_or_create_owned(&Upstream { upstream: upstream.clone() }).inc_by(record.bytes);
        let request = Request {
            upstream,
            kind,
            method: method(&record.method),
            status: status(record.status),
            cache: record.cache.map_or("", CacheState::as_str),
        };
        self.requests.get_or_create_owned(&request).inc();
        self.waits.get_or_create_owned(&Kind { kind }).observe(record.waited.as_secs_f64());
        self.times.get_or_create_owned(&Kind { kind }).observe(record.took.as_secs_f64());
    }

    /// Requests that were answered, and bytes of manifests and blobs.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        (self.answered.load(Ordering::Relaxed), self.content_bytes.load(Ordering::Relaxed))
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn text(&self, now: &Now<'_>) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode_registry(&mut text, &self.metrics);
        let _ = encode_registry(&mut text, &present(now));
        let _ = encode_eof(&mut text);
        text
    }
}

/// What is known now, as metrics.
fn present(now: &Now<'_>) -> Metrics {
    let mut metrics = Metrics::with_prefix("ferry");
    of_process(&mut metrics, now);
    of_storage(&mut metrics, now);
    of_upstreams(&mut metrics, now);
    of_certificates(&mut metrics, &now.certificates);
    metrics
}

fn gauge(metrics: &mut Metrics, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64, AtomicI64>::default();
    gauge.set(signed(value));
    metrics.register(name, help, gauge);
}

fn counter(metrics: &mut Metrics, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64, AtomicU64>::default();
    counter.inc_by(value);
    metrics.register(name, help, counter);
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn of_process(metrics: &mut Metrics, now: &Now<'_>) {
    gauge(metrics, "uptime_seconds", "Seconds since the start", now.figures.uptime.as_secs());
    gauge(metrics, "connections", "Connections of clients", now.connections.get() as u64);
    gauge(metrics, "requests_running", "Requests that are not over", now.running.get() as u64);
    let flights = now.figures.transfers.len() as u64;
    gauge(metrics, "flights", "Blobs that are being fetched", flights);
}

fn of_storage(metrics: &mut Metrics, now: &Now<'_>) {
    let storage = &now.figures.storage;
    gauge(metrics, "storage_bytes", "Bytes of content", storage.bytes);
    gauge(metrics, "storage_objects", "Blobs and manifests", storage.objects);
    if let Some(limit) = storage.limit {
        gauge(metrics, "storage_limit_bytes", "The most bytes of content that there may be", limit);
    }
    if let Some(free) = storage.free {
        gauge(metrics, "storage_free_bytes", "Bytes that are free on the disk", free);
    }
    if let Some(statistics) = &now.statistics {
        counter(metrics, "evicted_manifests", "Manifests that were evicted", statistics.evicted);
        counter(metrics, "evicted_bytes", "Bytes of content that went with them", statistics.evicted_bytes);
        gauge(metrics, "uploads", "Uploads under way", statistics.uploads);
        gauge(metrics, "upload_bytes", "Bytes of them", statistics.upload_bytes);
    }
}

fn of_certificates(metrics: &mut Metrics, certificates: &[(String, u64)]) {
    let ends = Family::<Certificate, Gauge>::default();
    for (certificate, end) in certificates {
        ends.get_or_create_owned(&Certificate { certificate: certificate.clone() }).set(signed(*end));
    }
    let help = "When a certificate ends, in seconds since 1970; 0 while there is none";
    metrics.register("certificate_end_seconds", help, ends);
}

fn of_upstreams(metrics: &mut Metrics, now: &Now<'_>) {
    let [hits, misses, stale, fetched] = [(); 4].map(|()| Family::<Upstream, Counter>::default());
    let [up, limit, remaining] = [(); 3].map(|()| Family::<Upstream, Gauge>::default());
    for figures in &now.figures.upstreams {
        let label = Upstream { upstream: figures.registry.to_string() };
        hits.get_or_create_owned(&label).inc_by(figures.hits);
        misses.get_or_create_owned(&label).inc_by(figures.misses);
        stale.get_or_create_owned(&label).inc_by(figures.stale);
        fetched.get_or_create_owned(&label).inc_by(figures.bytes_fetched);
        let is_up = i64::from(!matches!(figures.health, Health::Failing { .. }));
        up.get_or_create_owned(&label).set(is_up);
        if let Some(quota) = figures.quota {
            limit.get_or_create_owned(&label).set(signed(quota.limit));
            remaining.get_or_create_owned(&label).set(signed(quota.remaining));
        }
    }
    metrics.register("cache_hits", "Manifests and blobs answered without asking the upstream", hits);
    metrics.register("cache_misses", "Manifests and blobs that waited for the upstream", misses);
    metrics.register("cache_stale", "Tags among the hits that the upstream did not confirm", stale);
    metrics.register("fetched_bytes", "Bytes of blobs that came from the upstream", fetched);
    metrics.register("upstream_up", "0 while an upstream fails, else 1", up);
    metrics.register("upstream_quota", "Requests that an upstream allows in a window", limit);
    metrics.register("upstream_quota_remaining", "Those that are left", remaining);
    let outcomes = Family::<Outcome, Counter>::default();
    for (registry, asked) in &now.asked {
        for (outcome, count) in asked.outcomes() {
            let label = Outcome { upstream: registry.to_string(), outcome };
            outcomes.get_or_create_owned(&label).inc_by(count);
        }
    }
    metrics.register("upstream_requests", "What upstreams were asked, by what came of it", outcomes);
}

/// What a request was, in a word.
pub(crate) fn kind(served: Option<&Served>, path: &str) -> &'static str {
    match served {
        Some(served) if served.blob => "blob",
        Some(Served { action: Action::List, .. }) => "list",
        Some(Served { reference: Some(_), .. }) => "manifest",
        Some(_) => "upload",
        None if matches!(path, "/healthz" | "/readyz") => "probe",
        None => "other",
    }
}

fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn status(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
