//! The page of `ferry serve`, and what `ferry client-config` and `ferry resolve` print.

use reqwest::StatusCode;

use crate::harness::{Ferry, Served};

fn http() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// What is at a path, without the escapes of HTML.
async fn page(served: &Served, path: &str) -> (StatusCode, String) {
    let answer = http().get(format!("http://{}{path}", served.host())).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    let text = [("&#x2f;", "/"), ("&#x27;", "'"), ("&quot;", "\""), ("&lt;", "<"), ("&amp;", "&")]
        .iter()
        .fold(text, |text, (escaped, plain)| text.replace(escaped, plain));
    (status, text)
}

async fn start(ferry: &Ferry, config: &str) -> Served {
    std::fs::write(ferry.path("ferry.yaml"), config).unwrap();
    let arguments = ["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "s"];
    ferry.serve_with(&arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_the_command_line_say_the_same() {
    let ferry = Ferry::new();
    let served = start(&ferry, "serve: {mirror: {upstreams: [quay.io, docker.io]}}\n").await;
    let url = format!("http://{}", served.host());
    let (status, shown) = page(&served, "/?image=quay.io/team/app:v1").await;
    assert_eq!(status, StatusCode::OK);
    let arguments =
        ["--config", "ferry.yaml", "resolve", "quay.io/team/app:v1", "--mirror", &url, "--output", "json"];
    let printed: serde_json::Value = serde_json::from_str(&ferry.run(&arguments).await.ok().out).unwrap();
    let mut lines = 0;
    for mode in printed["modes"].as_array().unwrap() {
        for command in mode["commands"].as_array().unwrap() {
            let line = command["command"].as_str().unwrap();
            assert!(shown.contains(&format!(">{line}</pre>")), "{line} is not in\n{shown}");
            lines += 1;
        }
    }
    assert_eq!(lines, 9);
    for client in ["docker", "containerd", "podman", "k3s", "buildkit", "kubernetes", "ferry"] {
        let printed =
            ferry.run(&["--config", "ferry.yaml", "client-config", client, "--mirror", &url]).await.ok();
        // What stands in front of the first file are notes.
        let files = printed.out.split("\n\n# /").last().unwrap();
        let files = files
            .split_once('\n')
            .filter(|_| printed.out.contains("\n\n# /"))
            .map_or(files, |(_, text)| text);
        let last: Vec<&str> = files.trim().lines().rev().take(3).collect();
        assert!(last.iter().all(|line| shown.contains(line)), "{client}: {last:?} is not in\n{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_can_be_without_figures_and_be_off() {
    let ferry = Ferry::new();
    let with = start(&ferry, "serve: {mirror: {}}\n").await;
    let (status, text) = page(&with, "/").await;
    assert!(status == StatusCode::OK && text.contains("id=\"figures\""), "{text}");
    assert!(page(&with, "/page/figures").await.1.contains("docker.io"));
    assert_eq!(with.stop().await, Some(0));
    let hidden = start(&ferry, "serve: {mirror: {}, page: {figures: hidden}}\n").await;
    let (status, text) = page(&hidden, "/").await;
    assert!(status == StatusCode::OK && !text.contains("id=\"figures\""), "{text}");
    assert_eq!(page(&hidden, "/page/figures").await.0, StatusCode::NOT_FOUND);
    assert_eq!(hidden.stop().await, Some(0));
    let off = start(&ferry, "serve: {mirror: {}, page: {enabled: false}}\n").await;
    assert_eq!(page(&off, "/").await.0, StatusCode::NOT_FOUND);
    assert_eq!(page(&off, "/healthz").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_printed_for_clients() {
    let ferry = Ferry::new();
    let url = "http://10.0.0.5:5000";
    let json = ferry.run(&["client-config", "docker", "--mirror", url]).await.ok();
    let daemon: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(daemon["registry-mirrors"][0], url, "what is printed is the file, and notes are beside it");
    assert!(json.err.contains("/etc/docker/daemon.json:") && json.err.contains("plain HTTP"), "{}", json.err);
    let own =
        ferry.run(&["client-config", "ferry", "--mirror", url, "--upstream", "quay.io,ghcr.io"]).await.ok();
    std::fs::write(ferry.path("own.yaml"), &own.out).unwrap();
    ferry.run(&["--config", "own.yaml", "config", "check"]).await.ok();
    assert!(own.out.contains("mirrors: [\"10.0.0.5:5000/ghcr.io\"]") && !own.out.contains("docker.io"));
    let one = ferry
        .run(&["resolve", "alpine", "--mirror", "https://cr.example.cn", "--mode", "alias-host"])
        .await
        .ok();
    let name = concat!("alias-host: docker.cr.example.cn/", "library/alpine\n    docker pull ");
    assert!(one.out.starts_with(name) && !one.out.contains("prefix:"), "{}", one.out);
    for (arguments, expected) in [
        (&["resolve", "r.example.com/a", "--mirror", url][..], "names no registry that this mirror knows"),
        (&["resolve", "A", "--mirror", url], "is not a valid image reference"),
        (&["resolve", "a", "--mirror", "http://x/y"], "write only its scheme, host and port"),
        (
            &["resolve", "a", "--mirror", url, "--mode", "magic"],
            "there are prefix, alias-host, namespace, transparent",
        ),
        (&["resolve", "a", "--mirror", "https://quay.io"], "ask itself"),
        (&["client-config", "lynx", "--mirror", url], "there are docker, containerd, podman"),
        (&["client-config", "podman", "--mirror", url, "--upstream", "r.example.com"], "names no registry"),
    ] {
        let ran = ferry.run(arguments).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(expected), "{}", ran.err);
    }
}
