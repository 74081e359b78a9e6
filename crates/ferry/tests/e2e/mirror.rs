//! `ferry serve` as a mirror of registries on loopback.

use std::process::Stdio;

use ferry_oci::{Digest, Reference};
use ferry_testkit::fake::{Auth, FakeRegistry, Fault, FaultRule, Login};
use ferry_testkit::images::{NamedImage, SetSpec, image_set};
use ferry_testkit::link::LinkOptions;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{Ferry, check, push};
use crate::mirror_harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_found_in_every_way_and_fetched_once() {
    let at = Mirror::new(vec![one(100_000)], LinkOptions::default()).await;
    let registry = at.link.host().to_string();
    let image = &at.images[0].image;
    let (digest, prefix) = (image.root.digest().to_string(), at.prefix());
    let mut before = "";
    for (host, name, query) in [
        (None, format!("/v2/{prefix}/a/b"), String::new()),
        (Some("corp.cr.test"), "/v2/a/b".to_owned(), String::new()),
        (None, "/v2/a/b".to_owned(), String::new()),
        (None, "/v2/a/b".to_owned(), format!("?ns={registry}")),
        (None, format!("/{prefix}/v2/a/b"), String::new()),
    ] {
        let manifest = format!("{name}/manifests/v1{query}");
        let seen = ask(Method::HEAD, &at.mirror, host, &manifest).await;
        assert_eq!((seen.status, seen.header("docker-content-digest")), (StatusCode::OK, &*digest));
        assert_eq!(seen.header("age"), "0", "{manifest}");
        let how = if before.is_empty() { "ferry; fwd=miss" } else { "ferry; fwd=stale" };
        assert_eq!(seen.header("cache-status"), how, "the tag was asked for");
        let seen = ask(Method::GET, &at.mirror, host, &manifest).await;
        assert_eq!(&seen.body[..], &image.root.bytes()[..], "{manifest}");
        assert_eq!(seen.header("oci-namespace"), if query.is_empty() { "" } else { &registry });
        for (digest, content) in &image.blobs {
            let seen = ask(Method::GET, &at.mirror, host, &format!("{name}/blobs/{digest}{query}")).await;
            assert_eq!((seen.status, &seen.body[..]), (StatusCode::OK, &content[..]));
            assert!(seen.header("cache-status").ends_with(if before.is_empty() {
                "fwd=miss"
            } else {
                "hit"
            }));
        }
        before = "fetched";
    }
    let stats = at.link.stats();
    assert_eq!(stats.count("GET", "/blobs/"), image.blobs.len(), "{:?}", stats.requests);
    assert_eq!(stats.count("GET", "/manifests/"), 1, "{:?}", stats.requests);
    assert!(stats.requests.iter().all(|request| !request.path.contains("ns=")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_can_be_pulled_when_the_upstream_is_gone() {
    let at = Mirror::new(image_set(&SetSpec::small(3, 7)), LinkOptions::default()).await;
    let Mirror { ferry, upstream, link, mirror, images } = at;
    let (host, prefix) = (link.host().to_string(), format!("{}/", prefix(link.host().as_str())));
    let expected = check(&images, &mirror.host(), &prefix).await;
    upstream.kill().await;
    link.kill_connections();
    assert_eq!(check(&images, &mirror.host(), &prefix).await, expected);
    let NamedImage { repository, tag, .. } = &images[0];
    let stale = get(&mirror, &format!("/v2/{prefix}{repository}/manifests/{tag}")).await;
    assert_eq!(stale.header("cache-status"), "ferry; hit; detail=stale");
    // Nor does a new process need it.
    assert_eq!(mirror.stop().await, Some(0));
    let again = start(&ferry, "cache", &config(&host, "")).await;
    assert_eq!(check(&images, &again.host(), &prefix).await, expected);
    let unknown = get(&again, &format!("/v2/{prefix}{repository}/manifests/other")).await;
    assert!(unknown.status == StatusCode::BAD_GATEWAY || unknown.status == StatusCode::GATEWAY_TIMEOUT);
    assert!(unknown.text().contains(&host), "{}", unknown.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_are_not_pushed_to_and_names_beside_them_are_ours() {
    let at = Mirror::new(vec![one(10_000)], LinkOptions::default()).await;
    let source = format!("{}/a/b:v1", at.upstream.host());
    for target in [format!("{}/a/c:v1", at.prefix()), "a/c:v1".to_owned()] {
        let ran = at.ferry.run(&["copy", &source, &format!("{}/{target}", at.mirror.host())]).await;
        assert_ne!(ran.code, Some(0));
        assert!(ran.out.contains("only pulled from"), "{ran:?}");
    }
    let requests = at.link.stats().requests;
    assert!(requests.iter().all(|r| ["GET", "HEAD"].contains(&r.method.as_str())), "{requests:?}");
    at.ferry.run(&["copy", &source, &format!("{}/own/c:v1", at.mirror.host())]).await.ok();
    let own = NamedImage { repository: "own/c".parse().unwrap(), ..at.images[0].clone() };
    check(&[own], &at.mirror.host(), "").await;
    assert_eq!(get(&at.mirror, "/v2/_catalog").await.text(), r#"{"repositories":["own/c"]}"#);
    let unknown = get(&at.mirror, "/v2/quay.io/a/manifests/x").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.text().contains(&format!("it knows {}", at.link.host())), "{}", unknown.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_can_be_the_upstream_of_another() {
    let at = Mirror::new(image_set(&SetSpec::small(2, 3)), LinkOptions::default()).await;
    let outer = start(&at.ferry, "outer", &config(&at.mirror.host(), "")).await;
    let prefix = format!("{}/{}/", prefix(&at.mirror.host()), at.prefix());
    let expected = check(&at.images, &outer.host(), &prefix).await;
    assert_eq!(check(&at.images, &outer.host(), "").await, expected, "the default of the default");
    let blobs: usize = expected.blobs.len();
    assert_eq!(at.link.stats().count("GET", "/blobs/"), blobs);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_cost_a_cold_blob_once() {
    const CLIENTS: usize = 30;
    let slow = LinkOptions { total_rate: Some(4_000_000), ..LinkOptions::default() };
    let at = Mirror::new(vec![one(3_000_000)], slow).await;
    let image = &at.images[0].image;
    let digest = layer(image);
    let url = format!("http://{}/v2/{}/a/b/blobs/{digest}", at.mirror.host(), at.prefix());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { http().get(url).send().await.unwrap().bytes().await.unwrap() })
        })
        .collect();
    for client in clients {
        assert_eq!(Digest::sha256(&client.await.unwrap()), digest);
    }
    let size = image.blobs[&digest].len() as u64;
    let fetched = at.link.stats().bytes_down;
    assert!((size..size + size / 50).contains(&fetched), "{fetched} bytes for {size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_come_before_the_last_were_fetched() {
    let slow = LinkOptions { total_rate: Some(500_000), ..LinkOptions::default() };
    let at = Mirror::new(vec![one(1_500_000)], slow).await;
    let image = &at.images[0].image;
    let digest = layer(image);
    let size = image.blobs[&digest].len() as u64;
    let url = format!("http://{}/v2/a/b/blobs/{digest}", at.mirror.host());
    let mut response = http().get(url).send().await.unwrap();
    assert_eq!(response.content_length(), Some(size));
    let first = response.chunk().await.unwrap().unwrap();
    let fetched = at.link.stats().bytes_down;
    assert!(fetched < size / 2, "{fetched} of {size} bytes were fetched before the client saw any");
    let mut all = first.to_vec();
    while let Some(bytes) = response.chunk().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(Digest::sha256(&all), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_without_an_end_that_clients_break_off_cost_a_cold_blob_once() {
    const PARTS: u64 = 4;
    let slow = LinkOptions { total_rate: Some(4_000_000), ..LinkOptions::default() };
    let at = Mirror::new(vec![one(3_000_000)], slow).await;
    let image = &at.images[0].image;
    let digest = layer(image);
    let content = &image.blobs[&digest];
    let (size, part) = (content.len() as u64, content.len() as u64 / PARTS);
    let url = format!("http://{}/v2/a/b/blobs/{digest}", at.mirror.host());
    // As containerd 2.1 and later do.
    let clients: Vec<_> = (0..PARTS)
        .map(|number| {
            let (url, range) = (url.clone(), format!("bytes={}-", number * part));
            tokio::spawn(async move {
                let mut response = http().get(url).header("range", range).send().await.unwrap();
                assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
                let mut read = Vec::new();
                while (read.len() as u64) < part - 64 * 1024 {
                    read.extend_from_slice(&response.chunk().await.unwrap().unwrap());
                }
                read
            })
        })
        .collect();
    for (number, client) in (0..).zip(clients) {
        let read = client.await.unwrap();
        assert_eq!(content[number * part as usize..][..read.len()], read[..]);
    }
    assert_eq!(get(&at.mirror, &format!("/v2/a/b/blobs/{digest}")).await.body, content[..]);
    let fetched = at.link.stats().bytes_down;
    // A connection that is opened far ahead may bring some of what another brings too.
    assert!((size..size + size / 4).contains(&fetched), "{fetched} bytes for {size}");
}

/// A registry that shows nothing without this account.
async fn private(images: &[NamedImage]) -> FakeRegistry {
    let registry = FakeRegistry::start().await.unwrap();
    push(images, &registry.address().to_string()).await;
    registry.require(Auth::Basic(Login::new("me", "hunter2")));
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn only_configured_accounts_are_used_and_none_is_asked_for() {
    let registry = private(&[one(10_000)]).await;
    let (ferry, host) = (Ferry::new(), registry.address().to_string());
    let login = format!(r#"{{"auths": {{"{host}": {{"auth": "bWU6aHVudGVyMg=="}}}}}}"#);
    std::fs::create_dir(ferry.path(".docker")).unwrap();
    std::fs::write(ferry.path(".docker/config.json"), login).unwrap();
    ferry.run(&["inspect", &format!("{host}/a/b:v1")]).await.ok();
    let anonymous = start(&ferry, "anonymous", &config(&host, "")).await;
    let refused = get(&anonymous, "/v2/a/b/manifests/v1").await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND, "{}", refused.text());
    assert!(refused.text().contains(&format!("{host} does not show this to the mirror")));
    assert!(!refused.headers.contains_key("www-authenticate") && !refused.text().contains("hunter2"));

    std::fs::write(ferry.path("password"), "hunter2").unwrap();
    let account = format!(
        "registries:\n  \"{host}\":\n    accounts: [{{username: me, password: {{file: password}}}}]\n"
    );
    let more = "    freshness: {moving: 0s, version_like: 0s}\n";
    let mirror = start(&ferry, "with", &format!("{account}{}", config(&host, more))).await;
    assert_eq!(get(&mirror, "/v2/a/b/manifests/v1").await.status, StatusCode::OK);
    // What an account fetched is not shown once the account may not see it any more.
    registry.require(Auth::Basic(Login::new("me", "changed")));
    let withdrawn = get(&mirror, "/v2/a/b/manifests/v1").await;
    assert_eq!(withdrawn.status, StatusCode::NOT_FOUND, "{}", withdrawn.text());
    assert!(!withdrawn.headers.contains_key("www-authenticate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_a_mirror_with_accounts_is_warned() {
    let ferry = Ferry::new();
    std::fs::write(ferry.path("password"), "hunter2").unwrap();
    let account = "registries:\n  quay.io:\n    accounts: [{username: me, password: {file: password}}]\n";
    std::fs::write(ferry.path("open.yaml"), format!("{account}serve: {{mirror: {{}}}}\n")).unwrap();
    let arguments = ["--config", "open.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "s", "--open"];
    let mut child = ferry.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let warning = lines.next_line().await.unwrap().unwrap();
    assert!(warning.contains("warning: everybody") && warning.contains("at quay.io;"), "{warning}");
    child.kill().await.unwrap();
    let refused = ferry.run(&["serve", "--mirror", "--listen", "0.0.0.0:0", "--storage", "s"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("fetch images through the mirror"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_limits_is_passed_on() {
    let registry = FakeRegistry::start().await.unwrap();
    let body = r#"{"errors":[]}"#.to_owned();
    registry.fail(
        FaultRule::new(Fault::Status { status: 429, retry_after: Some("3600".to_owned()), body })
            .path("/manifests/")
            .always(),
    );
    let ferry = Ferry::new();
    let mirror = start(&ferry, "limited", &config(&registry.address().to_string(), "")).await;
    let limited = get(&mirror, "/v2/a/b/manifests/v1").await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    let after: u64 = limited.header("retry-after").parse().unwrap();
    assert!((3000..=3600).contains(&after), "{after}");
    assert!(limited.text().contains(&registry.address().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_starts_a_mirror_and_without_it_nothing_is_mirrored() {
    let ferry = Ferry::new();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--storage", "s"];
    let plain = ferry.serve_with(&arguments).await;
    let path = "/v2/docker.io/a/tags/list";
    assert_eq!(get(&plain, path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(get(&plain, "/docker.io/v2/").await.status, StatusCode::NOT_FOUND);
    push(&[NamedImage { repository: "docker.io/a".parse().unwrap(), ..one(1000) }], &plain.host()).await;
    assert_eq!(get(&plain, path).await.text(), r#"{"name":"docker.io/a","tags":["v1"]}"#);
    assert_eq!(plain.stop().await, Some(0));
    let mirror = ferry.serve_with(&[&arguments[..], &["--mirror"]].concat()).await;
    assert_eq!(get(&mirror, "/v2/").await.status, StatusCode::OK);
    assert_eq!(get(&mirror, "/docker.io/v2/").await.status, StatusCode::OK);
    let known = get(&mirror, "/v2/evil.example/a/manifests/x").await.text();
    assert!(known.contains("docker.io, gcr.io, ghcr.io, k8s.gcr.io, mcr.microsoft.com"), "{known}");
    let digest = Reference::Digest(one(1000).image.root.digest());
    let put = ask(Method::PUT, &mirror, None, &format!("/v2/docker.io/a/manifests/{digest}")).await;
    assert_eq!(put.status, StatusCode::METHOD_NOT_ALLOWED);
}
