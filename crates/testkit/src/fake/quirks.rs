//! The registry's own ways, between its faults and the API.

mod answers;
mod listings;
mod manifests;
mod uploads;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ferry_oci::Name;
use ferry_serve::{Handler, RegistryService, ResponseBody};
use ferry_store::{Repository, RepositoryMut, Scope, Store};
use http::{Request, Response};
use hyper::body::Incoming;

use super::connection::Wire;
use super::requests::{Kind, repository};
use super::{State, lock};
use crate::quirks::{Listings, Manifests, Mounts, Quirks, Uploads};

/// What a registry with quirks remembers beside its content.
#[derive(Default)]
pub(super) struct Memory {
    uploads: Mutex<uploads::Sessions>,
    pub(super) created: Mutex<HashSet<Name>>,
}

/// The API as a particular registry has it.
#[derive(Clone)]
pub(super) struct Particular {
    api: RegistryService,
    store: Arc<dyn Store>,
    state: Arc<State>,
    address: SocketAddr,
}

impl Particular {
    pub(super) fn new(store: Arc<dyn Store>, state: Arc<State>, address: SocketAddr) -> Self {
        Self { api: RegistryService::new(Arc::clone(&store)), store, state, address }
    }

    /// Answers a request that was let in.
    pub(super) async fn handle(&self, request: Request<Incoming>, wire: Arc<Wire>) -> Response<ResponseBody> {
        let quirks = self.state.quirks.get();
        let kind = Kind::of(request.method().as_str(), request.uri().path());
        let name = repository(request.uri().path()).and_then(|name| name.parse::<Name>().ok());
        let Some(name) = name else { return self.api.handle(request).await };
        if let Some(refusal) = self.unknown(&quirks, kind, &name) {
            answers::drain(request.into_body()).await;
            return refusal;
        }
        let own_uploads = quirks.mounts != Mounts::default() || quirks.uploads != Uploads::default();
        match kind {
            Kind::UploadPost if own_uploads => self.begin_upload(&quirks, &name, request).await,
            _ if own_uploads && is_upload(kind, request.uri().path()) => {
                self.go_on(&quirks.uploads, &name, request, &wire).await
            }
            Kind::Listing | Kind::Referrers if quirks.listings != Listings::default() => {
                self.list(&quirks.listings, &name, request).await
            }
            Kind::ManifestHead | Kind::ManifestGet | Kind::ManifestPut
                if quirks.manifests != Manifests::default() || quirks.listings.no_referrers =>
            {
                self.manifest(&quirks, &name, request).await
            }
            _ => self.api.handle(request).await,
        }
    }

    /// A push into a repository that was not created.
    fn unknown(&self, quirks: &Quirks, kind: Kind, name: &Name) -> Option<Response<ResponseBody>> {
        let status = quirks.manifests.must_exist?;
        let pushes = matches!(kind, Kind::UploadPost | Kind::ManifestPut);
        let unknown = pushes && !lock(&self.state.memory.created).contains(name);
        let code = if status == 403 { "DENIED" } else { "NAME_UNKNOWN" };
        unknown.then(|| answers::error(status, code, "the repository does not exist"))
    }

    fn reader(&self, name: &Name) -> Arc<dyn Repository> {
        self.store.repository(&Scope::Hosted, name)
    }

    fn writer(&self, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        self.store.writable(&Scope::Hosted, name)
    }
}

fn is_upload(kind: Kind, path: &str) -> bool {
    matches!(kind, Kind::UploadPatch | Kind::UploadPut | Kind::UploadGet)
        || kind == Kind::Delete && path.contains("/blobs/uploads/")
}
