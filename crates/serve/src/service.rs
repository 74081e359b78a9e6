//! The API as a function from request to answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::Name;
use ferry_store::{Repository, RepositoryMut, Scope, Store};
use http::header::{CONTENT_TYPE, EXPECT, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use crate::answer::{Answer, Headers, answer};
use crate::body::{BoxError, ResponseBody, full};
use crate::error::Failure;
use crate::listings::Wanted;
use crate::manifests::Push;
use crate::request::RequestBody;
use crate::route::Call;
use crate::uploads::Target;
use crate::{blobs, listings, manifests, uploads};

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// So long a client may send nothing within a body.
const IDLE: Duration = Duration::from_secs(60);

/// Answers requests. Clones answer alike.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<ResponseBody>> + Send;
}

/// The distribution API in front of a store; everything is pushed and pulled under [`Scope::Hosted`].
#[derive(Clone)]
pub struct RegistryService {
    store: Arc<dyn Store>,
    idle: Duration,
}

impl RegistryService {
    /// The API in front of `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, idle: IDLE }
    }

    /// Gives up a request body when nothing has arrived for `idle` (one minute unless said otherwise); an upload can
    /// be resumed afterwards.
    #[must_use]
    pub fn idle_after(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    async fn answer(&self, parts: &Parts, body: &mut RequestBody) -> Answer {
        let call = Call::parse(&parts.method, parts.uri.path(), parts.uri.query())?;
        match call {
            Call::Ping => Ok(answer(StatusCode::OK, full("{}")).with(CONTENT_TYPE, "application/json")),
            Call::Catalog { page } => listings::catalog(self.store.as_ref(), page).await,
            Call::Tags { name, page } => listings::tags(&*self.reader(&name), &name, page).await,
            Call::Referrers { name, subject, artifact_type, page } => {
                let repository = self.reader(&name);
                listings::referrers(&*repository, Wanted { name, subject, artifact_type }, page).await
            }
            Call::ReadManifest { name, reference } => {
                manifests::read(&*self.reader(&name), &reference, parts).await
            }
            Call::PutManifest { name, reference, tags } => {
                let repository = self.writer(&name)?;
                manifests::put(&*repository, Push { name, reference, tags }, parts, body).await
            }
            Call::DeleteManifest { name, reference } => {
                manifests::delete(&*self.writer(&name)?, &reference).await
            }
            Call::ReadBlob { name, digest } => blobs::read(&*self.reader(&name), &digest, parts).await,
            Call::DeleteBlob { name, digest } => blobs::delete(&*self.writer(&name)?, &digest).await,
            Call::Begin { name, begin } => uploads::begin(&*self.writer(&name)?, &name, begin, body).await,
            Call::UploadStatus { name, token } => {
                uploads::status(&Target { repository: &*self.writer(&name)?, name: &name, token: &token })
                    .await
            }
            Call::Append { name, token } => {
                let target = Target { repository: &*self.writer(&name)?, name: &name, token: &token };
                uploads::append(&target, parts, body).await
            }
            Call::Commit { name, token, digest } => {
                let target = Target { repository: &*self.writer(&name)?, name: &name, token: &token };
                uploads::commit(&target, &digest, parts, body).await
            }
            Call::Cancel { name, token } => {
                uploads::cancel(&Target { repository: &*self.writer(&name)?, name: &name, token: &token })
                    .await
            }
        }
    }

    fn reader(&self, name: &Name) -> Arc<dyn Repository> {
        self.store.repository(&Scope::Hosted, name)
    }

    fn writer(&self, name: &Name) -> Result<Arc<dyn RepositoryMut>, Failure> {
        self.store.writable(&Scope::Hosted, name).ok_or(Failure::Unsupported("take pushes"))
    }
}

impl Handler for RegistryService {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        self.call(request).await
    }
}

impl RegistryService {
    /// Answers a request whose body need not come from a connection.
    pub async fn call<B>(&self, request: Request<B>) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (parts, incoming) = request.into_parts();
        let mut body = RequestBody::new(incoming, self.idle);
        let response = self.answer(&parts, &mut body).await.unwrap_or_else(Failure::into_response);
        // Who waits for "100 Continue" has not sent anything, and need not.
        if !parts.headers.contains_key(EXPECT) {
            body.discard().await;
        }
        let status = response.status().as_u16();
        tracing::debug!(method = %parts.method, path = shown(parts.uri.path()), status, "request");
        response.with(API_VERSION, "registry/2.0").with(X_CONTENT_TYPE_OPTIONS, "nosniff")
    }
}

/// The path without what follows `/blobs/uploads/`: who has the token may write to the upload.
fn shown(path: &str) -> &str {
    const UPLOADS: &str = "/blobs/uploads/";
    path.find(UPLOADS).map_or(path, |at| &path[..at + UPLOADS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_logged() {
        assert_eq!(shown("/v2/a/blobs/uploads/secret"), "/v2/a/blobs/uploads/");
        assert_eq!(shown("/v2/a/manifests/x"), "/v2/a/manifests/x");
    }
}
