//! What the clients of `ferry serve` may take.

use std::time::{Duration, Instant, UNIX_EPOCH};

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use reqwest::{Response, StatusCode};

use crate::harness::{Ferry, Served, push};

/// The layer is a little larger than this.
const SIZE: usize = 3 << 20;

/// In seconds.
const DAY: u64 = 24 * 60 * 60;

/// A mirror within limits, of a registry with one image.
struct Scene {
    ferry: Ferry,
    upstream: Served,
    mirror: Served,
    limits: &'static str,
}

impl Scene {
    async fn new(limits: &'static str) -> Self {
        let ferry = Ferry::new();
        let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
        let image = ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [Layer::random(3, SIZE)])
            .build_single();
        let named = NamedImage { repository: "app".parse().unwrap(), tag: "v1".parse().unwrap(), image };
        push(&[named], &upstream.host()).await;
        let mirror = start(&ferry, &upstream, limits).await;
        Self { ferry, upstream, mirror, limits }
    }

    /// Stops the mirror, and starts it again on the same storage.
    async fn restart(self) -> Self {
        assert_eq!(self.mirror.stop().await, Some(0));
        let mirror = start(&self.ferry, &self.upstream, self.limits).await;
        Self { mirror, ..self }
    }

    async fn get(&self, path: &str) -> Response {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.get(format!("http://{}{path}", self.mirror.host())).send().await.unwrap()
    }

    async fn manifest(&self) -> Response {
        self.get("/v2/app/manifests/v1").await
    }

    /// The path of the image's layer. Asks for the manifest.
    async fn layer(&self) -> String {
        let manifest = json(self.manifest().await).await;
        format!("/v2/app/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap())
    }
}

async fn start(ferry: &Ferry, upstream: &Served, limits: &str) -> Served {
    let host = upstream.host();
    let config =
        format!("serve:\n  limits: {limits}\n  mirror: {{upstreams: [\"{host}\"], default: \"{host}\"}}\n");
    std::fs::write(ferry.path("ferry.yaml"), config).unwrap();
    ferry
        .serve_with(&["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "cache"])
        .await
}

async fn json(response: Response) -> serde_json::Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// The answer says that this is too much, and when it will not be any more.
async fn refused(response: Response) -> String {
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=DAY).contains(&seconds), "{seconds}");
    let body = json(response).await;
    assert_eq!(body["errors"][0]["code"], "TOOMANYREQUESTS");
    body["errors"][0]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_speed_is_kept_to_cold_and_warm() {
    let scene = Scene::new("{speed: {per_address: 1MiB/s}}").await;
    let layer = scene.layer().await;
    for _ in 0..2 {
        let begun = Instant::now();
        let content = scene.get(&layer).await.bytes().await.unwrap();
        assert!(content.len() > SIZE);
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

/// What is counted for a day (UTC) has to be asked for within one. If this one is about to end, the next is waited for.
async fn within_a_day() {
    let rest = DAY - UNIX_EPOCH.elapsed().unwrap().as_secs() % DAY;
    if rest < 180 {
        tokio::time::sleep(Duration::from_secs(rest + 1)).await;
    }
}

#[tokio::test]
async fn a_days_manifests_are_counted_across_restarts() {
    within_a_day().await;
    let mut scene = Scene::new("{daily: {per_address: {manifests: 3}}}").await;
    for _ in 0..2 {
        assert_eq!(scene.manifest().await.status(), StatusCode::OK);
    }
    scene = scene.restart().await;
    let layer = scene.layer().await;
    let message = refused(scene.manifest().await).await;
    assert!(message.contains("daily quota of 3 manifests"), "{message}");
    // The pull that has begun can end.
    assert!(scene.get(&layer).await.bytes().await.unwrap().len() > SIZE);
    scene = scene.restart().await;
    refused(scene.manifest().await).await;
}

#[tokio::test]
async fn a_days_bytes_are_counted_across_restarts() {
    within_a_day().await;
    let mut scene = Scene::new("{daily: {per_address: {bytes: 4MiB}}}").await;
    let layer = scene.layer().await;
    for _ in 0..2 {
        assert!(scene.get(&layer).await.bytes().await.unwrap().len() > SIZE);
    }
    scene = scene.restart().await;
    let message = refused(scene.get(&layer).await).await;
    assert!(message.contains("bytes"), "{message}");
    refused(scene.manifest().await).await;
}

#[tokio::test]
async fn an_address_asks_so_often() {
    let scene = Scene::new("{requests: {per_minute: 1, burst: 5}}").await;
    for _ in 0..5 {
        assert_eq!(scene.get("/v2/").await.status(), StatusCode::OK);
    }
    let message = refused(scene.manifest().await).await;
    assert!(message.contains("1 a minute"), "{message}");
    assert_eq!(scene.get("/healthz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused_before_anything_begins() {
    let ferry = Ferry::new();
    for (limits, said) in [
        ("{speed: {total: 10B/s}}", "at least 1kB/s"),
        ("{speed: {total: 5000}}", "10MB/s"),
        ("{speed: {total: fast}}", "10MB/s"),
        ("{requests: {per_minute: 0}}", "nonzero"),
        ("{daily: {per_adress: {bytes: 1GB}}}", "per_adress"),
    ] {
        std::fs::write(ferry.path("ferry.yaml"), format!("serve:\n  limits: {limits}\n")).unwrap();
        for verb in [&["config", "check"][..], &["serve", "--storage", "s"]] {
            let mut arguments = vec!["--config", "ferry.yaml"];
            arguments.extend(verb);
            let ran = ferry.run(&arguments).await;
            assert!(ran.code != Some(0) && ran.err.contains(said), "{limits}: {ran:?}");
        }
        assert!(!ferry.path("s").exists());
    }
}
