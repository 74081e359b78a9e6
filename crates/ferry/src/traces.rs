//! Traces of what a server does, sent to a collector of OpenTelemetry by OTLP. Only with the cargo feature `otel`.
//!
//! Whether and where to is said by the variables that OpenTelemetry names. `wanted` decides by them; what else they say
//! (headers, sampling, batches, the resource) the SDK reads itself. A request is a span (`requests`), whose attributes are those
//! of the access log; what an upstream was asked for its sake is a span below it (`upstreams`). Nobody waits for the
//! collector: spans go through a queue of bounded length to a thread of the SDK, and what does not fit is lost, which is
//! counted (`export`).

mod export;
mod requests;
mod upstreams;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use opentelemetry::{InstrumentationScope, KeyValue, global};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracerProvider};

use crate::Environment;
use export::{Client, Counted, Counting, Tally};
use wanted::Wanted;

pub(crate) use requests::{Traced, note};
pub(crate) use upstreams::TracedUpstream;

/// How long the end of the process may wait for what is still to be sent.
const FAREWELL: Duration = Duration::from_secs(5);

/// Keys of attributes that are not in the semantic conventions.
mod key {
    pub(super) const UPSTREAM: &str = "ferry.upstream";
    pub(super) const REPOSITORY: &str = "ferry.repository";
    pub(super) const REFERENCE: &str = "ferry.reference";
    pub(super) const CACHE: &str = "ferry.cache";
    pub(super) const WHOLE: &str = "ferry.whole";
    pub(super) const BYTES: &str = "ferry.bytes";
}

/// Traces that are being sent.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tally: Arc<Tally>,
}

impl Traces {
    /// Begins if the environment asks for it. What is wrong with that is said, and no reason not to serve.
    pub(crate) fn start(environment: &Environment) -> Option<Self> {
        let wanted = Wanted::of(environment).map_err(anyhow::Error::msg);
        match wanted.and_then(|wanted| wanted.map(Self::sending).transpose()) {
            Ok(traces) => {
                traces
                    .iter()
                    .for_each(|traces| note!("ferry: traces are sent to {}", traces.tally.collector()));
                traces
            }
            Err(why) => {
                note!("warning: no traces are sent: {why:#}");
                None
            }
        }
    }

    fn sending(wanted: Wanted) -> anyhow::Result<Self> {
        let tally = Arc::new(Tally::new(wanted.collector.clone()));
        let client = Client::new(&wanted, Arc::clone(&tally))?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(wanted.timeout)
            .with_http_client(client)
            .build()
            .context("OTEL_EXPORTER_OTLP_*")?;
        let batches = BatchSpanProcessor::builder(Counting::new(exporter, Arc::clone(&tally))).build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(wanted.service))
            .with_span_processor(Counted::new(batches, Arc::clone(&tally)))
            .build();
        global::set_tracer_provider(provider.clone());
        Ok(Self { provider, tally })
    }

    /// Sends what is left, as far as the collector takes it in time.
    pub(crate) async fn end(traces: Option<Self>) {
        let Some(Self { provider, tally }) = traces else { return };
        // What came of it the tally knows.
        let _ = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FAREWELL)).await;
        tally.end();
    }
}

/// Who sends the traces: `ferry`, unless the environment gives it another name.
fn resource(service: Option<String>) -> Resource {
    let usual = [KeyValue::new("service.name", "ferry"), KeyValue::new("service.version", VERSION)];
    let resource = Resource::builder_empty()
        .with_attributes(usual)
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
    match service {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What makes spans. Those of a server that sends none are nothing.
fn tracer() -> global::BoxedTracer {
    global::tracer_with_scope(InstrumentationScope::builder("ferry").with_version(VERSION).build())
}
