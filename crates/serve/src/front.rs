//! Everything that stands at the address of a registry: its API, and what is beside it.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::service::{Handler, RegistryService};

/// The API of a registry, and what is beside it.
#[derive(Clone)]
pub struct Front {
    registry: RegistryService,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self { registry }
    }
}

impl Handler for Front {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let caller = Caller::at(request.extensions());
        request.extensions_mut().insert(caller);
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => alive(),
            _ => self.registry.handle(request).await,
        }
    }
}

/// The process runs and answers; more is not said to whoever asks.
fn alive() -> Response<ResponseBody> {
    answer(StatusCode::OK, full("ok\n")).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
