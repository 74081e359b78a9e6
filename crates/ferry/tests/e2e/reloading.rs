//! What changes while `ferry serve` runs: who may use it, what they may take; and what it tells of itself.

use std::time::Duration;

use ferry_testkit::link::LinkOptions;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UnixDatagram;

use crate::access::{PASSWORD, USER, add_user};
use crate::harness::{Ferry, check, signal};
use crate::operations::{Looked, configure, http, image, until, usual};

const ACCESS: &str = "/api/v1/access";
const RULES: &str = "  access: {rules: [{deny: all, repositories: a/secret, message: not this one}]}\n";

impl Looked {
    /// What comes of asking for a manifest, by whom.
    async fn pull(&self, login: Option<&str>) -> (StatusCode, String) {
        let mut request = http().get(format!("http://{}/v2/a/b/manifests/v1", self.address));
        if let Some(name) = login {
            request = request.basic_auth(name, Some(PASSWORD));
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn may_pull(&self, login: Option<&str>) -> bool {
        self.pull(login).await.0 == StatusCode::OK
    }

    async fn with(more: &str) -> Self {
        Self::new(vec![image("v1", 50_000)], LinkOptions::default(), more).await
    }

    /// Writes another configuration, and lets it be read.
    async fn reload(&self, more: &str) {
        configure(&self.ferry, self.link.host().as_str(), more);
        let (status, text) = self.ask(Method::POST, "/api/v1/reload", None).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "{\"restart\":[]}\n"));
    }

    async fn replace(&self, access: &str) -> (StatusCode, String) {
        self.send(Method::PUT, ACCESS, Some(access.to_owned())).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_replaced_until_the_configuration_is_read_again() {
    let at = Looked::with(RULES).await;
    add_user(&at.ferry).await;
    let first = at.get(ACCESS).await;
    assert_eq!(first["rules"][0]["message"], "not this one", "{first}");
    assert!(at.may_pull(None).await);

    let (status, text) = at.replace("rules:\n  - deny: read\n    message: not today\n").await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), at.get(ACCESS).await);
    let closed = at.get(ACCESS).await;
    let refused = at.pull(None).await;
    assert!(refused.0 != StatusCode::OK && refused.1.contains("not today"), "{refused:?}");

