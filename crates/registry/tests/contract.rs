//! The suite that every store passes, over the network.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use ferry_oci::Registry;
use ferry_registry::{Anonymous, Client, ClientOptions};
use ferry_store::Store;
use ferry_store::contract::{Capabilities, Subject};
use ferry_testkit::fake::FakeRegistry;

fn client(host: &Registry) -> Arc<dyn Store> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = Client::new(ClientOptions::default(), Arc::new(Anonymous)).unwrap();
    client.registry(host).unwrap()
}

async fn subject() -> Subject {
    let registry = FakeRegistry::start().await.unwrap();
    let store = client(&registry.host().unwrap());
    // Uploads are not resumed yet, and a remote registry is one scope.
    let can = Capabilities {
        resumes_uploads: false,
        exclusive_uploads: false,
        scopes: false,
        ..Capabilities::default()
    };
    Subject { store, can, guard: Box::new(registry) }
}

ferry_store::contract_tests!(subject);
