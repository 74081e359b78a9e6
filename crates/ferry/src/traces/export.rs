//! How spans get to the collector, and what is said if they do not.

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use opentelemetry::Context;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::SpanExporter as Otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use reqwest::{Certificate, redirect};
use tokio::runtime::Handle;

use super::wanted::Wanted;

/// What became of the spans.
#[derive(Debug)]
pub(super) struct Tally {
    collector: String,
    ended: AtomicU64,
    sent: AtomicU64,
    /// Those of batches that the collector did not take.
    refused: AtomicU64,
    failing: AtomicBool,
    /// Why it failed last.
    reason: Mutex<String>,
}

impl Tally {
    pub(super) fn new(collector: String) -> Self {
        let (ended, sent, refused) = Default::default();
        Self { collector, ended, sent, refused, failing: AtomicBool::new(false), reason: Mutex::default() }
    }

    /// Host and port, nothing that could be a secret.
    pub(super) fn collector(&self) -> &str {
        &self.collector
    }

    fn because(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// A batch is over. It is said when a failure begins, and when it ends.
    fn note(&self, spans: u64, sent: bool) {
        let collector = &self.collector;
        if sent {
            self.sent.fetch_add(spans, Ordering::Relaxed);
            if self.failing.swap(false, Ordering::Relaxed) {
                let lost = self.refused.swap(0, Ordering::Relaxed);
                tracing::warn!(%collector, lost, "traces are sent again; some spans were lost");
            }
            return;
        }
        self.refused.fetch_add(spans, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
            tracing::warn!(%collector, %reason, "traces cannot be sent, and are lost until they can");
        }
    }

    /// Spans that the collector never got.
    fn lost(&self) -> u64 {
        self.ended.load(Ordering::Relaxed).saturating_sub(self.sent.load(Ordering::Relaxed))
    }

    /// Nothing is sent any more.
    pub(super) fn end(&self) {
        let lost = self.lost();
        if lost > 0 {
            tracing::warn!(collector = %self.collector, lost, "not all spans of traces could be sent");
        }
    }
}

/// Counts what is to be sent.
#[derive(Debug)]
pub(super) struct Counted {
    batches: BatchSpanProcessor,
    tally: Arc<Tally>,
}

impl Counted {
    pub(super) fn new(batches: BatchSpanProcessor, tally: Arc<Tally>) -> Self {
        Self { batches, tally }
    }
}

impl SpanProcessor for Counted {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.tally.ended.fetch_add(1, Ordering::Relaxed);
        self.batches.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Counts what was sent.
#[derive(Debug)]
pub(super) struct Counting {
    exporter: Otlp,
    tally: Arc<Tally>,
}

impl Counting {
    pub(super) fn new(exporter: Otlp, tally: Arc<Tally>) -> Self {
        Self { exporter, tally }
    }
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let exported = self.exporter.export(batch).await;
        self.tally.note(spans, exported.is_ok());
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The HTTP client of the rest of ferry, for the exporter.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    runtime: Handle,
    tally: Arc<Tally>,
}

impl Client {
    /// # Errors
    /// If the certificates cannot be read.
    pub(super) fn new(wanted: &Wanted, tally: Arc<Tally>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(wanted.timeout)
            // The headers that the environment gives may be secrets, and are for the collector alone.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("ferry/", env!("CARGO_PKG_VERSION")));
        let http = match &wanted.certificate {
            None => http,
            Some(path) => {
                let failed = || format!("OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read {}", path.display());
                let pem = std::fs::read(path).with_context(failed)?;
                http.tls_certs_only(Certificate::from_pem_bundle(&pem).with_context(failed)?)
            }
        };
        Ok(Self { http: http.build()?, runtime: Handle::current(), tally })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // A thread of the SDK waits for this, which is none of the runtime's.
        let sent = self.runtime.spawn(send(self.http.clone(), request)).await?;
        self.tally.because(match &sent {
            Ok(response) => format!("it answered {}", response.status()),
            Err(error) => error.to_string(),
        });
        Ok(sent?)
    }
}

async fn send(http: reqwest::Client, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let request = reqwest::Request::try_from(request)?;
    let response = http.execute(request).await.map_err(why)?;
    let mut head = Response::new(());
    *head.status_mut() = response.status();
    *head.headers_mut() = response.headers().clone();
    let body = response.bytes().await.map_err(why)?;
    Ok(head.map(|()| body))
}

/// What went wrong, to its cause, without the URL.
fn why(error: reqwest::Error) -> anyhow::Error {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    anyhow::Error::msg(text)
}
