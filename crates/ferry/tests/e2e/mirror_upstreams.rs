//! How a mirror asks its upstreams: in which order, as whom, how often, and what it does with what they list.

use ferry_oci::{Digest, media_type};
use ferry_testkit::fake::{Auth, FakeRegistry, Fault, FaultRule, Kind as Asked, Login};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage, SetSpec, image_set};
use reqwest::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::harness::{Ferry, Served, check, push};
use crate::mirror_harness::*;

async fn registry(images: &[NamedImage]) -> (FakeRegistry, String) {
    let registry = FakeRegistry::start().await.unwrap();
    let host = registry.address().to_string();
    push(images, &host).await;
    registry.reset_counts();
    (registry, host)
}

/// An image for two platforms.
fn multi_platform(seed: u64) -> NamedImage {
    let image = ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::random(seed, 40_000)])
        .platform("linux/arm64", [Layer::random(seed + 1, 40_000)])
        .build();
    NamedImage { repository: "a/b".parse().unwrap(), tag: format!("v{seed}").parse().unwrap(), image }
}

/// What dockerd asks for: HEAD of the tag, the index and one of its children by digest, configuration and layers.
async fn docker_pull(mirror: &Served, named: &NamedImage) {
    let base = format!("/v2/{}", named.repository);
    let head = ask(Method::HEAD, mirror, None, &format!("{base}/manifests/{}", named.tag)).await;
    let root = named.image.root.digest().to_string();
    assert_eq!((head.status, head.header("docker-content-digest")), (StatusCode::OK, &*root));
    let index = get(mirror, &format!("{base}/manifests/{root}")).await;
    assert_eq!(&index.body[..], &named.image.root.bytes()[..]);
    let child = &named.image.root.children()[0].digest;
    let child = get(mirror, &format!("{base}/manifests/{child}")).await;
    let child = ferry_oci::Manifest::parse(Some(media_type::OCI_MANIFEST), child.body.into()).unwrap();
    for blob in child.blobs() {
        let seen = get(mirror, &format!("{base}/blobs/{}", blob.digest)).await;
        assert_eq!(Digest::sha256(&seen.body), blob.digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_pull_costs_two_counted_requests_and_a_warm_one_none() {
    let named = multi_platform(1);
    let (registry, host) = registry(std::slice::from_ref(&named)).await;
    let ferry = Ferry::new();
    let mirror = start(&ferry, "cache", &config(&host, ALWAYS_ASK)).await;
    docker_pull(&mirror, &named).await;
    assert_eq!((registry.count(Asked::ManifestGet), registry.count(Asked::ManifestHead)), (2, 0));
    docker_pull(&mirror, &named).await;
    assert_eq!((registry.count(Asked::ManifestGet), registry.count(Asked::ManifestHead)), (2, 1));
    assert_eq!(mirror.stop().await, Some(0));
    let patient = "    settings: {HOST: {freshness: {rules: [{tags: v*, for: 1h}]}}}\n";
    let patient = patient.replace("HOST", &format!("\"{host}\""));
    let mirror = start(&ferry, "cache", &config(&host, &patient)).await;
    registry.reset_counts();
    docker_pull(&mirror, &named).await;
    assert!(registry.requests().is_empty(), "believed for an hour: {:?}", registry.requests());
}

/// What is before the registry itself: it may be gone, fail, not have it, or say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn another_endpoint_answers_for_one_that_does_not() {
    let images = image_set(&SetSpec { images: 3, seed: 5, base_size: 50_000, own_size: 5_000 });
    let ferry = Ferry::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let (failing, failing_host) = registry(&images).await;
    failing.fail(FaultRule::new(Fault::status(501)).always());
    let (empty, empty_host) = registry(&[]).await;
    let (good, good_host) = registry(&images).await;
    for (name, first) in [
        ("gone", gone),
        ("failing", failing_host),
        ("empty", empty_host),
        ("silent", silent.local_addr().unwrap().to_string()),
        ("good", good_host),
    ] {
        let (itself, host) = registry(&images).await;
        let endpoints = format!("registries:\n  \"{host}\":\n    mirrors: [\"{first}\"]\n");
        let mirror = start(&ferry, name, &format!("{endpoints}{}", config(&host, ""))).await;
        check(&images, &mirror.host(), "").await;
        assert_eq!(itself.requests().is_empty(), name == "good", "{name}: {:?}", itself.requests());
        // Lists are those of the registry itself.
        get(&mirror, &format!("/v2/{}/tags/list", images[0].repository)).await;
        assert_eq!(itself.count(Asked::Listing), 1, "{name}");
        assert_eq!(mirror.stop().await, Some(0));
    }
    assert!(failing.requests().len() < 10, "it is left alone for a while: {:?}", failing.requests());
    assert!(empty.requests().len() > 3 && good.count(Asked::BlobGet) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_quota_of_an_account_is_used_up_the_next_one_asks() {
    let images: Vec<NamedImage> = (0..5)
        .map(|n| {
            let image = ImageBuilder::new(MediaTypes::Oci)
                .platform("linux/amd64", [Layer::random(n, 1000)])
                .build_single();
            NamedImage { repository: "a/b".parse().unwrap(), tag: format!("v{n}").parse().unwrap(), image }
        })
        .collect();
    let (registry, host) = registry(&images).await;
    registry.require(Auth::BasicOf(vec![Login::new("one", "hunter1"), Login::new("two", "hunter2")]));
    registry.quota(2, 21_600);
    let ferry = Ferry::new();
    for account in ["one", "two"] {
        std::fs::write(ferry.path(account), format!("hunter{}", if account == "one" { 1 } else { 2 }))
            .unwrap();
    }
    let accounts = format!(
        "registries:\n  \"{host}\":\n    accounts:\n    - {{username: one, password: {{file: one}}}}\n    \
         - {{username: two, password: {{file: two}}}}\n"
    );
    let mirror = start(&ferry, "cache", &format!("{accounts}{}", config(&host, ALWAYS_ASK))).await;
    for named in &images[..4] {
        let seen = get(&mirror, &format!("/v2/a/b/manifests/{}", named.tag)).await;
        assert_eq!(&seen.body[..], &named.image.root.bytes()[..], "{}: {}", named.tag, seen.text());
    }
    let limited = get(&mirror, "/v2/a/b/manifests/v4").await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS, "{}", limited.text());
    assert!(limited.header("retry-after").parse::<u64>().unwrap() > 60);
    for named in &images[..4] {
        let seen = get(&mirror, &format!("/v2/a/b/manifests/{}", named.tag)).await;
        assert_eq!(seen.status, StatusCode::OK, "what is here needs no quota");
    }
}

/// Where the upstream sends us is where clients are sent, if the operator wants it; nothing of that is kept.
#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_to_where_the_blobs_are() {
    let named = one(100_000);
    let digest = layer(&named.image);
    let ((origin, origin_host), (upstream, host)) =
        (registry(std::slice::from_ref(&named)).await, registry(std::slice::from_ref(&named)).await);
    let elsewhere = Fault::Redirect { to: format!("http://{origin_host}") };
    upstream.fail(FaultRule::new(elsewhere).method("GET").path("/blobs/").always());
    let ferry = Ferry::new();
    let more = format!("    settings: {{\"{host}\": {{blobs: redirect}}}}\n");
    let mirror = start(&ferry, "cache", &config(&host, &more)).await;
    let path = format!("/v2/a/b/blobs/{digest}");
    let head = ask(Method::HEAD, &mirror, None, &path).await;
    let size = named.image.blobs[&digest].len().to_string();
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, &*size));
    let _ = http();
    let stays =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    for range in [None, Some("bytes=5-")] {
        let mut request = stays.get(format!("http://{}{path}", mirror.host()));
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let sent = request.send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(sent.headers()["location"], format!("http://{origin_host}{path}").as_str());
        assert_eq!(sent.headers()["cache-control"], "no-store");
    }
    for _ in 0..2 {
        assert_eq!(Digest::sha256(&get(&mirror, &path).await.body), digest, "whoever follows gets it");
    }
    let ranges: Vec<_> = origin.requests().into_iter().filter_map(|request| request.range).collect();
    assert!(ranges.iter().all(|range| range == "bytes=0-0") && !ranges.is_empty(), "{ranges:?}");
    // What is not there is not there, and what the upstream sends itself comes through us and is kept.
    let absent = get(&mirror, &format!("/v2/a/b/blobs/{}", Digest::sha256(b"absent"))).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    upstream.heal();
    assert_eq!(get(&mirror, &path).await.header("cache-status"), "ferry; fwd=miss");
    while get(&mirror, &path).await.header("cache-status") != "ferry; hit" {}
}

