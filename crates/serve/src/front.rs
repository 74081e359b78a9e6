//! Everything that stands at the address of a registry: its API, and what is beside it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Access, answer_token};
use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::challenges::Challenges;
use crate::error::Failure;
use crate::limits::Limiter;
use crate::operations::Operations;
use crate::page::Page;
use crate::redirect::Redirect;
use crate::service::{Handler, RegistryService};

/// The API of a registry, and what is beside it.
#[derive(Clone)]
pub struct Front {
    registry: RegistryService,
    access: Option<Arc<Access>>,
    limiter: Option<Arc<Limiter>>,
    page: Option<Arc<Page>>,
    challenges: Option<Arc<Challenges>>,
    redirect: Option<Redirect>,
    operations: Option<Arc<dyn Operations>>,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self {
            registry,
            access: None,
            limiter: None,
            page: None,
            challenges: None,
            redirect: None,
            operations: None,
        }
    }

    /// Asks `access` who somebody is and what they may; without it everybody may everything.
    #[must_use]
    pub fn guarded(mut self, access: Arc<Access>) -> Self {
        self.registry = self.registry.guarded(Arc::clone(&access));
        self.access = Some(access);
        self
    }

    /// Sees to what clients may take; requests that are too many do not get further. Those about the server's health are free.
    #[must_use]
    pub fn limiting(mut self, limiter: Arc<Limiter>) -> Self {
        self.registry = self.registry.limiting(Arc::clone(&limiter));
        self.limiter = Some(limiter);
        self
    }

    /// With a page for people at `/`, and what belongs to it below `/page/`.
    #[must_use]
    pub fn showing(mut self, page: Arc<Page>) -> Self {
        self.page = Some(page);
        self
    }

    /// Shows certificate authorities what is there for them, without encryption too.
    #[must_use]
    pub fn proving(mut self, challenges: Arc<Challenges>) -> Self {
        self.challenges = Some(challenges);
        self
    }

    /// Sends clients that speak plain HTTP to HTTPS, except those who look after the health of the server.
    #[must_use]
    pub fn redirecting(mut self, redirect: Redirect) -> Self {
        self.redirect = Some(redirect);
        self
    }

    /// Also `/readyz`.
    #[must_use]
    pub fn operated(mut self, operations: Arc<dyn Operations>) -> Self {
        self.operations = Some(operations);
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

    /// The answer to who looks after the health of the server.
    async fn health(&self, request: &Request<Incoming>) -> Option<Response<ResponseBody>> {
        if !reads(request.method()) {
            return None;
        }
        match request.uri().path() {
            "/healthz" => Some(plain(StatusCode::OK, "ok\n")),
            "/readyz" => Some(self.ready().await),
            _ => None,
        }
    }

    /// Whether requests should be sent here; why not is not said to whoever asks.
    async fn ready(&self) -> Response<ResponseBody> {
        let (status, text) = match &self.operations {
            Some(operations) if operations.ready().await.is_err() => {
                (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
            }
            _ => (StatusCode::OK, "ready\n"),
        };
        plain(status, text)
    }

    /// The answer to who gets no further: an authority that wants to see its proof, who has to come back encrypted, and a
    /// request that is one too many.
    fn first(&self, parts: &Parts) -> Option<Response<ResponseBody>> {
        let caller = Caller::of(&parts.extensions);
        let proof = self.challenges.as_ref().and_then(|challenges| challenges.answer(parts));
        let redirect = || self.redirect.filter(|_| !caller.secure)?.answer(parts);
        let excess = || self.limiter.as_ref()?.request(&caller).err();
        proof.or_else(redirect).or_else(|| excess().map(|excess| Failure::from(excess).into_response()))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let reads = reads(request.method());
        match (request.uri().path(), &self.page) {
            ("/token", _) => self.token(request).await,
            (path, Some(page)) if reads && (path == "/" || path.starts_with("/page/")) => {
                page.answer(&request.into_parts().0)
            }
            _ => self.registry(request).await,
        }
    }

    /// Where tokens are got, if they are.
    async fn token(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        match self.access.as_ref().filter(|access| access.gives_tokens()) {
            Some(access) => answer_token(access, request).await,
            None => self.registry.handle(request).await,
        }
    }

    /// The API, for those who are who they say. The answer's extensions tell who that is.
    async fn registry(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let Some(access) = &self.access else { return self.registry.handle(request).await };
        let (mut parts, body) = request.into_parts();
        let admitted = access.admit(&mut parts).await;
        let caller = Caller::of(&parts.extensions);
        let request = Request::from_parts(parts, body);
        let mut response = match admitted {
            Ok(()) => self.registry.handle(request).await,
            Err(failure) => self.registry.refuse(request, failure).await,
        };
        response.extensions_mut().insert(caller);
        response
    }
}

fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

impl Handler for Front {
    /// Who asked stands in the extensions of the answer.
    async fn handle(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        self.identify(&mut request);
        let caller = Caller::of(request.extensions());
        let mut response = match self.health(&request).await {
            Some(response) => response,
            None => {
                let (parts, body) = request.into_parts();
                match self.first(&parts) {
                    Some(response) => response,
                    None => self.answer(Request::from_parts(parts, body)).await,
                }
            }
        };
        // Who has logged in is known already.
        if response.extensions().get::<Caller>().is_none() {
            response.extensions_mut().insert(caller);
        }
        response
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    answer(status, full(text)).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
