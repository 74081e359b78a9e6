//! The API as a function from request to answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{Name, Registry};
use ferry_policy::address::Asked;
use ferry_store::{Repository, RepositoryMut, Scope, Store, UploadToken};
use http::header::{CONTENT_TYPE, EXPECT, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use crate::answer::{Answer, Headers, answer};
use crate::blobs::{self, Of};
use crate::body::{BoxError, ResponseBody, full};
use crate::caller::Served;
use crate::error::Failure;
use crate::listings::Wanted;
use crate::manifests::Push;
use crate::mirror::{self, Mirror, OCI_NAMESPACE, Place};
use crate::query::{Query, encode};
use crate::request::RequestBody;
use crate::route::{Begin, Call, Path, Spot, To, catalog, read_only};
use crate::{listings, manifests, uploads};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// So long a client may send nothing within a body.
const IDLE: Duration = Duration::from_secs(60);

/// Answers requests. Clones answer alike.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// The distribution API in front of a store; everything is pushed and pulled under [`Scope::Hosted`]. With a [`Mirror`] also in
/// front of the stores of its upstreams, which are only read.
#[derive(Clone)]
pub struct RegistryService {
    store: Arc<dyn Store>,
    mirror: Option<Arc<Mirror>>,
    idle: Duration,
}

/// The repository of a request.
struct Target<'a> {
    store: &'a dyn Store,
    name: Name,
    /// Whose it is, if it is not ours.
    upstream: Option<&'a Registry>,
    /// The namespace that the client named it by.
    namespace: Option<&'a str>,
}

impl Target<'_> {
    fn reader(&self) -> Arc<dyn Repository> {
        self.store.repository(&Scope::Hosted, &self.name)
    }

    fn writer(&self) -> Result<Arc<dyn RepositoryMut>, Failure> {
        if let Some(registry) = self.upstream {
            return Err(Failure::OnlyPulled(registry.clone()));
        }
        let writable = self.store.writable(&Scope::Hosted, &self.name);
        writable.ok_or(Failure::Unsupported("take pushes"))
    }

    fn of(&self) -> Of {
        if self.upstream.is_some() { Of::Upstream } else { Of::Ours }
    }
}

