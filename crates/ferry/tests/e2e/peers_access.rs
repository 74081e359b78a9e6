//! Logins at `ferry serve` by clients that nobody here wrote: skopeo, podman and Docker, with passwords and with tokens.

use std::process::{Output, Stdio};

use ferry_testkit::peers::{self, Engine};
use tokio::process::Command;

use crate::access::{PASSWORD, USER, add_user, start};
use crate::harness::{Ferry, Served};

/// Both ways to log in; `me` may push below `team`, and nobody else may anything.
const MODES: [&str; 2] = ["basic", "token"];

async fn registry(ferry: &Ferry, mode: &str) -> Served {
    add_user(ferry).await;
    let rules = "rules: [{allow: push, users: me, repositories: team/**}]";
    start(ferry, &format!("    mode: {mode}\n    users: users\n    {rules}\n")).await
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_logs_in_pushes_and_pulls() {
    for mode in MODES {
        let ferry = Ferry::new();
        let served = registry(&ferry, mode).await;
        let (host, authfile) = (served.host(), ferry.path("auth.json").display().to_string());
        let login = async |password: &str| {
            let arguments =
                ["login", "--authfile", &authfile, "--tls-verify=false", "-u", USER, "-p", password, &host];
            peers::skopeo(arguments).await.unwrap()
        };
        let copy = async |from: &str, to: &str| {
            let tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
            peers::skopeo([&["copy", "--authfile", &authfile][..], &tls, &[from, to]].concat()).await.unwrap()
        };
        let (image, new) = (format!("docker://{host}/team/app:v1"), format!("docker://{host}/team/new:v1"));
        let layout = format!("oci:{}:v1", ferry.path("layout").display());
        std::fs::write(&authfile, "{}").unwrap();
        let refused = copy(&image, &layout).await;
        assert!(!refused.status.success(), "{mode}: {}", said(&refused));
        let wrong = login("wrong").await;
        assert!(!wrong.status.success() && !said(&wrong).contains("Succeeded"), "{mode}: {}", said(&wrong));
        let right = login(PASSWORD).await;
        assert!(right.status.success(), "{mode}: {}", said(&right));
        for (from, to) in [(&image, &layout), (&image, &new), (&layout, &new)] {
            let copied = copy(from, to).await;
            assert!(copied.status.success(), "{mode} {from} {to}: {}", said(&copied));
        }
        let denied = copy(&layout, &format!("docker://{host}/other/app:v1")).await;
        assert!(!denied.status.success(), "{mode}: {}", said(&denied));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_logs_in_pulls_and_pushes() {
    for mode in MODES {
        let ferry = Ferry::new();
        let served = registry(&ferry, mode).await;
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        std::fs::write(ferry.path("policy.json"), policy).unwrap();
        let [root, run, policy, authfile] =
            ["root", "run", "policy.json", "auth.json"].map(|name| ferry.path(name).display().to_string());
        let podman = async |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command.args(["--storage-driver", "vfs", "--root", &root, "--runroot", &run]).args(arguments);
            command.env("REGISTRY_AUTH_FILE", &authfile).stdin(Stdio::null()).kill_on_drop(true);
            command.output().await.unwrap()
        };
        let (host, image) = (served.host(), format!("{}/team/app:v1", served.host()));
        let pull = ["pull", "--tls-verify=false", "--signature-policy", &policy, &image];
        let login = |password| ["login", "--tls-verify=false", "-u", USER, "-p", password, host.as_str()];
        assert!(!podman(&pull).await.status.success(), "{mode}");
        assert!(!podman(&login("wrong")).await.status.success(), "{mode}");
        let right = podman(&login(PASSWORD)).await;
        assert!(right.status.success(), "{mode}: {}", said(&right));
        let pulled = podman(&pull).await;
        assert!(pulled.status.success(), "{mode}: {}", said(&pulled));
        let to = format!("docker://{host}/team/again:v1");
        let push = ["push", "--tls-verify=false", "--signature-policy", &policy, &image, &to];
        let pushed = podman(&push).await;
        assert!(pushed.status.success(), "{mode}: {}", said(&pushed));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_logs_in_pulls_and_pushes() {
    let engine = Engine::dockerd().await.unwrap();
    for mode in MODES {
        let ferry = Ferry::new();
        let served = registry(&ferry, mode).await;
        let host = served.host();
        let home = ferry.path("docker").display().to_string();
        let docker = async |script: &str| {
            let script = format!("export DOCKER_CONFIG={home}\nset -e\n{script}");
            engine.shell(&script).await.unwrap()
        };
        let login = |password| format!("echo {password} | docker login -u {USER} --password-stdin {host}");
        let pull = format!("docker pull {host}/team/app:v1");
        let refused = docker(&pull).await;
        assert!(!refused.status.success(), "{mode}: {}", said(&refused));
        let wrong = docker(&login("wrong")).await;
        assert!(!wrong.status.success(), "{mode}: {}", said(&wrong));
        let tag =
            format!("docker tag {host}/team/app:v1 {host}/team/again:v1\ndocker push {host}/team/again:v1");
        let right = docker(&format!("{}\n{pull}\n{tag}", login(PASSWORD))).await;
        assert!(right.status.success(), "{mode}: {}", said(&right));
        let denied =
            format!("docker tag {host}/team/app:v1 {host}/other/app:v1\ndocker push {host}/other/app:v1");
        let denied = docker(&denied).await;
        assert!(!denied.status.success(), "{mode}: {}", said(&denied));
        let out =
            docker(&format!("docker rmi --force {host}/team/app:v1\ndocker logout {host}\n{pull}")).await;
        assert!(!out.status.success(), "{mode}: {}", said(&out));
    }
}
