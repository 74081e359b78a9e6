//! Everything that stands at the address of a registry: its API, and what is beside it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::error::Failure;
use crate::limits::Limiter;
use crate::service::{Handler, RegistryService};

/// The API of a registry, and what is beside it.
#[derive(Clone)]
pub struct Front {
    registry: RegistryService,
    limiter: Option<Arc<Limiter>>,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self { registry, limiter: None }
    }

    /// Counts the requests of each address; those that are too many do not get further. `/healthz` is free.
    #[must_use]
    pub fn limiting(mut self, limiter: Arc<Limiter>) -> Self {
        self.limiter = Some(limiter);
        self
    }

    /// The answer to a request that is one too many.
    fn refusal(&self, caller: &Caller) -> Option<Response<ResponseBody>> {
        let excess = self.limiter.as_ref()?.request(caller).err()?;
        Some(Failure::from(excess).into_response())
    }
}

impl Handler for Front {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let caller = Caller::at(request.extensions());
        request.extensions_mut().insert(caller.clone());
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => alive(),
            _ => match self.refusal(&caller) {
                Some(refusal) => refusal,
                None => self.registry.handle(request).await,
            },
        }
    }
}

/// The process runs and answers; more is not said to whoever asks.
fn alive() -> Response<ResponseBody> {
    answer(StatusCode::OK, full("ok\n")).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