impl RegistryService {
    /// The API in front of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, mirror: None, idle: IDLE }
    }

    /// Answers for upstreams as well.
    #[must_use]
    pub fn mirroring(mut self, mirror: Mirror) -> Self {
        self.mirror = Some(Arc::new(mirror));
        self
    }

    /// Gives up a request body when nothing has arrived for `idle` (one minute unless said otherwise); an upload can
    /// be resumed afterwards.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    async fn answer(&self, parts: &Parts, body: &mut RequestBody) -> Answer {
        let path = Path::parse(parts.uri.path())?;
        if self.mirror.is_none() && !path.base.is_empty() {
            return Err(Failure::NoSuchPath);
        }
        let query = Query::parse(parts.uri.query());
        let spot = match path.to {
            To::Ping => {
                read_only(&parts.method)?;
                return Ok(answer(StatusCode::OK, full("{}")).with(CONTENT_TYPE, "application/json"));
            }
            To::Catalog => {
                return listings::catalog(self.store.as_ref(), catalog(&parts.method, &query)?).await;
            }
            To::Repository(spot) => spot,
        };
        let target = self.target(parts, path.base, &spot, &query)?;
        let call = Call::parse(&parts.method, &spot, target.name.clone(), &query);
        let served = call.as_ref().ok().map(|call| served(&target, call));
        let answered = match call {
            Ok(call) => self.call_on(&target, call, parts, body).await,
            Err(failure) => Err(failure),
        };
        let answered = match (answered, target.upstream) {
            (Err(failure), Some(registry)) => Err(failure.at_upstream(registry)),
            (answered, _) => answered,
        };
        let mut response = answered.unwrap_or_else(Failure::into_response);
        if let Some(served) = served {
            response.extensions_mut().insert(served);
        }
        Ok(match target.namespace {
            Some(namespace) => response.with(OCI_NAMESPACE, namespace),
            None => response,
        })
    }

    /// Whose repository a request means.
    fn target<'a>(
        &'a self,
        parts: &Parts,
        base: &str,
        spot: &Spot<'_>,
        query: &'a Query,
    ) -> Result<Target<'a>, Failure> {
        let own = |name| Target { store: self.store.as_ref(), name, upstream: None, namespace: None };
        let Some(mirror) = &self.mirror else { return spot.own_name().map(own) };
        let ns = query.get("ns");
        let base = Some(base.trim_matches('/'));
        let place = mirror.find(&Asked { host: mirror::host(parts), ns, base, name: spot.name })?;
        Ok(match place {
            Place::Hosted(name) => own(name),
            Place::Upstream(found) => Target {
                store: found.store.as_ref(),
                name: found.name,
                upstream: Some(found.registry),
                namespace: ns.filter(|_| found.by_namespace),
            },
        })
    }

    async fn call_on(
        &self,
        target: &Target<'_>,
        call: Call,
        parts: &Parts,
        body: &mut RequestBody,
    ) -> Answer {
        match call {
            Call::Tags { name, page } => {
                listings::tags(&*target.reader(), &name, &here(parts, target), page).await
            }
            Call::Referrers { subject, artifact_type, page, .. } => {
                let (repository, here) = (target.reader(), here(parts, target));
                listings::referrers(&*repository, Wanted { subject, artifact_type }, &here, page).await
            }
            Call::ReadManifest { reference, .. } if target.upstream.is_some() => {
                mirror::manifest(&*target.reader(), &reference, parts).await
            }
            Call::ReadManifest { reference, .. } => {
                manifests::read(&*target.reader(), &reference, parts).await
            }
            Call::ReadBlob { digest, .. } => {
                blobs::read(&*target.reader(), &digest, parts, target.of()).await
            }
            Call::PutManifest { name, reference, tags } => {
                manifests::put(&*target.writer()?, Push { name, reference, tags }, parts, body).await
            }
            Call::DeleteManifest { reference, .. } => manifests::delete(&*target.writer()?, &reference).await,
            Call::DeleteBlob { digest, .. } => blobs::delete(&*target.writer()?, &digest).await,
            Call::Begin { name, begin } => {
                uploads::begin(&*target.writer()?, &name, self.allowed(begin, parts), body).await
            }
            Call::UploadStatus { name, token } => {
                uploads::status(&upload(&*target.writer()?, &name, &token)).await
            }
            Call::Append { name, token } => {
                uploads::append(&upload(&*target.writer()?, &name, &token), parts, body).await
            }
            Call::Commit { name, token, digest } => {
                uploads::commit(&upload(&*target.writer()?, &name, &token), &digest, parts, body).await
            }
            Call::Cancel { name, token } => uploads::cancel(&upload(&*target.writer()?, &name, &token)).await,
        }
    }

    /// A blob is mounted only from where it could be pulled: a name that means an upstream or nothing here may be one that
    /// was pushed to before this was a mirror. Otherwise its bytes are wanted.
    fn allowed(&self, begin: Begin, parts: &Parts) -> Begin {
        match (&begin, &self.mirror) {
            (Begin::Mount { from, .. }, Some(mirror))
                if from.as_ref().is_none_or(|from| !mirror.hosts(mirror::host(parts), from)) =>
            {
                Begin::Session
            }
            _ => begin,
        }
    }
}

/// What a call is about.
fn served(target: &Target<'_>, call: &Call) -> Served {
    Served {
        upstream: target.upstream.cloned(),
        repository: target.name.clone(),
        reference: call.reference(),
        action: call.action(),
        blob: matches!(call, Call::ReadBlob { .. }),
        privileged: false,
    }
}

fn upload<'a>(
    repository: &'a dyn RepositoryMut,
    name: &'a Name,
    token: &'a UploadToken,
) -> uploads::Target<'a> {
    uploads::Target { repository, name, token }
}

/// What was asked for, so that the next page is asked for in the same way.
fn here(parts: &Parts, target: &Target<'_>) -> String {
    let namespace = target.namespace.map(|ns| format!("ns={}&", encode(ns))).unwrap_or_default();
    format!("{}?{namespace}", parts.uri.path())
}

impl Handler for RegistryService {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        self.call(request).await
    }
}

impl RegistryService {
    /// Answers a request whose body need not come from a connection.
    pub async fn call<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (parts, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, self.idle);
        let response = self.answer(&parts, &mut body).await.unwrap_or_else(Failure::into_response);
        // Who waits for "100 Continue" has not sent anything, and need not.
        if !parts.headers.contains_key(EXPECT) {
            body.discard().await;
        }
        let status = response.status().as_u16();
        tracing::debug!(method = %parts.method, path = shown(parts.uri.path()), status, "request");
        response.with(API_VERSION, "registry/2.0").with(X_CONTENT_TYPE_OPTIONS, "nosniff")
    }
}

/// The path without what follows `/blobs/uploads/`: who has the token may write to the upload.
pub(crate) fn shown(path: &str) -> &str {
    const UPLOADS: &str = "/blobs/uploads/";
    path.find(UPLOADS).map_or(path, |at| &path[..at + UPLOADS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_logged() {
        assert_eq!(shown("/v2/a/blobs/uploads/secret"), "/v2/a/blobs/uploads/");
        assert_eq!(shown("/v2/a/manifests/x"), "/v2/a/manifests/x");
    }
}
