//! Looking after a running mirror: the admin API, what is fetched and kept by its means, metrics, logs, reloading, stopping.

use std::process::Stdio;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::link::{Link, LinkOptions};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::harness::{Ferry, Served, check, push, signal};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A mirror that is looked after, of a registry behind a link.
pub struct Looked {
    pub ferry: Ferry,
    pub link: Link,
    pub images: Vec<NamedImage>,
    pub child: Child,
    pub address: String,
    admin: String,
    _out: Lines<BufReader<ChildStdout>>,
    _upstream: Served,
}

pub fn image(tag: &str, size: usize) -> NamedImage {
    let image = ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::random(1, size)])
        .platform("linux/arm64", [Layer::random(2, size)])
        .build();
    NamedImage { repository: "a/b".parse().unwrap(), tag: tag.parse().unwrap(), image }
}

pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn status(url: String) -> StatusCode {
    http().get(url).send().await.unwrap().status()
}

/// Waits for what another process is about to do.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..2400 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not come to pass that {what}");
}

impl Looked {
    /// `more` is what is said below `serve`.
    pub async fn new(images: Vec<NamedImage>, options: LinkOptions, more: &str) -> Self {
        let ferry = Ferry::new();
        let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
        push(&images, &upstream.host()).await;
        let link = Link::start(upstream.address, options).await.unwrap();
        std::fs::write(ferry.path("token"), format!("{TOKEN}\n")).unwrap();
        configure(&ferry, link.host().as_str(), more);
        let arguments = ["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "cache"];
        let errors = std::fs::File::create(ferry.path("errors")).unwrap();
        let mut child = ferry.command(&arguments).stderr(Stdio::from(errors)).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut at = Vec::new();
        while at.len() < 2 {
            let line = out.next_line().await.unwrap().expect("it says where it listens");
            at.extend(line.rsplit_once("http://").map(|(_, at)| at.to_owned()));
        }
        let [address, admin] = at.try_into().unwrap();
        Self { ferry, link, images, child, address, admin, _out: out, _upstream: upstream }
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.ferry.path("errors")).unwrap()
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, String) {
        self.send(method, path, body.map(|body| body.to_string())).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<String>) -> (StatusCode, String) {
        let url = format!("http://{}{path}", self.admin);
        let mut request = http().request(method, url).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, text) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.ask(Method::GET, "/metrics", None).await;
        let values = text.lines().filter(|line| line.starts_with(name));
        values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }

    /// The image of this tag at the registry that it comes from.
    fn name(&self, tag: &str) -> String {
        format!("{}/a/b:{tag}", self.link.host())
    }

    /// Runs a command that speaks to the admin API.
    async fn run(&self, words: &[&str]) -> crate::harness::Ran {
        let admin = format!("http://{}", self.admin);
        let mut arguments = words.to_vec();
        arguments.extend(["--admin", &admin, "--token-file", "token"]);
        self.ferry.run(&arguments).await
    }

    /// Where a blob of the first image is, the largest.
    fn blob(&self) -> (Digest, String) {
        let blobs = &self.images[0].image.blobs;
        let digest = *blobs.iter().max_by_key(|(_, content)| content.len()).unwrap().0;
        (digest, format!("http://{}/v2/a/b/blobs/{digest}", self.address))
    }
}

pub fn configure(ferry: &Ferry, upstream: &str, more: &str) {
    let text = format!(
        "serve:\n  mirror: {{upstreams: [\"{upstream}\"], default: \"{upstream}\", freshness: {{moving: 1h}}}}\n  \
         admin: {{listen: \"127.0.0.1:0\", token: {{file: token}}}}\n{more}"
    );
    std::fs::write(ferry.path("ferry.yaml"), text).unwrap();
}

