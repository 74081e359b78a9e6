//! Large blobs over several connections.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferry_oci::{Reference, Registry};
use ferry_registry::{Anonymous, Client, ClientOptions, Site, Tls};
use ferry_storage::{FileStaging, StagingOptions};
use ferry_store::{MemoryStore, Scope, Store};
use ferry_testkit::fake::{FakeRegistry, Fault, FaultRule, Kind};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_testkit::link::{Link, LinkOptions};
use ferry_transfer::{Copier, Job, Options, Outcome, Place};
use tokio_util::sync::CancellationToken;

const SIZE: usize = 64 << 20;

fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, SIZE)]).build_single()
}

/// Copies the image into memory by way of staging and verifies it there. Returns the bytes read.
async fn copy(source: Arc<dyn Store>) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let staging = FileStaging::open(directory.path(), StagingOptions::new(SystemTime::now())).await.unwrap();
    let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let place = |id: &str, store: &Arc<dyn Store>| Place {
        id: id.into(),
        store: Arc::clone(store),
        repository: "team/app".parse().unwrap(),
    };
    let job = Job {
        source: place("source", &source),
        reference: Reference::Tag("v1".parse().unwrap()),
        target: place("target", &target),
        tag: Some("v1".parse().unwrap()),
        platforms: None,
    };
    let options = Options { staging: Some(staging), ..Options::default() };
    let copier = Copier::new(options, CancellationToken::new());
    let outcome = copier.copy(job).await;
    assert!(matches!(outcome, Outcome::Copied { .. }), "{outcome:?}");
    let repository = target.repository(&Scope::Hosted, &"team/app".parse().unwrap());
    verify(&*repository, &Reference::Tag("v1".parse().unwrap())).await.unwrap();
    assert!(
        !std::fs::read_dir(directory.path()).unwrap().any(|e| e.unwrap().file_name() != "lock"),
        "nothing stays in staging"
    );
    copier.fetched()
}

async fn push(store: &dyn Store) {
    let repository = store.writable(&Scope::Hosted, &"team/app".parse().unwrap()).unwrap();
    image().push_to(&*repository, Some(&"v1".parse().unwrap())).await.unwrap();
}

fn client(options: ClientOptions) -> Arc<Client> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::new(options, Arc::new(Anonymous)).unwrap()
}

/// A link on which each connection is slow, so that more of them bring more.
fn slow_each() -> LinkOptions {
    LinkOptions { latency: Duration::from_millis(20), rate: Some(4_000_000), ..LinkOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_ignores_ranges_is_read_through_one_connection() {
    let registry = FakeRegistry::start().await.unwrap();
    push(&*registry.store()).await;
    registry.fail(FaultRule::new(Fault::IgnoreRange).method("GET").path("/blobs/").always());
    let link = Link::start(registry.address(), slow_each()).await.unwrap();
    let fetched = copy(client(ClientOptions::default()).registry(&link.host()).unwrap()).await;
    assert!(fetched < SIZE as u64 + 100_000, "{fetched}");
    let requests = registry.requests().iter().filter(|request| request.range.is_some()).count();
    assert!(requests <= 3, "{requests}: after the first answer it is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_lose_nothing() {
    let registry = FakeRegistry::start().await.unwrap();
    push(&*registry.store()).await;
    registry
        .fail(FaultRule::new(Fault::Truncate { after: 3_000_000 }).method("GET").path("/blobs/").always());
    let link = Link::start(registry.address(), slow_each()).await.unwrap();
    let fetched = copy(client(ClientOptions::default()).registry(&link.host()).unwrap()).await;
    assert!(fetched < SIZE as u64 + 200_000, "{fetched}: no byte twice");
    assert!(registry.count(Kind::BlobGet) >= SIZE / 3_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_throttles_gets_fewer() {
    let registry = FakeRegistry::start().await.unwrap();
    push(&*registry.store()).await;
    let limited = Fault::Status { status: 429, retry_after: Some("1".to_owned()), body: String::new() };
    registry.fail(FaultRule::new(limited).method("GET").path("/blobs/").skip(3).times(3));
    let link = Link::start(registry.address(), slow_each()).await.unwrap();
    let fetched = copy(client(ClientOptions::default()).registry(&link.host()).unwrap()).await;
    assert!(fetched < SIZE as u64 + 200_000, "{fetched}");
}

mod peers {
    use ferry_testkit::peers::{DockerRegistry, RegistryOptions};

    use super::*;

    const HOST: &str = "registry.ferry.test";

    /// Over HTTP/2 all parts would share one connection; they have connections of their own, though it is offered.
    #[tokio::test(flavor = "multi_thread")]
    async fn parts_have_connections_of_their_own_where_http2_is_offered() {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let options = RegistryOptions { tls: Some((certificate, key)), ..RegistryOptions::default() };
        let registry = DockerRegistry::start_with(&options).await.unwrap();
        let tls = Tls { roots: vec![made.cert.pem().into_bytes()], ..Tls::default() };
        let usual = Site { tls, ..Site::default() };
        let named = |port: u16| -> Registry { format!("{HOST}:{port}").parse().unwrap() };
        let resolve = vec![(HOST.to_owned(), "127.0.0.1:0".parse().unwrap())];
        let options = ClientOptions { usual, resolve, ..ClientOptions::default() };
        push(&*client(options.clone()).registry(&named(registry.addr().port())).unwrap()).await;

        let link = Link::start(registry.addr(), slow_each()).await.unwrap();
        assert_eq!(offered(&made.cert.pem(), link.addr().port()).await, reqwest::Version::HTTP_2);
        link.reset_stats();
        let source = client(options).registry(&named(link.addr().port())).unwrap();
        let fetched = copy(source).await;
        let connections = link.stats().connections;
        assert!(connections > 4, "{connections}: one for questions, and those of the parts");
        assert!(fetched < SIZE as u64 + 200_000, "{fetched}");
    }

    /// The version that a client without wishes of its own gets.
    async fn offered(certificate: &str, port: u16) -> reqwest::Version {
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap()])
            .resolve(HOST, "127.0.0.1:0".parse().unwrap())
            .build()
            .unwrap();
        client.get(format!("https://{HOST}:{port}/v2/")).send().await.unwrap().version()
    }
}
