//! Everything that stands at the address of a registry: its API, and what is beside it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, answer_token};
use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::error::Failure;
use crate::limits::Limiter;
use crate::page::Page;
use crate::service::{Handler, RegistryService};

/// The API of a registry, and what is beside it.
#[derive(Clone)]
pub struct Front {
    registry: RegistryService,
    access: Option<Arc<Access>>,
    limiter: Option<Arc<Limiter>>,
    page: Option<Arc<Page>>,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self { registry, access: None, limiter: None, page: None }
    }

    /// Asks `access` who somebody is and what they may; without it everybody may everything.
    #[must_use]
    pub fn guarded(mut self, access: Arc<Access>) -> Self {
        self.registry = self.registry.guarded(Arc::clone(&access));
        self.access = Some(access);
        self
    }

    /// Counts the requests of each address; those that are too many do not get further. `/healthz` is free.
    #[must_use]
    pub fn limiting(mut self, limiter: Arc<Limiter>) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// With a page for people at `/`, and what belongs to it below `/page/`. The page takes samples until `stop` is
    /// cancelled, on the runtime that this is called on.
    #[must_use]
    pub fn showing(mut self, page: Page, stop: &CancellationToken) -> Self {
        let page = Arc::new(page);
        let (watching, stop) = (Arc::clone(&page), stop.clone());
        tokio::spawn(async move { watching.watch(stop).await });
        self.page = Some(page);
        self
    }

    /// Says who asks.
    fn identify(&self, request: &mut Request<Incoming>) {
        match &self.access {
            Some(access) => access.identify(request),
            None => {
                let caller = Caller::at(request.extensions());
                request.extensions_mut().insert(caller);
            }
        }
    }

    /// The answer to a request that is one too many.
    fn refusal(&self, request: &Request<Incoming>) -> Option<Response<ResponseBody>> {
        let excess = self.limiter.as_ref()?.request(&Caller::of(request.extensions())).err()?;
        Some(Failure::from(excess).into_response())
    }

    /// Where tokens are got, if they are.
    async fn token(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        match self.access.as_ref().filter(|access| access.gives_tokens()) {
            Some(access) => answer_token(access, request).await,
            None => self.registry.handle(request).await,
        }
    }

    /// The API, for those who are who they say.
    async fn registry(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let Some(access) = &self.access else { return self.registry.handle(request).await };
        let (mut parts, body) = request.into_parts();
        match access.admit(&mut parts).await {
            Ok(()) => self.registry.handle(Request::from_parts(parts, body)).await,
            Err(failure) => self.registry.refuse(Request::from_parts(parts, body), failure).await,
        }
    }
}

impl Handler for Front {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        self.identify(&mut request);
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && request.uri().path() == "/healthz" {
            return alive();
        }
        if let Some(refusal) = self.refusal(&request) {
            return refusal;
        }
        match (request.uri().path(), &self.page) {
            ("/token", _) => self.token(request).await,
            (path, Some(page)) if reads && (path == "/" || path.starts_with("/page/")) => {
                page.answer(&request.into_parts().0)
            }
            _ => self.registry(request).await,
        }
    }
}

/// The process runs and answers; more is not said to whoever asks.
fn alive() -> Response<ResponseBody> {
    answer(StatusCode::OK, full("ok\n")).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
