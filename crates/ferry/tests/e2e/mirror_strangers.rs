//! What a mirror shows to whom, and where it never goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_testkit::fake::{FakeRegistry, Fault, FaultRule};
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::link::LinkOptions;
use reqwest::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::harness::Ferry;
use crate::mirror_harness::*;

fn other() -> NamedImage {
    let image =
        ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(99, 500)]).build_single();
    NamedImage { repository: "other/app".parse().unwrap(), tag: "v1".parse().unwrap(), image }
}

/// Whoever knows a digest does not get the blob in a repository of which the upstream does not say that it holds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_no_password() {
    let slow = LinkOptions { total_rate: Some(2_000_000), ..LinkOptions::default() };
    let at = Mirror::new(vec![one(3_000_000), other()], slow).await;
    let digest = layer(&at.images[0].image);
    let strangers = ["other/app", "nobody/here"];
    let refused = async |when: &str| {
        for name in strangers {
            for method in [Method::GET, Method::HEAD] {
                let seen = ask(method, &at.mirror, None, &format!("/v2/{name}/blobs/{digest}")).await;
                assert_eq!(seen.status, StatusCode::NOT_FOUND, "{name} {when}");
            }
        }
        for from in ["a/b".to_owned(), format!("{}/a/b", at.prefix()), "own/x".to_owned()] {
            let mount = format!("/v2/own/c/blobs/uploads/?mount={digest}&from={from}");
            let seen = ask(Method::POST, &at.mirror, None, &mount).await;
            assert_eq!(seen.status, StatusCode::ACCEPTED, "{from} {when}: its bytes are wanted");
        }
        let mount = format!("/v2/own/c/blobs/uploads/?mount={digest}");
        assert_eq!(ask(Method::POST, &at.mirror, None, &mount).await.status, StatusCode::ACCEPTED, "{when}");
        let own = get(&at.mirror, &format!("/v2/own/c/blobs/{digest}")).await;
        assert_eq!(own.status, StatusCode::NOT_FOUND, "{when}");
    };
    refused("before").await;
    let url = format!("http://{}/v2/a/b/blobs/{digest}", at.mirror.host());
    let mut pulling = http().get(url).send().await.unwrap();
    pulling.chunk().await.unwrap().unwrap();
    refused("in flight").await;
    while pulling.chunk().await.unwrap().is_some() {}
    while get(&at.mirror, &format!("/v2/a/b/blobs/{digest}")).await.header("cache-status") != "ferry; hit" {}
    refused("cached").await;
    let manifest = at.images[0].image.root.digest();
    assert_eq!(get(&at.mirror, &format!("/v2/a/b/manifests/{manifest}")).await.status, StatusCode::OK);
    for name in strangers.iter().chain(&["own/c"]) {
        let seen = get(&at.mirror, &format!("/v2/{name}/manifests/{manifest}")).await;
        assert_eq!(seen.status, StatusCode::NOT_FOUND, "{name}");
    }
}

/// Something on this machine that nobody configured; counts who comes.
async fn internal() -> (String, Arc<AtomicUsize>) {
    internal_at("127.0.0.1:0").await
}

pub async fn internal_at(at: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(at).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address.to_string(), count)
}

/// No text of a client is ever connected to, whatever it is written in.
#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_name_where_a_mirror_goes() {
    let registry = FakeRegistry::start().await.unwrap();
    let ferry = Ferry::new();
    let mirror =
        start(&ferry, "cache", &config(&registry.address().to_string(), "    domain: cr.test\n")).await;
    let (inside, visits) = internal().await;
    let port = inside.rsplit_once(':').unwrap().1.to_owned();
    for host in [
        inside.clone(),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        "169.254.169.254".to_owned(),
    ] {
        let escaped = host.replace(':', "%3A").replace('[', "%5B").replace(']', "%5D");
        for target in [
            format!("/v2/{}/a/manifests/x", host.replace(['[', ']'], "")),
            format!("/v2/{}/a/manifests/x", prefix(&host).replace(['[', ']'], "")),
            format!("/v2/a/manifests/x?ns={escaped}"),
            format!("/v2/{}/a/tags/list?ns={escaped}", host.replace(['[', ']'], "")),
            format!("/v2/a/blobs/{}?ns={escaped}", ferry_oci::Digest::sha256(b"x")),
        ] {
            let seen = get(&mirror, &target).await;
            assert!(seen.status.is_client_error(), "{target}: {}", seen.status);
        }
        let seen = ask(Method::GET, &mirror, Some(&host.replace(['[', ']'], "")), "/v2/a/manifests/x").await;
        assert!(seen.status.is_client_error(), "{host}: {}", seen.status);
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

/// Nor can an upstream send it to where it must not go: its own failure, of which clients are not told where that is.
#[tokio::test(flavor = "multi_thread")]
async fn upstreams_cannot_send_a_mirror_inside() {
    let registry = FakeRegistry::start().await.unwrap();
    let ferry = Ferry::new();
    let host = registry.address().to_string();
    let redirecting = format!("    settings: {{\"{host}\": {{blobs: redirect}}}}\n");
    for (name, more) in [("proxy", ""), ("redirect", &redirecting)] {
        let mirror = start(&ferry, name, &config(&host, more)).await;
        for (n, to) in [
            "http://169.254.169.254",
            "http://10.0.0.1:5000",
            "http://192.168.1.1",
            "http://[::ffff:169.254.169.254]",
            "http://[::ffff:10.0.0.1]",
            "http://[fd00:ec2::254]",
            "http://100.100.100.200",
            "http://[64:ff9b::a9fe:a9fe]",
        ]
        .into_iter()
        .enumerate()
        {
            registry.heal();
            registry.fail(FaultRule::new(Fault::Redirect { to: to.to_owned() }).always());
            let digest = ferry_oci::Digest::sha256(to.as_bytes());
            for target in [
                format!("manifests/t{n}"),
                format!("blobs/{digest}"),
                format!("tags/list?n={}", n + 1),
                format!("referrers/{digest}"),
            ] {
                let seen = get(&mirror, &format!("/v2/a/b/{target}")).await;
                assert_eq!(seen.status, StatusCode::BAD_GATEWAY, "{name} {to} {target}: {}", seen.text());
                assert!(seen.text().contains("sends the mirror to where it does not go"), "{}", seen.text());
                assert!(!seen.text().contains("169.254") && !seen.headers.contains_key("location"));
            }
        }
    }
}
