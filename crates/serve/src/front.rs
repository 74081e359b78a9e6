//! Everything that stands at the address of a registry: its API, and what is beside it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{Access, answer_token};
use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::service::{Handler, RegistryService};

/// The API of a registry, and what is beside it.
#[derive(Clone)]
pub struct Front {
    registry: RegistryService,
    access: Option<Arc<Access>>,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self { registry, access: None }
    }

    /// Asks `access` who somebody is and what they may; without it everybody may everything.
    #[must_use]
    pub fn guarded(mut self, access: Arc<Access>) -> Self {
        self.registry = self.registry.guarded(Arc::clone(&access));
        self.access = Some(access);
        self
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

impl Handler for Front {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        match &self.access {
            Some(access) => access.identify(&mut request),
            None => {
                let caller = Caller::at(request.extensions());
                request.extensions_mut().insert(caller);
            }
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => alive(),
            (_, "/token") => self.token(request).await,
            _ => self.registry(request).await,
        }
    }
}

/// The process runs and answers; more is not said to whoever asks.
fn alive() -> Response<ResponseBody> {
    answer(StatusCode::OK, full("ok\n")).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
