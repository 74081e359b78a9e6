//! `ferry serve` for those who may, and `ferry user`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::link::{Link, LinkOptions};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::harness::{Ferry, Ran, Served, push};

pub const USER: &str = "me";
pub const PASSWORD: &str = "hunter2";

/// Runs ferry with a password to read.
async fn with_password(ferry: &Ferry, arguments: &[&str], password: &str) -> Ran {
    let mut child = ferry.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
    // A run that ends early does not read it.
    let _ = child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).await;
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!format!("{}{}", ran.out, ran.err).contains(password), "a secret was printed: {ran:?}");
    ran
}

pub async fn add_user(ferry: &Ferry) {
    with_password(ferry, &["user", "add", USER, "--file", "users"], PASSWORD).await.ok();
}

pub fn image() -> NamedImage {
    let image =
        ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, 20_000)]).build_single();
    NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image }
}

/// Starts a registry where `access` counts, with the image in it from before.
pub async fn start(ferry: &Ferry, access: &str) -> Served {
    let before = ferry.serve(&ferry.path("images"), 0).await;
    push(&[image()], &before.host()).await;
    assert_eq!(before.stop().await, Some(0));
    fs::write(ferry.path("ferry.yaml"), format!("serve:\n  access:\n{access}")).unwrap();
    let arguments = ["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "images"];
    ferry.serve_with(&arguments).await
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn status(served: &Served, target: &str, login: Option<(&str, &str)>) -> StatusCode {
    let mut request = http().get(format!("http://{}{target}", served.host()));
    if let Some((name, password)) = login {
        request = request.basic_auth(name, Some(password));
    }
    request.send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_added_changed_and_removed() {
    let ferry = Ferry::new();
    let file = ferry.path("users");
    let add = ["user", "add", "a", "--file", "users"];
    let first = with_password(&ferry, &add, "one").await.ok();
    assert_eq!(first.out, "a is added to users\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("a:$argon2id$") && text.lines().count() == 1, "{text}");

    fs::write(&file, format!("# who works here\n{text}")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    with_password(&ferry, &["user", "add", "b", "--file", "users"], "two").await.ok();
    let again = with_password(&ferry, &add, "three").await.ok();
    assert_eq!(again.out, "a has a new password in users\n");
    let changed = fs::read_to_string(&file).unwrap();
    assert!(changed.starts_with("# who works here\nb:") && changed.lines().count() == 3, "{changed}");
    assert!(!changed.contains(text.trim()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

    let removed = ferry.run(&["user", "remove", "b", "--file", "users"]).await.ok();
    assert_eq!(removed.out, "b is removed from users\n");
    for (arguments, says) in [
        (&["user", "remove", "b", "--file", "users"][..], "there is no user b"),
        (&["user", "remove", "b"], "--file FILE is needed"),
        (&["user", "add", "a:b", "--file", "users"], "no colon"),
        (&["user", "add", "c", "--file", "users"], "no password came"),
    ] {
        let refused = ferry.run(arguments).await;
        assert_eq!(refused.code, Some(2), "{arguments:?}");
        assert!(refused.err.contains(says), "{arguments:?}: {}", refused.err);
    }
    fs::write(&file, "c:hunter2\n").unwrap();
    let refused = with_password(&ferry, &add, "one").await;
    assert!(refused.code == Some(2) && refused.err.contains("users:1") && !refused.err.contains("hunter2"));
    assert_eq!(fs::read_dir(ferry.home.path()).unwrap().count(), 1, "nothing is left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_opens_and_rules_tell_what() {
    let ferry = Ferry::new();
    add_user(&ferry).await;
    let access = "    mode: basic\n    users: users\n    rules:\n      - {deny: all, repositories: team/secret, message: not this one}\n";
    let served = start(&ferry, access).await;
    let (manifest, me) = ("/v2/team/app/manifests/v1", Some((USER, PASSWORD)));
    assert_eq!(status(&served, manifest, None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&served, manifest, Some((USER, "wrong"))).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&served, manifest, me).await, StatusCode::OK);
    assert_eq!(status(&served, "/v2/team/secret/manifests/v1", me).await, StatusCode::FORBIDDEN);
    // Our own client, with a login that it was given.
    let login = ["login", "--username", USER, &served.host()].map(str::to_owned);
    let login: Vec<&str> = login.iter().map(String::as_str).collect();
    assert_eq!(with_password(&ferry, &login, "guess7").await.code, Some(4));
    with_password(&ferry, &login, PASSWORD).await.ok();
    let source = format!("{}/team/app:v1", served.host());
    ferry.run(&["copy", &source, "oci:copy"]).await.ok();
    let denied = ferry.run(&["copy", &source, &format!("{}/team/other", served.host())]).await;
    assert_eq!(denied.code, Some(4), "{denied:?}");
    let denied = ferry.run(&["tags", &format!("{}/team/secret", served.host())]).await;
    assert!(denied.err.contains("not this one"), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_got_and_used_by_our_own_client() {
    let ferry = Ferry::new();
    add_user(&ferry).await;
    let access = "    mode: token\n    users: users\n    rules: [{allow: [push, delete], users: me}, {allow: read, repositories: team/app}]\n";
    let served = start(&ferry, access).await;
    let ping = http().get(format!("http://{}/v2/", served.host())).send().await.unwrap();
    let expected = format!("Bearer realm=\"http://{0}/token\",service=\"ferry\"", served.host());
    assert_eq!(
        (ping.status(), ping.headers()["www-authenticate"].to_str().unwrap()),
        (StatusCode::UNAUTHORIZED, &*expected)
    );
    // Strangers read what a rule opens, and no more.
    let source = format!("{}/team/app:v1", served.host());
    ferry.run(&["copy", &source, "oci:copy"]).await.ok();
    let target = format!("{}/other/app:v1", served.host());
    assert_eq!(ferry.run(&["copy", &source, &target]).await.code, Some(4));
    let login = ["login", "--username", USER, &served.host()].map(str::to_owned);
    let login: Vec<&str> = login.iter().map(String::as_str).collect();
    assert_eq!(with_password(&ferry, &login, "guess7").await.code, Some(4));
    with_password(&ferry, &login, PASSWORD).await.ok();
    ferry.run(&["copy", &source, &target]).await.ok();
    ferry.run(&["delete", "--yes", &target]).await.ok();
    let keys = fs::read_dir(ferry.path("images/access-keys")).unwrap().count();
    assert_eq!(keys, 1);
    assert_eq!(served.stop().await, Some(0));
    ferry.run(&["storage", "check", "--storage", "images"]).await.ok();

    // A server that is started again knows the tokens of the one before.
    let arguments = ["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "images"];
    let served = ferry.serve_with(&arguments).await;
    let url = format!("http://{}/token?scope=repository:team/app:pull", served.host());
    let given: Value =
        serde_json::from_str(&http().get(url).send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(served.stop().await, Some(0));
    let served = ferry.serve_with(&arguments).await;
    let request =
        http().get(format!("http://{}/v2/", served.host())).bearer_auth(given["token"].as_str().unwrap());
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

/// Rule 7 of the design with rules that close a repository of an upstream: while a blob is fetched, and once it is there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_closed_is_not_had_by_its_digest() {
    let ferry = Ferry::new();
    add_user(&ferry).await;
    let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
    let private = NamedImage { repository: "secret/app".parse().unwrap(), ..image() };
    push(std::slice::from_ref(&private), &upstream.host()).await;
    let slow = LinkOptions { total_rate: Some(10_000), ..LinkOptions::default() };
    let link = Link::start(upstream.address, slow).await.unwrap();
    let host = link.host().to_string();
    let rules = "[{allow: read, users: me, repositories: secret/**}, {deny: all, repositories: secret/**}, \
         {allow: push, repositories: own/**}]";
    let config = format!(
        "serve:\n  access: {{mode: basic, users: users, otherwise: allow, rules: {rules}}}\n  \
         mirror: {{upstreams: [\"{host}\"], default: \"{host}\", hosted: own/**}}\n"
    );
    fs::write(ferry.path("ferry.yaml"), config).unwrap();
    let arguments = ["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "images"];
    let served = ferry.serve_with(&arguments).await;
    let (digest, content) = private.image.blobs.iter().max_by_key(|(_, content)| content.len()).unwrap();
    let secret = format!("/v2/secret/app/blobs/{digest}");
    let turned_away = async || {
        assert_eq!(status(&served, &secret, None).await, StatusCode::UNAUTHORIZED);
        let other = format!("/v2/other/app/blobs/{digest}");
        assert_eq!(status(&served, &other, None).await, StatusCode::NOT_FOUND);
        for from in ["", "&from=secret/app", "&from=own/a"] {
            let url = format!("http://{}/v2/own/b/blobs/uploads/?mount={digest}{from}", served.host());
            assert_eq!(http().post(url).send().await.unwrap().status(), StatusCode::ACCEPTED, "{from}");
        }
    };
    let url = format!("http://{}{secret}", served.host());
    let mut response = http().get(url).basic_auth(USER, Some(PASSWORD)).send().await.unwrap();
    let mut read = response.chunk().await.unwrap().unwrap().to_vec();
    let fetched = link.stats().bytes_down;
    assert!(fetched < content.len() as u64, "it is still being fetched: {fetched}");
    turned_away().await;
    while let Some(bytes) = response.chunk().await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    assert_eq!(read, content[..]);
    turned_away().await;
    assert_eq!(status(&served, &secret, Some((USER, PASSWORD))).await, StatusCode::OK);
    assert_eq!(link.stats().count("GET", &secret), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_checked_before_anything_is_bound() {
    let ferry = Ferry::new();
    let serve = ["--config", "ferry.yaml", "serve", "--listen", "0.0.0.0:0", "--storage", "images"];
    for (access, says) in [
        ("{mode: basic}", "serve: access: users: a file of users is needed"),
        ("{mode: token, users: none}", "ferry user add makes such a file"),
        ("{rules: [{allow: all}]}", "push or delete, as a rule says, without a password"),
        ("{rules: [{deny: read, tags: 'a b'}]}", "a pattern has no blanks"),
    ] {
        fs::write(ferry.path("ferry.yaml"), format!("serve:\n  listen: 0.0.0.0:0\n  access: {access}\n"))
            .unwrap();
        for arguments in [&serve[..], &["--config", "ferry.yaml", "config", "check"]] {
            let refused = ferry.run(arguments).await;
            assert_eq!(refused.code, Some(2), "{access}: {refused:?}");
            assert!(refused.err.contains(says), "{access}: {}", refused.err);
        }
        assert!(!ferry.path("images").exists());
    }
    // Who only reads may come from anywhere.
    fs::write(ferry.path("ferry.yaml"), "serve: {access: {rules: [{deny: all, repositories: x}]}}\n")
        .unwrap();
    let served = ferry.serve_with(&serve).await;
    assert_eq!(served.stop().await, Some(0));
}
