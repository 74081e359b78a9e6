//! Everything that stands at the address of a registry: its API, and what is beside it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::operations::Operations;
use crate::service::{Handler, RegistryService};

/// The API of a registry, and what is beside it.
#[derive(Clone)]
pub struct Front {
    registry: RegistryService,
    operations: Option<Arc<dyn Operations>>,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self { registry, operations: None }
    }

    /// Also `/readyz`.
    #[must_use]
    pub fn operated(mut self, operations: Arc<dyn Operations>) -> Self {
        self.operations = Some(operations);
        self
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
}

impl Handler for Front {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let caller = Caller::at(request.extensions());
        request.extensions_mut().insert(caller.clone());
        let mut response = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => alive(),
            (&Method::GET | &Method::HEAD, "/readyz") => self.ready().await,
            _ => self.registry.handle(request).await,
        };
        response.extensions_mut().insert(caller);
        response
    }
}

/// The process runs and answers; more is not said to whoever asks.
fn alive() -> Response<ResponseBody> {
    plain(StatusCode::OK, "ok\n")
}

fn plain(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    answer(status, full(text)).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
