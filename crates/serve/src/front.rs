//! Everything that stands at the address of a registry: its API, and what is beside it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::page::Page;
use crate::service::{Handler, RegistryService};

/// The API of a registry, and what is beside it.
#[derive(Clone)]
pub struct Front {
    registry: RegistryService,
    page: Option<Arc<Page>>,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self { registry, page: None }
    }

    /// With a page for people at `/`, and what belongs to it below `/page/`. The page takes samples until `stop` is
    /// cancelled, on the runtime that this is called on.
    #[must_use]
    pub fn showing(self, page: Page, stop: &CancellationToken) -> Self {
        let page = Arc::new(page);
        let (watching, stop) = (Arc::clone(&page), stop.clone());
        tokio::spawn(async move { watching.watch(stop).await });
        Self { page: Some(page), ..self }
    }
}

impl Handler for Front {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        let caller = Caller::at(request.extensions());
        request.extensions_mut().insert(caller);
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => alive(),
            (&Method::GET | &Method::HEAD, path) if path == "/" || path.starts_with("/page/") => {
                match &self.page {
                    Some(page) => page.answer(&request.into_parts().0),
                    None => self.registry.handle(request).await,
                }
            }
            _ => self.registry.handle(request).await,
        }
    }
}

/// The process runs and answers; more is not said to whoever asks.
fn alive() -> Response<ResponseBody> {
    answer(StatusCode::OK, full("ok\n")).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
