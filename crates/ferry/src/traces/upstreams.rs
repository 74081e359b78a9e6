//! Spans of what upstreams are asked, below those of the requests for whose sake they are.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Registry};
use ferry_store::{
    Blob, BlobBody, ByteRange, ByteStream, Error, Kind, Page, PageRequest, Repository, RepositoryEntry,
    RepositoryMut, Resolved, Result, Scope, Store, TagEntry,
};
use futures_util::StreamExt;
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Span, SpanKind, Status, Tracer};
use opentelemetry::{Context, KeyValue};

use super::{key, tracer};

/// An upstream; what it is asked is spans. A repository belongs to the request in which it was opened, also in tasks that go on
/// without it. The upstream is a stranger, and is told nothing of this.
pub(crate) struct TracedUpstream {
    store: Arc<dyn Store>,
    registry: Registry,
}

impl TracedUpstream {
    pub(crate) fn new(store: Arc<dyn Store>, registry: Registry) -> Self {
        Self { store, registry }
    }
}

#[async_trait]
impl Store for TracedUpstream {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        let (repository, registry) = (self.store.repository(scope, name), self.registry.clone());
        Arc::new(TracedRepository { repository, registry, name: name.clone(), request: Context::current() })
    }

    fn writable(&self, _: &Scope, _: &Name) -> Option<Arc<dyn RepositoryMut>> {
        None
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.store.repositories(prefix, page).await
    }
}

struct TracedRepository {
    repository: Arc<dyn Repository>,
    registry: Registry,
    name: Name,
    request: Context,
}

impl TracedRepository {
    fn begin(&self, what: &'static str, reference: Option<&dyn Display>) -> BoxedSpan {
        let tracer = tracer();
        let reference = reference.map(|reference| KeyValue::new(key::REFERENCE, reference.to_string()));
        let attributes = [
            KeyValue::new(key::UPSTREAM, self.registry.to_string()),
            KeyValue::new(key::REPOSITORY, self.name.to_string()),
        ];
        let span = tracer.span_builder(what).with_kind(SpanKind::Client);
        let span = span.with_attributes(attributes.into_iter().chain(reference));
        span.start_with_context(&tracer, &self.request)
    }

    async fn ask<T>(
        &self,
        what: &'static str,
        reference: Option<&(dyn Display + Sync)>,
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut span = self.begin(what, reference.map(|reference| reference as &dyn Display));
        let answer = asked.await;
        if let Err(error) = &answer {
            failed(&mut span, error);
        }
        answer
    }
}

/// That there is no such thing is an answer.
fn failed(span: &mut BoxedSpan, error: &Error) {
    span.set_attribute(KeyValue::new("error.type", kind(error.kind())));
    if error.kind() != Kind::NotFound {
        span.set_status(Status::error(""));
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "not_found",
        Kind::Unauthorized => "unauthorized",
        Kind::Denied => "denied",
        Kind::Misdirected => "misdirected",
        Kind::RateLimited { .. } => "rate_limited",
        Kind::Unavailable => "unavailable",
        Kind::Stalled => "stalled",
        Kind::DigestMismatch => "digest_mismatch",
        Kind::Invalid => "invalid",
        Kind::Incomplete => "incomplete",
        Kind::Full => "full",
    }
}

/// A blob that is read. Its span ends when nobody reads any more.
struct Reading {
    span: BoxedSpan,
    bytes: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let bytes = i64::try_from(self.bytes).unwrap_or(i64::MAX);
        self.span.set_attribute(KeyValue::new(key::BYTES, bytes));
        self.span.end();
    }
}

impl Reading {
    fn of(span: BoxedSpan, stream: ByteStream) -> ByteStream {
        let mut reading = Self { span, bytes: 0 };
        Box::pin(stream.inspect(move |next| match next {
            Ok(bytes) => reading.bytes += bytes.len() as u64,
            Err(error) => failed(&mut reading.span, error),
        }))
    }
}

#[async_trait]
impl Repository for TracedRepository {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.ask("upstream tag", Some(reference), self.repository.resolve(reference)).await
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.ask("upstream manifest", Some(reference), self.repository.manifest(reference)).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.ask("upstream size", Some(digest), self.repository.stat(digest)).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let mut span = self.begin("upstream blob", Some(digest));
        let blob = self.repository.blob(digest, range).await;
        let mut blob = blob.inspect_err(|error| failed(&mut span, error))?;
        if let BlobBody::Stream(stream) = blob.body {
            blob.body = BlobBody::Stream(Reading::of(span, stream));
        }
        Ok(blob)
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        self.ask("upstream tags", None, self.repository.tags(page)).await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        let asked = self.repository.referrers(subject, artifact_type, page);
        self.ask("upstream referrers", Some(subject), asked).await
    }
}
