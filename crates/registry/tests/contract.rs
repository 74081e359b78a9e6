//! The suite that every store passes, over the network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use ferry_oci::Registry;
use ferry_registry::{Anonymous, Client, ClientOptions};
use ferry_store::Store;
use ferry_store::contract::Capabilities;

fn client(host: &Registry) -> Arc<dyn Store> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::new(ClientOptions::default(), Arc::new(Anonymous)).unwrap();
    client.registry(host).unwrap()
}

/// What a remote registry cannot do for us: uploads are not resumed yet, and there is one scope.
const REMOTE: Capabilities = Capabilities {
    resumes_uploads: false,
    exclusive_uploads: false,
    mounts: true,
    mounts_anywhere: true,
    deletes: true,
    lists_repositories: true,
    separate_repositories: true,
    rejects_incomplete_manifests: true,
    indexes_referrers: true,
    scopes: false,
    sha512: true,
};

mod ferry {
    use ferry_store::contract::Subject;
    use ferry_testkit::fake::FakeRegistry;

    use super::{REMOTE, client};

    async fn subject() -> Subject {
        let registry = FakeRegistry::start().await.unwrap();
        let store = client(&registry.host().unwrap());
        Subject { store, can: REMOTE, guard: Box::new(registry) }
    }

    ferry_store::contract_tests!(subject);
}
