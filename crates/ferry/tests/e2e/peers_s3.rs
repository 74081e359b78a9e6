//! `ferry serve` with its content in a bucket, between clients and an S3 server that nobody here wrote.

use std::path::Path;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_store::ByteRange;
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::link::{Link, LinkOptions};
use ferry_testkit::peers::{self, BUCKET, DockerRegistry, KEY, S3Server, SECRET};
use reqwest::StatusCode;
use tokio::process::Command;

use crate::harness::{Ferry, Served, check, push, reader};
use crate::mirror_harness::get;

/// An S3 server behind a link, and the configuration of a ferry that uses it.
struct Bucket {
    ferry: Ferry,
    server: S3Server,
    link: Link,
}

impl Bucket {
    /// `more` are further fields of the bucket, `serve` of what is served.
    async fn new(more: &str, serve: &str) -> Self {
        let ferry = Ferry::new();
        let server = S3Server::start().await.unwrap();
        let link = Link::start(server.addr(), LinkOptions::default()).await.unwrap();
        let endpoint = link.addr();
        let config = format!(
            "serve:\n  storage: mirror\n  listen: 127.0.0.1:0\n  content:\n    s3:\n      bucket: {BUCKET}\n      \
             endpoint: http://{endpoint}\n      prefix: of/ferry\n      access_key: {{file: id}}\n      \
             secret_key: {{file: key}}\n{more}{serve}"
        );
        std::fs::write(ferry.path("ferry.yaml"), config).unwrap();
        std::fs::write(ferry.path("id"), KEY).unwrap();
        std::fs::write(ferry.path("key"), format!("{SECRET}\n")).unwrap();
        Self { ferry, server, link }
    }

    async fn serve(&self) -> Served {
        self.ferry.serve_with(&["--config", "ferry.yaml", "serve"]).await
    }

    /// Waits until nothing is left in the storage directory.
    async fn uploaded(&self) {
        while !files(&self.ferry.path("mirror/blobs")).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn image(size: usize) -> NamedImage {
    let image = ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(5, size)]).build();
    NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image }
}

async fn skopeo(name: &str, to: &Path, root: Digest) {
    let (from, to) = (format!("docker://{name}:v1"), format!("oci:{}:v1", to.display()));
    let arguments = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &from, &to];
    let output = peers::skopeo(&arguments).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = peers::skopeo(["inspect", "--raw", &to]).await.unwrap();
    assert_eq!(Digest::sha256(&output.stdout), root, "{name}");
}

/// skopeo pushes, and pulls from the bucket over a redirect; curl follows it too; `ferry storage` looks after it.
#[tokio::test(flavor = "multi_thread")]
async fn clients_are_led_to_the_bucket() {
    let bucket = Bucket::new("      redirect: {expires: 10m}\n", "").await;
    let served = bucket.serve().await;
    let named = image(3_000_000);
    push(std::slice::from_ref(&named), &served.host()).await;
    bucket.uploaded().await;
    let name = format!("{}/team/app", served.host());
    skopeo(&name, &bucket.ferry.path("pulled"), named.image.root.digest()).await;
    let (copied, to) =
        (format!("oci:{}:v1", bucket.ferry.path("pulled").display()), format!("docker://{name}:v2"));
    let pushed = peers::skopeo(["copy", "--all", "--dest-tls-verify=false", &copied, &to]).await.unwrap();
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let digest = named.image.blobs.keys().next().unwrap();
    let url = format!("http://{}/v2/team/app/blobs/{digest}", served.host());
    let curl = async |arguments: &[&str]| {
        Command::new("curl").arg("-s").args(arguments).output().await.unwrap().stdout
    };
    let head = String::from_utf8(curl(&["-D", "-", "-o", "/dev/null", &url]).await).unwrap();
    assert!(head.starts_with("HTTP/1.1 307") && head.contains("X-Amz-Expires=600"), "{head}");
    assert!(head.to_lowercase().contains("cache-control: no-store"), "{head}");
    assert_eq!(Digest::sha256(&curl(&["-L", &url]).await), *digest);
    assert_eq!(served.stop().await, Some(0));
    let checked = bucket.ferry.run(&["--config", "ferry.yaml", "storage", "check"]).await.ok();
    assert!(checked.out.contains(" 0 findings"), "{}", checked.out);
    let collected =
        bucket.ferry.run(&["--config", "ferry.yaml", "storage", "gc", "--grace", "1h"]).await.ok();
    assert!(collected.out.contains("removed 0 files"), "{}", collected.out);
    bucket.ferry.run(&["--config", "ferry.yaml", "storage", "stats"]).await.ok();
}

