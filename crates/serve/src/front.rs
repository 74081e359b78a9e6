//! Everything that stands at the address of a registry: its API, and what is beside it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

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
    limiter: Option<Arc<Limiter>>,
    page: Option<Arc<Page>>,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self { registry, limiter: None, page: None }
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
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && request.uri().path() == "/healthz" {
            return alive();
        }
        if let Some(refusal) = self.refusal(&caller) {
            return refusal;
        }
        match (request.uri().path(), &self.page) {
            (path, Some(page)) if reads && (path == "/" || path.starts_with("/page/")) => {
                page.answer(&request.into_parts().0)
            }
            _ => self.registry.handle(request).await,
        }
    }
}

/// The process runs and answers; more is not said to whoever asks.
fn alive() -> Response<ResponseBody> {
    answer(StatusCode::OK, full("ok\n")).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
