//! The same over HTTP: a registry behind a line that breaks.

use std::sync::Arc;
use std::time::Duration;

use ferry_oci::Reference;
use ferry_registry::{Anonymous, Client, ClientOptions};
use ferry_store::{ByteRange, Scope, Store};
use ferry_testkit::fake::{FakeRegistry, Kind as Asked};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_testkit::link::{Link, LinkOptions, Reset};
use ferry_transfer::{PullOptions, PullThrough};
use futures_util::future::join_all;

use crate::fixtures::*;

const SIZE: usize = 4 << 20;

struct Remote {
    registry: FakeRegistry,
    link: Link,
    mirror: Mirror,
    pull: PullThrough,
    image: Image,
}

async fn remote(options: LinkOptions) -> Remote {
    static PROVIDER: std::sync::Once = std::sync::Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    });
    let registry = FakeRegistry::start().await.unwrap();
    let image = ImageBuilder::new(MediaTypes::Oci).shared([Layer::random(1, SIZE)]).build_single();
    let writer = registry.store().writable(&Scope::Hosted, &name(APP)).unwrap();
    image.push_to(&*writer, Some(&tag("v1"))).await.unwrap();
    let link = Link::start(registry.address(), options).await.unwrap();
    let client = ClientOptions { backoff: Duration::from_millis(1), ..ClientOptions::default() };
    let client = Client::new(client, Arc::new(Anonymous)).unwrap();
    let upstream: Arc<dyn Store> = client.registry(&link.host()).unwrap();
    let mirror = Mirror::new().await;
    let pull = PullThrough::new(PullOptions { upstream, ..options_of(&mirror).await });
    Remote { registry, link, mirror, pull, image }
}

async fn options_of(mirror: &Mirror) -> PullOptions {
    options(&mirror.storage, mirror.upstream.counting.clone(), &mirror.time).await
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_are_no_error_and_cost_little() {
    let remote = remote(LinkOptions::default()).await;
    let app = remote.pull.repository(&Scope::Hosted, &name(APP));
    app.manifest(&by_tag("v1")).await.unwrap();
    let (digest, bytes) = remote.image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    remote.link.set(LinkOptions { reset: Reset::Every(200_000), ..LinkOptions::default() });
    remote.link.reset_stats();
    let readers = join_all((0..10).map(|_| read(&*app, digest, ByteRange::ALL))).await;
    for read in readers {
        assert!(read.unwrap() == *bytes);
    }
    let stats = remote.link.stats();
    assert!(stats.resets >= 20, "{}", stats.resets);
    let again = stats.bytes_down.saturating_sub(bytes.len() as u64);
    assert!(again <= stats.resets << 20, "{again} bytes for {} breaks", stats.resets);
    assert_eq!(remote.pull.figures().bytes_fetched, bytes.len() as u64, "none of them twice");
    assert_eq!(stats.count("HEAD", ""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_cold_warm_and_with_the_upstream_gone() {
    let remote = remote(LinkOptions::default()).await;
    let app = remote.pull.repository(&Scope::Hosted, &name(APP));
    verify(&*app, &by_tag("v1")).await.unwrap();
    assert_eq!(
        (remote.registry.count(Asked::ManifestGet), remote.registry.count(Asked::ManifestHead)),
        (1, 0)
    );
    assert_eq!((remote.registry.count(Asked::BlobGet), remote.registry.count(Asked::BlobHead)), (2, 0));
    settled(&remote.pull).await;
    remote.registry.reset_counts();
    verify(&*app, &by_tag("v1")).await.unwrap();
    assert!(remote.registry.requests().is_empty(), "warm");
    remote.mirror.time.pass(60);
    verify(&*app, &by_tag("v1")).await.unwrap();
    assert_eq!(remote.registry.count(Asked::ManifestHead), 1);
    assert_eq!(remote.registry.requests().len(), 1, "one that is free");
    remote.mirror.time.pass(60);
    let Remote { registry, link, .. } = remote;
    drop((registry, link));
    verify(&*app, &by_tag("v1")).await.unwrap();
    let found = app.resolve(&by_tag("v1")).await.unwrap();
    assert_eq!((found.told.stale, found.told.age), (true, Duration::from_secs(60)));
    app.resolve(&Reference::Digest(found.descriptor.digest)).await.unwrap();
}