/// A registry that only points at another one, whose challenge names a token service there.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_only_points_at_another_one_is_mirrored() {
    let images = image_set(&SetSpec { images: 2, seed: 9, base_size: 50_000, own_size: 5_000 });
    let ((real, real_host), (vanity, host)) = (registry(&images).await, registry(&[]).await);
    real.require(Auth::Bearer { login: None, lifetime: std::time::Duration::from_secs(300) });
    vanity.fail(FaultRule::new(Fault::Redirect { to: format!("http://{real_host}") }).always());
    let ferry = Ferry::new();
    let mirror = start(&ferry, "cache", &config(&host, "")).await;
    check(&images, &mirror.host(), "").await;
    assert!(real.count(Asked::Token) > 0);
    let tags = get(&mirror, &format!("/v2/{}/tags/list", images[0].repository)).await;
    assert_eq!(tags.status, StatusCode::OK, "{}", tags.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_not_listed_if_the_operator_does_not_want_it() {
    let named = one(1000);
    let (registry, host) = registry(std::slice::from_ref(&named)).await;
    let ferry = Ferry::new();
    let more = format!("    settings: {{\"{host}\": {{tags: off}}}}\n    hosted: [own/**]\n");
    let mirror = start(&ferry, "cache", &config(&host, &more)).await;
    for path in ["/v2/a/b/tags/list".to_owned(), format!("/v2/a/b/tags/list?ns={host}")] {
        let refused = get(&mirror, &path).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
        let text = refused.text();
        assert!(
            text.contains("UNSUPPORTED") && text.contains(&format!("does not list the tags of {host}")),
            "{text}"
        );
    }
    assert_eq!(registry.count(Asked::Listing), 0);
    check(std::slice::from_ref(&named), &mirror.host(), "").await;
    push(&[NamedImage { repository: "own/c".parse().unwrap(), ..named }], &mirror.host()).await;
    assert_eq!(get(&mirror, "/v2/own/c/tags/list").await.text(), r#"{"name":"own/c","tags":["v1"]}"#);
}

/// Pages, filters, ages; and what is shown when the upstream is gone, by a new process as well.
#[tokio::test(flavor = "multi_thread")]
async fn tags_and_referrers_pass_through_and_stay() {
    let named = one(1000);
    let tags = ["a", "b", "c"].map(|tag| NamedImage { tag: tag.parse().unwrap(), ..named.clone() });
    let ferry = Ferry::new();
    let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
    push(&tags, &upstream.host()).await;
    let signature = Image::artifact(&named.image.root, "application/vnd.example.signature", "signed");
    let writer = crate::harness::remote(&upstream.host());
    let writer = crate::harness::writer(&*writer, &named.repository);
    signature.push_to(&*writer, None).await.unwrap();
    let host = upstream.host();
    let mirror = start(&ferry, "cache", &config(&host, ALWAYS_ASK)).await;
    let ns = format!("ns={}", host.replace(':', "%3A"));
    let first = format!("/v2/a/b/tags/list?{ns}&n=2");
    let subject = named.image.root.digest();
    let all = format!("/v2/a/b/referrers/{subject}");
    let filtered = format!("{all}?artifactType=application/vnd.example.signature");
    let ask_all = async |mirror: &Served, how: &str| {
        let seen = get(mirror, &first).await;
        assert_eq!(seen.text(), r#"{"name":"a/b","tags":["a","b"]}"#);
        assert_eq!((seen.header("cache-status"), seen.header("oci-namespace")), (how, &*host));
        assert!(seen.header("age").parse::<u64>().is_ok());
        let next = seen.header("link").strip_prefix('<').unwrap().split_once('>').unwrap().0.to_owned();
        assert!(next.contains("last=") && next.contains("n=2") && next.contains("ns="), "{next}");
        assert_eq!(get(mirror, &next).await.text(), r#"{"name":"a/b","tags":["c"]}"#);
        for path in [&all, &filtered] {
            let seen = get(mirror, path).await;
            assert_eq!((seen.status, seen.header("cache-status")), (StatusCode::OK, how), "{path}");
            assert!(seen.text().contains(&signature.root.digest().to_string()), "{path}");
            assert_eq!(seen.header("oci-filters-applied").is_empty(), path == &all);
        }
    };
    ask_all(&mirror, "ferry; fwd=miss").await;
    ask_all(&mirror, "ferry; fwd=stale").await;
    upstream.kill().await;
    ask_all(&mirror, "ferry; hit; detail=stale").await;
    assert_eq!(mirror.stop().await, Some(0));
    let again = start(&ferry, "cache", &config(&host, ALWAYS_ASK)).await;
    ask_all(&again, "ferry; hit; detail=stale").await;
    assert_eq!(again.stop().await, Some(0));
    let believing = start(&ferry, "cache", &config(&host, "    freshness: {moving: 1h}\n")).await;
    ask_all(&believing, "ferry; hit").await;
}

/// A mirror that asks another mirror, which is asked by name or by namespace.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_asks_another_as_any_registry() {
    let images = image_set(&SetSpec::small(2, 3));
    let ferry = Ferry::new();
    let (registry, host) = registry(&images).await;
    let inner = start(&ferry, "inner", &config(&host, "")).await;
    let outer = start(&ferry, "outer", &config(&inner.host(), "")).await;
    let ns = inner.host();
    for named in &images {
        let NamedImage { repository, tag, image } = named;
        for path in [
            format!("/v2/{repository}/manifests/{tag}?ns={ns}"),
            format!("/v2/{}/{repository}/manifests/{tag}?ns={ns}", prefix(&host)),
            format!("/v2/{}/{}/{repository}/manifests/{tag}", prefix(&ns), prefix(&host)),
        ] {
            let seen = get(&outer, &path).await;
            assert_eq!((seen.status, &seen.body[..]), (StatusCode::OK, &image.root.bytes()[..]), "{path}");
        }
    }
    let expected = check(&images, &outer.host(), "").await;
    assert_eq!(registry.count(Asked::BlobGet), expected.blobs.len());
}
