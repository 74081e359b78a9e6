//! A handler that can be exchanged while it is used.

use std::sync::{Arc, PoisonError, RwLock};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::body::ResponseBody;
use crate::service::Handler;

/// A handler in whose place another can be put: requests that have begun end with the one that they began with, and no
/// connection is closed for it. Clones are of one handler.
#[derive(Clone)]
pub struct Live<H>(Arc<RwLock<H>>);

impl<H: Handler> Live<H> {
    /// Begins with this handler.
    pub fn new(handler: H) -> Self {
        Self(Arc::new(RwLock::new(handler)))
    }

    /// Requests from now on are answered by this handler.
    pub fn replace(&self, handler: H) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = handler;
    }
}

impl<H: Handler> Handler for Live<H> {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let handler = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        handler.handle(request).await
    }
}