/// A mirror keeps what it fetched in the bucket; without the bucket what is cold still comes through, and what comes is kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_keeps_what_it_fetched_in_the_bucket() {
    let upstream = DockerRegistry::start().await.unwrap();
    let host = upstream.host().to_string();
    let serve = format!(
        "  mirror:\n    upstreams: [\"{host}\"]\n    default: \"{host}\"\n    freshness: {{moving: 1h}}\n"
    );
    let bucket = Bucket::new("", &serve).await;
    let (warm, mut cold) = (image(3_000_000), image(2_000_000));
    cold.repository = "team/cold".parse().unwrap();
    push(&[warm.clone(), cold.clone()], &host).await;
    let mirror = bucket.serve().await;
    skopeo(&format!("{}/team/app", mirror.host()), &bucket.ferry.path("cold"), warm.image.root.digest())
        .await;
    bucket.uploaded().await;
    let digest = warm.image.blobs.keys().next().unwrap();
    let seen = get(&mirror, &format!("/v2/team/app/blobs/{digest}")).await;
    assert_eq!((seen.status, seen.header("cache-status")), (StatusCode::OK, "ferry; hit"));
    skopeo(&format!("{}/team/app", mirror.host()), &bucket.ferry.path("warm"), warm.image.root.digest())
        .await;
    bucket.link.cut(true);
    skopeo(&format!("{}/team/cold", mirror.host()), &bucket.ferry.path("through"), cold.image.root.digest())
        .await;
    drop(upstream);
    skopeo(&format!("{}/team/cold", mirror.host()), &bucket.ferry.path("pending"), cold.image.root.digest())
        .await;
    bucket.link.cut(false);
    bucket.uploaded().await;
    skopeo(&format!("{}/team/cold", mirror.host()), &bucket.ferry.path("alone"), cold.image.root.digest())
        .await;
    skopeo(&format!("{}/team/app", mirror.host()), &bucket.ferry.path("alone2"), warm.image.root.digest())
        .await;
    mirror.stop().await;
}

/// Whoever has a limit on speed or bytes gets all bytes from ferry; who has none any more is led to the bucket.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_limited_is_not_led_to_the_bucket() {
    let upstream = DockerRegistry::start().await.unwrap();
    let host = upstream.host().to_string();
    let serve =
        format!("  mirror:\n    upstreams: [\"{host}\"]\n    default: \"{host}\"\n    hosted: own/**\n");
    let bucket = Bucket::new("      redirect: {expires: 10m}\n", &serve).await;
    let config = std::fs::read_to_string(bucket.ferry.path("ferry.yaml")).unwrap();
    let limited = |limits: &str| {
        std::fs::write(bucket.ferry.path("ferry.yaml"), format!("{config}  limits: {limits}\n")).unwrap();
    };
    limited("{daily: {per_address: {bytes: 10GB}}}");
    let (fetched, mut own) = (image(300_000), image(200_000));
    own.repository = "own/app".parse().unwrap();
    push(std::slice::from_ref(&fetched), &host).await;
    let mirror = bucket.serve().await;
    push(std::slice::from_ref(&own), &mirror.host()).await;
    skopeo(&format!("{}/team/app", mirror.host()), &bucket.ferry.path("cold"), fetched.image.root.digest())
        .await;
    bucket.uploaded().await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let client = client.build().unwrap();
    let led = async || {
        let mut led = [false; 2];
        for (one, led) in [&fetched, &own].into_iter().zip(&mut led) {
            let digest = one.image.blobs.keys().next().unwrap();
            let url = format!("http://{}/v2/{}/blobs/{digest}", mirror.host(), one.repository);
            let status = client.get(url).send().await.unwrap().status();
            assert!(matches!(status.as_u16(), 200 | 307), "{status}");
            *led = status == StatusCode::TEMPORARY_REDIRECT;
        }
        led
    };
    assert_eq!(led().await, [false, false]);
    limited("{requests: {per_minute: 6000}}");
    mirror.hang_up().await;
    while led().await != [true, true] {}
    limited("{speed: {per_address: 100MB/s}}");
    mirror.hang_up().await;
    while led().await != [false, false] {}
    assert_eq!(mirror.stop().await, Some(0));
}

/// Killed in the middle of the upload to the bucket: nothing is lost, nothing is half, and the next process goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_an_upload_loses_nothing() {
    let bucket = Bucket::new("", "").await;
    let named = image(40_000_000);
    let mut served = bucket.serve().await;
    // So slow that the kills come first, yet no kill comes before something was sent.
    bucket.link.set(LinkOptions { rate: Some(4_000_000), ..LinkOptions::default() });
    push(std::slice::from_ref(&named), &served.host()).await;
    for _ in 0..3 {
        bucket.link.reset_stats();
        while bucket.link.stats().bytes_up < 10_000_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        served.kill().await;
        for name in bucket.server.objects().unwrap() {
            let Some(hex) = name.strip_prefix("of/ferry/blobs/sha256/").map(|rest| &rest[3..]) else {
                continue;
            };
            let bytes = std::fs::read(bucket.server.bucket().join(&name)).unwrap();
            assert_eq!(Digest::sha256(&bytes).hex(), hex, "half an object");
        }
        served = bucket.serve().await;
        check(std::slice::from_ref(&named), &served.host(), "").await;
    }
    bucket.link.set(LinkOptions::default());
    bucket.uploaded().await;
    check(std::slice::from_ref(&named), &served.host(), "").await;
    let repository = reader(&served.host(), "team/app");
    for digest in named.image.blobs.keys() {
        repository.blob(digest, ByteRange::ALL).await.unwrap().into_bytes().await.unwrap();
    }
    served.stop().await;
}

/// A bucket is used by one directory, and who else wants it hears whose it is, before anything is bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_directory_is_refused() {
    let bucket = Bucket::new("", "").await;
    let served = bucket.serve().await;
    let second = ["--config", "ferry.yaml", "serve", "--storage", "second"];
    let refused = bucket.ferry.run(&second).await;
    assert!(refused.code != Some(0) && refused.err.contains("is using this bucket"), "{}", refused.err);
    assert_eq!(served.stop().await, Some(0));
    let refused = bucket.ferry.run(&second).await;
    assert!(refused.err.contains("belongs to another storage directory"), "{}", refused.err);
    std::fs::write(bucket.ferry.path("key"), "wrong").unwrap();
    let refused = bucket.ferry.run(&["--config", "ferry.yaml", "serve"]).await;
    assert!(refused.err.contains("the bucket refuses the access key"), "{}", refused.err);
}