    for (wrong, says) in [
        ("", "rules: [{allow: read}]"),
        ("null", "rules: [{allow: read}]"),
        ("rules: [{alow: read}]", "access:1:10: unknown field `alow`"),
        ("rules:\n  - {allow: read, deny: read}", "rule 1: exactly one of allow, privilege and deny"),
        ("mode: basic", "users: a file of users is needed"),
        ("{mode: basic, users: absent}", "ferry user add makes such a file"),
        ("keys: elsewhere", "keys: others can only be configured"),
    ] {
        let (status, text) = at.replace(wrong).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}: {text}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert!(document["error"].as_str().unwrap().contains(says), "{wrong}: {text}");
        assert_eq!(at.get(ACCESS).await, closed, "all stays as it was");
    }
    assert!(!at.may_pull(None).await);

    let (status, text) = at.replace(&json!({"mode": "basic", "users": "users"}).to_string()).await;
    assert!(status == StatusCode::OK && !text.contains("$argon2"), "{text}");
    assert!(at.pull(None).await.0 == StatusCode::UNAUTHORIZED && at.may_pull(Some(USER)).await);
    // How people log in stays if only rules are sent.
    assert_eq!(at.replace("rules: [{deny: push}]").await.0, StatusCode::OK);
    assert!(at.pull(None).await.0 == StatusCode::UNAUTHORIZED && at.may_pull(Some(USER)).await);
    // What was shown can be sent.
    let shown = at.get(ACCESS).await;
    assert_eq!(at.replace(&shown.to_string()).await.0, StatusCode::OK);
    assert_eq!(at.get(ACCESS).await, shown);

    at.reload(RULES).await;
    assert_eq!(at.get(ACCESS).await, first);
    assert!(at.may_pull(None).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_can_be_added_and_removed_by_a_reload_but_not_otherwise() {
    let at = usual().await;
    for sent in [None, Some("rules: []".to_owned())] {
        let method = if sent.is_some() { Method::PUT } else { Method::GET };
        let (status, text) = at.send(method, ACCESS, sent).await;
        assert!(status == StatusCode::CONFLICT && text.contains("write serve: access:"), "{text}");
    }
    assert!(at.may_pull(None).await);
    at.reload("  access: {rules: [{deny: read}]}\n").await;
    assert!(!at.may_pull(None).await);
    assert_eq!(at.replace("rules: []").await.0, StatusCode::OK);
    assert!(at.may_pull(None).await);
    at.reload("  access: {otherwise: deny}\n").await;
    assert!(!at.may_pull(None).await);
    at.reload("").await;
    assert!(at.may_pull(None).await);
    assert_eq!(at.ask(Method::GET, ACCESS, None).await.0, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_limits_are_read_at_a_hangup() {
    let ferry_access = "  access: {mode: basic, users: users}\n";
    let at = Looked::with("").await;
    add_user(&at.ferry).await;
    at.reload(ferry_access).await;
    assert!(at.may_pull(Some(USER)).await);
    assert_eq!(at.pull(Some("you")).await.0, StatusCode::UNAUTHORIZED);

    let users = at.ferry.path("users");
    let text = std::fs::read_to_string(&users).unwrap();
    std::fs::write(&users, text.replace(&format!("{USER}:"), "you:")).unwrap();
    assert!(at.may_pull(Some(USER)).await, "nobody has told it yet");
    signal(&at.child, "HUP").await;
    until("the new user may pull", async || at.may_pull(Some("you")).await).await;
    assert_eq!(at.pull(Some(USER)).await.0, StatusCode::UNAUTHORIZED);

    let limited = "  limits: {daily: {per_user: {manifests: 2}}}\n";
    configure(&at.ferry, at.link.host().as_str(), &format!("{ferry_access}{limited}"));
    signal(&at.child, "HUP").await;
    let exceeded = async || at.pull(Some("you")).await.0 == StatusCode::TOO_MANY_REQUESTS;
    until("the limit counts", exceeded).await;
    configure(&at.ferry, at.link.host().as_str(), ferry_access);
    signal(&at.child, "HUP").await;
    until("it does not any more", async || at.may_pull(Some("you")).await).await;
}

/// A size as the page writes those of some hundred kB.
fn kilobytes(figure: &Value) -> String {
    format!("{:.0} kB", figure.as_f64().unwrap() / 1000.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_happens() {
    let at = Looked::with("").await;
    let page = async || {
        let answer = http().get(format!("http://{}/page/figures", at.address)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.unwrap()
    };
    let row = |state: &str| {
        let host = at.link.host();
        format!("<th scope=\"row\">{host}</th><td><span class=\"state {state}\">")
    };
    let before = page().await;
    assert!(before.contains(&row("unknown")) && before.contains(">0 / 0</dd>"), "{before}");

    check(&at.images, &at.address, "").await;
    check(&at.images, &at.address, "").await;
    until("the page shows what the figures are", async || {
        let figures = at.get("/api/v1/figures").await;
        let (storage, upstream) = (&figures["storage"], &figures["upstreams"][0]);
        let count = |name: &str| upstream[name].as_u64().unwrap();
        let asked = format!(">{} / {}</dd>", count("hits"), count("hits") + count("misses"));
        let shown = page().await;
        let tile = |value: &Value| shown.contains(&format!("<dd>{}</dd>", kilobytes(value)));
        count("hits") > 0
            && count("misses") > 0
            && shown.contains(&asked)
            && shown.contains(&row("good"))
            && tile(&storage["bytes"])
            && tile(&upstream["bytesFetched"])
            && tile(&figures["bytesServed"])
    })
    .await;
    assert!(!page().await.contains("a/b"), "nobody sees who pulls what");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_told_how_the_server_is() {
    let ferry = Ferry::new();
    let socket = UnixDatagram::bind(ferry.path("notify")).unwrap();
    let told = async || {
        let mut buffer = [0; 200];
        let read = tokio::time::timeout(Duration::from_secs(60), socket.recv(&mut buffer));
        let length = read.await.expect("it is told something").unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = ferry.command(&["serve", "--listen", "127.0.0.1:0", "--storage", "images"]);
    command.env("NOTIFY_SOCKET", ferry.path("notify"));
    let mut child = command.spawn().unwrap();
    assert_eq!(told().await, "READY=1\n");
    // By now it listens, and has said where.
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = out.next_line().await.unwrap().unwrap();
    let address = line.rsplit_once("http://").unwrap().1.to_owned();
    let healthy = http().get(format!("http://{address}/readyz")).send().await.unwrap();
    assert_eq!(healthy.status(), StatusCode::OK);
    signal(&child, "HUP").await;
    let reloading = told().await;
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told().await, "READY=1\n");
    signal(&child, "TERM").await;
    assert_eq!(told().await, "STOPPING=1\n");
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}
