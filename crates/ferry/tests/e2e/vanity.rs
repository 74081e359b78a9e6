//! A registry that only points at another one, whose challenge names a token service at yet another place, as
//! registry.k8s.io does.

use std::sync::atomic::Ordering;

use ferry_registry::Site;
use ferry_testkit::fake::{FakeRegistry, Fault, FaultRule, Kind as Asked};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::link::{Link, LinkOptions};
use ferry_testkit::peers::Squid;
use reqwest::StatusCode;

use crate::harness::{Ferry, Served};
use crate::mirror_clients::PLATFORMS;
use crate::mirror_harness::{config, get, prefix, start};
use crate::mirror_strangers::internal_at;
use crate::peers_accounts::{Guarded, push_known};

/// A mirror of a registry that sends it on with everything.
pub struct Vanity {
    pub ferry: Ferry,
    pub image: Image,
    mirror: Served,
    registry: String,
    at: Option<(FakeRegistry, Guarded)>,
    link: Link,
    /// How many tokens were given for what was there before.
    before: usize,
}

async fn sending_to(to: String) -> FakeRegistry {
    let fake = FakeRegistry::start().await.unwrap();
    fake.fail(FaultRule::new(Fault::Redirect { to }).always());
    fake
}

impl Vanity {
    pub async fn new() -> Self {
        let ferry = Ferry::new();
        let image = ImageBuilder::new(MediaTypes::Oci)
            .platform(PLATFORMS[0], [Layer::random(1, 100_000)])
            .platform(PLATFORMS[1], [Layer::random(2, 100_000)])
            .build();
        let guarded = Guarded::start(&ferry).await;
        let (repository, tag) = ("public/app".parse().unwrap(), "1.2".parse().unwrap());
        let named = NamedImage { repository, tag, image: image.clone() };
        push_known(&guarded.host(), Site::default(), &named).await;
        let before = guarded.server.asked().len();
        let link = Link::start(guarded.registry.addr(), LinkOptions::default()).await.unwrap();
        let fake = sending_to(format!("http://{}", link.host())).await;
        let registry = fake.address().to_string();
        let mirror = start(&ferry, "cache", &config(&registry, "    freshness: {moving: 1h}\n")).await;
        Self { ferry, image, mirror, registry, at: Some((fake, guarded)), link, before }
    }

    /// What the image is called at the mirror.
    pub fn name(&self) -> String {
        format!("{}/{}/public/app:1.2", self.mirror.host(), prefix(&self.registry))
    }

    /// When it was cold everything came from the place that is pointed at, once, with a token that nobody in particular
    /// got; when it is warm nothing came from anywhere.
    #[track_caller]
    pub fn check(&self, store: &str) {
        let stats = self.link.stats();
        let Some((fake, guarded)) = &self.at else {
            return assert_eq!(stats.connections, 0, "{store}");
        };
        assert!(fake.count(Asked::ManifestGet) >= 3, "{:?}", fake.requests());
        assert!(fake.requests().iter().all(|request| !request.authorized), "a token is for who gave it");
        let asked = guarded.server.asked().split_off(self.before);
        assert!(asked.iter().all(|scopes| scopes == "repository:public/app:pull"), "{asked:?}");
        assert!(!asked.is_empty(), "nobody gets anything without a token");
        for digest in self.image.blobs.keys() {
            // The first request of all may have been made without a token.
            assert!(
                matches!(stats.count("GET", &digest.to_string()), 1..=2),
                "{digest} {:?}",
                stats.requests
            );
        }
    }

    /// Ends all three.
    pub fn end_upstream(&mut self) {
        self.at = None;
        self.link.reset_stats();
    }
}

/// The name under which a registry outside is reached, over a proxy.
const OUTSIDE: &str = "vanity.corp.test";

/// A registry outside that points inside is not followed, and that is its own fault: 502. `pull` says what a client said.
pub async fn refused(pull: impl AsyncFn(String) -> String) {
    // Elsewhere than the proxy, whose own address is refused for another reason.
    let (inside, visits) = internal_at("127.0.0.2:0").await;
    let fake = sending_to(format!("http://{inside}")).await;
    let proxy = Squid::start(&[OUTSIDE]).await.unwrap();
    let registry = format!("{OUTSIDE}:{}", fake.address().port());
    let at =
        format!("registries:\n  \"{registry}\": {{plain_http: true, proxy: \"http://{}\"}}\n", proxy.addr());
    let ferry = Ferry::new();
    let mirror = start(&ferry, "cache", &format!("{at}{}", config(&registry, ""))).await;
    let seen = get(&mirror, &format!("/v2/{}/public/app/manifests/v1", prefix(&registry))).await;
    assert_eq!(seen.status, StatusCode::BAD_GATEWAY, "{}", seen.text());
    let said = pull(format!("{}/{}/public/app:v1", mirror.host(), prefix(&registry))).await;
    assert!(said.contains("502") || said.contains("sends the mirror to where it does not go"), "{said}");
    assert!(fake.count(Asked::ManifestGet) + fake.count(Asked::ManifestHead) > 0, "it was asked itself");
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    let asked = proxy.requests().unwrap();
    assert!(asked.iter().all(|asked| asked.contains(OUTSIDE)) && !asked.is_empty(), "{asked:?}");
}
