//! The API as a function from request to answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{Manifest, Name, Registry};
use ferry_policy::address::Asked;
use ferry_store::{Repository, RepositoryMut, Scope, Store, UploadToken};
use http::header::{CONTENT_TYPE, EXPECT, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use crate::access::{Access, Gate, Wish};
use crate::answer::{Answer, Headers, answer};
use crate::blobs::{self, Of};
use crate::body::{BoxError, ResponseBody, full};
use crate::caller::{Caller, Served};
use crate::error::Failure;
use crate::limits::{Admitted, Limiter};
use crate::listings::{Here, Wanted};
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
    access: Option<Arc<Access>>,
    limiter: Option<Arc<Limiter>>,
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
    lists_tags: bool,
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

    /// Its tags are not listed.
    fn unlisted(&self) -> Failure {
        self.upstream
            .map_or(Failure::Unsupported("list tags"), |registry| Failure::Unlisted(registry.clone()))
    }

    fn of(&self) -> Of {
        if self.upstream.is_some() { Of::Upstream } else { Of::Ours }
    }
}

impl RegistryService {
    /// The API in front of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, mirror: None, access: None, limiter: None, idle: IDLE }
    }

    /// Answers for upstreams as well.
    #[must_use]
    pub fn mirroring(mut self, mirror: Mirror) -> Self {
        self.mirror = Some(Arc::new(mirror));
        self
    }

    /// Asks `access` about every call. Who calls has to be found out before, as [`crate::Front`] does; else it is nobody.
    #[must_use]
    pub(crate) fn guarded(mut self, access: Arc<Access>) -> Self {
        self.access = Some(access);
        self
    }

    /// Sees to speed limits and daily quotas.
    #[must_use]
    pub fn limiting(mut self, limiter: Arc<Limiter>) -> Self {
        self.limiter = Some(limiter);
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
        let gate = self.access.as_ref().map(|access| access.gate(parts));
        let gate = gate.as_ref();
        let spot = match path.to {
            To::Ping => {
                read_only(&parts.method)?;
                gate.map_or(Ok(()), Gate::ping)?;
                return Ok(answer(StatusCode::OK, full("{}")).with(CONTENT_TYPE, "application/json"));
            }
            To::Catalog => {
                let page = catalog(&parts.method, &query)?;
                gate.map_or(Ok(()), Gate::catalog)?;
                let sees = |name: &Name| self.hosts(parts, name) && gate.is_none_or(|gate| gate.sees(name));
                return listings::catalog(self.store.as_ref(), page, sees).await;
            }
            To::Repository(spot) => spot,
        };
        gate.map_or(Ok(()), |gate| gate.enter(spot.name, &parts.method))?;
        let target = self.target(parts, path.base, &spot, &query)?;
        let call = Call::parse(&parts.method, &spot, target.name.clone(), &query);
        let mut served = call.as_ref().ok().map(|call| served(&target, call));
        let admitted = call.and_then(|call| {
            if let (Some(served), Some(gate)) = (&mut served, gate) {
                served.privileged = gate.admit(&wish(&target, &spot, &call))?;
            }
            Ok((call, self.admit(parts, served.as_ref())?))
        });
        let answered = match admitted {
            Ok((call, mut admitted)) => {
                body.keep_to(admitted.take_up());
                admitted.answered(self.call_on(&target, call, parts, body).await)
            }
            Err(failure) => Err(failure),
        };
        let answered = match (answered, target.upstream) {
            (Err(failure), Some(registry)) => Err(failure.at_upstream(registry)),
            (answered, _) => answered,
        };
        let mut response = answered.unwrap_or_else(Failure::into_response);
        if let (Some(access), Some(manifest)) = (&self.access, response.extensions_mut().remove::<Manifest>())
        {
            access.learn(target.upstream, &target.name, &manifest);
        }
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
        let own = |name| Target {
            store: self.store.as_ref(),
            name,
            upstream: None,
            namespace: None,
            lists_tags: true,
        };
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
                lists_tags: found.lists_tags,
            },
        })
    }

    /// Whether the client may have an answer.
    fn admit(&self, parts: &Parts, served: Option<&Served>) -> Result<Admitted, Failure> {
        match (&self.limiter, served) {
            (Some(limiter), Some(served)) => {
                Ok(limiter.admit(&parts.method, &Caller::of(&parts.extensions), served)?)
            }
            _ => Ok(Admitted::default()),
        }
    }

    async fn call_on(
        &self,
        target: &Target<'_>,
        call: Call,
        parts: &Parts,
        body: &mut RequestBody,
    ) -> Answer {
        match call {
            Call::Tags { .. } if !target.lists_tags => Err(target.unlisted()),
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

    /// A blob is mounted only from where the client could pull it: a name that means an upstream or nothing here may be one
    /// that was pushed to before this was a mirror. Otherwise its bytes are wanted.
    fn allowed(&self, begin: Begin, parts: &Parts) -> Begin {
        let from = match &begin {
            Begin::Mount { from, .. } => from.as_ref(),
            Begin::Session | Begin::Whole(_) => return begin,
        };
        let is_open = |from| self.access.as_ref().is_none_or(|access| access.gate(parts).may_mount(from));
        let may = match from {
            Some(from) => self.hosts(parts, from) && is_open(from),
            None => self.mirror.is_none() && self.access.is_none(),
        };
        if may { begin } else { Begin::Session }
    }

    /// Whether a name is a repository of our own for whoever asks so.
    fn hosts(&self, parts: &Parts, name: &Name) -> bool {
        self.mirror.as_ref().is_none_or(|mirror| mirror.hosts(mirror::host(parts), name))
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

/// What is asked of the rules.
fn wish<'a>(target: &'a Target<'_>, spot: &Spot<'a>, call: &'a Call) -> Wish<'a> {
    Wish { addressed: spot.name, upstream: target.upstream, name: &target.name, call }
}

fn upload<'a>(
    repository: &'a dyn RepositoryMut,
    name: &'a Name,
    token: &'a UploadToken,
) -> uploads::Target<'a> {
    uploads::Target { repository, name, token }
}

/// What was asked for, so that the next page is asked for in the same way.
fn here(parts: &Parts, target: &Target<'_>) -> Here {
    let namespace = target.namespace.map(|ns| format!("ns={}&", encode(ns))).unwrap_or_default();
    Here { target: format!("{}?{namespace}", parts.uri.path()), of: target.of() }
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
        let answered = self.answer(&parts, &mut body).await;
        finish(&parts, body, answered).await
    }

    /// Answers a request that was refused before it came here.
    pub(crate) async fn refuse<B>(&self, request: Request<B>, failure: Failure) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (parts, incoming) = request.into_parts();
        finish(&parts, RequestBody::new(incoming, self.idle), Err(failure)).await
    }
}

async fn finish(parts: &Parts, mut body: RequestBody, answered: Answer) -> Response<ResponseBody> {
    let response = answered.unwrap_or_else(Failure::into_response);
    // Who waits for "100 Continue" has not sent anything, and need not.
    if !parts.headers.contains_key(EXPECT) {
        body.discard().await;
    }
    let status = response.status().as_u16();
    tracing::debug!(method = %parts.method, path = shown(parts.uri.path()), status, "request");
    response.with(API_VERSION, "registry/2.0").with(X_CONTENT_TYPE_OPTIONS, "nosniff")
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