pub async fn usual() -> Looked {
    Looked::new(vec![image("v1", 50_000), image("v2", 60_000)], LinkOptions::default(), "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_knows_the_token_looks_after_a_mirror() {
    let at = usual().await;
    for path in ["/metrics", "/api/v1/figures", "/api/v1/reload", "/", "/v2/"] {
        let url = format!("http://{}{path}", at.admin);
        let without = http().get(&url).send().await.unwrap();
        assert_eq!(without.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(without.headers()["www-authenticate"], "Bearer");
        for wrong in ["x", &TOKEN[1..], &format!("{TOKEN}0")] {
            let answer = http().get(&url).bearer_auth(wrong).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path} {wrong}");
        }
        let basic = http().get(&url).basic_auth("me", Some(TOKEN)).send().await.unwrap();
        assert_eq!(basic.status(), StatusCode::UNAUTHORIZED);
        // Nor is it found where everybody pulls.
        let public =
            http().get(format!("http://{}{path}", at.address)).bearer_auth(TOKEN).send().await.unwrap();
        assert!(path == "/v2/" || path == "/" || public.status() == StatusCode::NOT_FOUND, "{path}");
    }
    for (method, path, body, expected) in [
        (Method::GET, "/", None, StatusCode::NOT_FOUND),
        (Method::GET, "/api/v1/nothing", None, StatusCode::NOT_FOUND),
        (Method::PUT, "/api/v1/figures", None, StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/api/v1/warm/77", None, StatusCode::NOT_FOUND),
        (Method::POST, "/api/v1/warm", Some(json!({})), StatusCode::BAD_REQUEST),
        (Method::POST, "/api/v1/warm", Some(json!({"images": ["A"]})), StatusCode::BAD_REQUEST),
        (
            Method::POST,
            "/api/v1/warm",
            Some(json!({"images": ["a"], "platforms": "x"})),
            StatusCode::BAD_REQUEST,
        ),
        (
            Method::POST,
            "/api/v1/pins",
            Some(json!({"image": "quay.io/not/mirrored"})),
            StatusCode::BAD_REQUEST,
        ),
        (Method::DELETE, "/api/v1/cache", None, StatusCode::BAD_REQUEST),
        (Method::DELETE, "/api/v1/cache?image=quay.io/a/b", None, StatusCode::NOT_FOUND),
    ] {
        let (status, text) = at.ask(method.clone(), path, body).await;
        assert_eq!(status, expected, "{method} {path}: {text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert!(document["error"].is_string(), "{text}");
    }
    assert!(!at.errors().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_warmed_costs_no_request_and_can_be_pinned_and_dropped() {
    let at = usual().await;
    let (v1, v2) = (at.name("v1"), at.name("v2"));
    let ran = at.run(&["warm", &v1]).await.ok();
    assert!(ran.out.starts_with(&format!("warm    {v1}  ")), "{ran:?}");
    at.link.kill_connections();
    let before = at.link.stats().requests.len();
    assert!(before > 0);
    check(&at.images[..1], &at.address, "").await;
    assert_eq!(at.link.stats().requests.len(), before, "a pull asks nobody");

    let ran = at.run(&["warm", "--platform", "linux/arm64", &v2, &at.name("absent"), "quay.io/a/b"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.out.contains("is not mirrored here") && ran.out.contains(&format!("warm    {v2}")),
        "{ran:?}"
    );
    assert_eq!(at.run(&["warm", "quay.io/a/b"]).await.code, Some(4));

    let listed = at.run(&["cache", "list", at.link.host().as_str()]).await.ok();
    assert!(listed.out.contains(&format!("{v1}  ")) && listed.out.contains(&format!("{v2}  ")), "{listed:?}");
    at.run(&["cache", "pin", &v1]).await.ok();
    let listed = at.run(&["cache", "list", "--output", "json"]).await.ok();
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let pinned = |tag: &str| {
        listed
            .as_array()
            .unwrap()
            .iter()
            .find(|image| image["tag"] == tag)
            .map(|image| image["pinned"] == true)
    };
    assert_eq!((pinned("v1"), pinned("v2")), (Some(true), Some(false)));
    assert_eq!(at.get("/api/v1/pins").await, json!({"pins": [v1]}));
    let refused = at.run(&["cache", "drop", &v1, &v2]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("unpin it first") && refused.out.starts_with("dropped"), "{refused:?}");
    at.run(&["cache", "unpin", &v1]).await.ok();
    at.run(&["cache", "drop", &v1]).await.ok();
    assert_eq!(at.run(&["cache", "list"]).await.ok().out, "");
    assert_eq!(
        at.get("/api/v1/figures").await["storage"]["bytes"].as_u64().map(|bytes| bytes < 50_000),
        Some(true)
    );
    assert_eq!(at.run(&["cache", "drop", &v1]).await.code, Some(4), "it is gone");
    // What was dropped comes again.
    check(&at.images[..1], &at.address, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happens_and_name_no_repository() {
    let at = usual().await;
    check(&at.images[..1], &at.address, "").await;
    check(&at.images[..1], &at.address, "").await;
    let blobs = at.images[0].image.blobs.len() as f64;
    let answered = r#"ferry_requests_total{upstream="127.0.0.1:"#;
    until("all requests are counted", async || at.metric(answered).await >= 2.0 * blobs).await;
    let (status, text) = at.ask(Method::GET, "/metrics", None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    let mut described = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(described.insert(rest.split(' ').next().unwrap()), "{line} is there twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let name = name.split('{').next().unwrap();
            assert!(described.iter().any(|described| name.starts_with(described)), "{line} has no type");
        }
    }
    assert!(!text.contains("a/b") && !text.contains("v1"), "{text}");
    assert!(at.metric("ferry_cache_hits_total").await >= blobs);
    assert!(at.metric("ferry_cache_misses_total").await >= blobs);
    let size: usize = at.images[0].image.blobs.values().map(|content| content.len()).sum();
    assert_eq!(at.metric("ferry_fetched_bytes_total").await, size as f64);
    assert!(at.metric("ferry_served_bytes_total").await > 2.0 * size as f64);
    assert!(at.metric("ferry_storage_free_bytes").await > 0.0);
    assert_eq!(at.metric("ferry_upstream_up").await, 1.0);
    let health = at.get("/api/v1/health").await;
    assert_eq!((&health["ready"], &health["upstreams"][0]["health"]), (&json!(true), &json!("good")));
    let figures = at.get("/api/v1/figures").await;
    assert!(figures["requests"].as_f64().unwrap() >= 2.0 * blobs, "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_a_line_and_a_moved_log_is_left() {
    let more = "  access_log: {file: access.log}\n";
    let mut at = Looked::new(vec![image("v1", 50_000)], LinkOptions::default(), more).await;
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(at.ferry.path(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let manifest = format!("http://{}/v2/a/b/manifests/v1?secret=hunter2", at.address);
    let asked = http().get(&manifest).header("user-agent", "a \"client\"").send().await.unwrap();
    let length = asked.bytes().await.unwrap().len();
    until("a line is written", async || lines("access.log").len() == 1).await;
    let line = lines("access.log").remove(0);
    assert_eq!(line["path"], "/v2/a/b/manifests/v1");
    assert_eq!((line["status"].as_u64(), line["bytes"].as_u64()), (Some(200), Some(length as u64)));
    assert_eq!(
        (&line["cache"], &line["whole"], &line["method"]),
        (&json!("miss"), &json!(true), &json!("GET"))
    );
    assert_eq!((&line["upstream"], &line["repository"]), (&json!(at.link.host().as_str()), &json!("a/b")));
    assert_eq!((&line["reference"], &line["agent"]), (&json!("v1"), &json!("a \"client\"")));
    assert_eq!(line["address"], "127.0.0.1");
    assert!(!line.to_string().contains("hunter2"));
    std::fs::rename(at.ferry.path("access.log"), at.ferry.path("access.log.1")).unwrap();
    signal(&at.child, "HUP").await;
    until("the log is opened again", async || at.ferry.path("access.log").exists()).await;
    assert_eq!(status(format!("http://{}/v2/", at.address)).await, StatusCode::OK);
    signal(&at.child, "TERM").await;
    assert_eq!(at.child.wait().await.unwrap().code(), Some(0));
    assert_eq!((lines("access.log.1").len(), lines("access.log").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_breaks_no_download_and_a_wrong_one_changes_nothing() {
    let slow = LinkOptions { total_rate: Some(400_000), ..LinkOptions::default() };
    let at = Looked::new(vec![image("v1", 3_000_000)], slow, "").await;
    let other = at.ferry.serve(&at.ferry.path("other"), 0).await;
    push(&at.images, &other.host()).await;
    let (digest, url) = at.blob();
    let mut response = http().get(url).send().await.unwrap();
    let mut read = response.chunk().await.unwrap().unwrap().to_vec();

    std::fs::write(at.ferry.path("ferry.yaml"), "serve: {mirror: {upsteams: []}}\n").unwrap();
    signal(&at.child, "HUP").await;
    until("it is said what is wrong", async || at.errors().contains("unknown field `upsteams`")).await;
    assert!(at.errors().contains("all stays as it was"), "{}", at.errors());
    let (status, text) = at.ask(Method::POST, "/api/v1/reload", None).await;
    assert!(status == StatusCode::BAD_REQUEST && text.contains("upsteams"), "{text}");

    let prefix = other.host().replace(':', "-");
    let elsewhere = format!("http://{}/v2/{prefix}/a/b/manifests/v1", at.address);
    assert_eq!(self::status(elsewhere.clone()).await, StatusCode::NOT_FOUND);
    let upstreams = format!("{}\", \"{}", at.link.host(), other.host());
    let text = format!(
        "serve:\n  storage: another\n  mirror: {{upstreams: [\"{upstreams}\"], default: \"{}\"}}\n  \
         admin: {{listen: \"127.0.0.1:0\", token: {{file: token}}}}\n",
        at.link.host()
    );
    std::fs::write(at.ferry.path("ferry.yaml"), text).unwrap();
    let (status, text) = at.ask(Method::POST, "/api/v1/reload", None).await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::OK, "{\"restart\":[]}\n"),
        "the argument --storage counts"
    );
    assert_eq!(self::status(elsewhere).await, StatusCode::OK, "the new upstream is known");
    let flights = at.get("/api/v1/flights").await;
    assert_eq!(flights[0]["digest"], digest.to_string(), "the fetch goes on under the same store: {flights}");
    while let Some(bytes) = response.chunk().await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    assert_eq!(Digest::sha256(&read), digest);
    let brought = at.link.stats().bytes_down;
    assert!(brought < 3_300_000, "fetched once: {brought}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_downloads_end_and_says_before_that_it_is_not_ready() {
    let slow = LinkOptions { total_rate: Some(400_000), ..LinkOptions::default() };
    let more = "  stop: {delay: 1s, grace: 10m}\n";
    let mut at = Looked::new(vec![image("v1", 1_000_000)], slow, more).await;
    let ready = format!("http://{}/readyz", at.address);
    assert_eq!(status(ready.clone()).await, StatusCode::OK);
    let (digest, url) = at.blob();
    let mut response = http().get(url).send().await.unwrap();
    let mut read = response.chunk().await.unwrap().unwrap().to_vec();
    signal(&at.child, "TERM").await;
    until("it is not ready", async || status(ready.clone()).await == StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(status(format!("http://{}/healthz", at.address)).await, StatusCode::OK, "it lives");
    until("it takes no more connections", async || http().get(&ready).send().await.is_err()).await;
    assert_eq!(at.get("/api/v1/health").await["ready"], false, "the admin API answers to the end");
    while let Some(bytes) = response.chunk().await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    assert_eq!(Digest::sha256(&read), digest);
    assert_eq!(at.child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_configuration_there_is_no_admin_api() {
    let ferry = Ferry::new();
    let served = ferry.serve(&ferry.path("images"), 0).await;
    for path in ["/metrics", "/api/v1/figures"] {
        assert_eq!(status(format!("http://{}{path}", served.host())).await, StatusCode::NOT_FOUND);
    }
    assert_eq!(status(format!("http://{}/readyz", served.host())).await, StatusCode::OK);
    let ran = ferry.run(&["warm", "alpine"]).await;
    assert!(ran.code == Some(2) && ran.err.contains("serve: admin"), "{ran:?}");
    std::fs::write(ferry.path("short"), "secret").unwrap();
    std::fs::write(ferry.path("ferry.yaml"), "serve: {admin: {token: {file: short}}}\n").unwrap();
    let ran = ferry.run(&["--config", "ferry.yaml", "serve", "--storage", "other"]).await;
    assert!(ran.code == Some(2) && ran.err.contains("can be guessed"), "{ran:?}");
    assert!(!ferry.path("other").exists(), "nothing was opened");
    std::fs::write(ferry.path("token"), TOKEN).unwrap();
    let admin = format!("http://{}", served.host());
    for (token, code) in [("short", 2), ("token", 4)] {
        let ran = ferry.run(&["cache", "list", "--admin", &admin, "--token-file", token]).await;
        assert_eq!(ran.code, Some(code), "this is no admin API: {ran:?}");
    }
}
