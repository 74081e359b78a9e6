//! Everything that stands at the address of a registry: its API, and what is beside it.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::challenges::Challenges;
use crate::redirect::Redirect;
use crate::service::{Handler, RegistryService};

/// Where it is asked whether the process runs.
const HEALTH: &str = "/healthz";

/// The API of a registry, and what is beside it.
#[derive(Clone)]
pub struct Front {
    registry: RegistryService,
    challenges: Option<Arc<Challenges>>,
    redirect: Option<Redirect>,
}

impl Front {
    /// Only the API, and `/healthz`.
    pub fn new(registry: RegistryService) -> Self {
        Self { registry, challenges: None, redirect: None }
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

    /// The answer to who has to be answered before anything else is asked.
    fn first(&self, parts: &http::request::Parts, caller: &Caller) -> Option<Response<ResponseBody>> {
        let proof = self.challenges.as_ref().and_then(|challenges| challenges.answer(parts));
        let redirect = || self.redirect.filter(|_| !caller.secure && parts.uri.path() != HEALTH);
        proof.or_else(|| redirect().and_then(|redirect| redirect.answer(parts)))
    }
}

impl Handler for Front {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let caller = Caller::at(request.extensions());
        let (mut parts, body) = request.into_parts();
        if let Some(answer) = self.first(&parts, &caller) {
            return answer;
        }
        parts.extensions.insert(caller);
        let request = Request::from_parts(parts, body);
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, HEALTH) => alive(),
            _ => self.registry.handle(request).await,
        }
    }
}

/// The process runs and answers; more is not said to whoever asks.
fn alive() -> Response<ResponseBody> {
    answer(StatusCode::OK, full("ok\n")).with(CONTENT_TYPE, "text/plain").with(CACHE_CONTROL, "no-store")
}
