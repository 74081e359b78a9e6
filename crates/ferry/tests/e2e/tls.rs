//! `ferry serve` over HTTPS, with certificates in files, and at sockets that were opened for it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ferry_testkit::authority::{Authority, Certified};
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use reqwest::Certificate;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{Ferry, Served, push};

/// `ferry serve` with what it says.
pub struct Started {
    pub child: Child,
    /// Where it listens, with the schemes, as it says.
    pub at: Vec<String>,
}

impl Started {
    /// Waits until it has said where it listens so many times.
    pub async fn new(mut command: Command, listeners: usize) -> Self {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut at = Vec::new();
        while at.len() < listeners {
            let line = lines.next_line().await.unwrap().unwrap();
            at.push(line.rsplit_once(" at ").unwrap().1.to_owned());
        }
        Self { child, at }
    }
}

pub fn put(directory: &Path, certified: &Certified) {
    std::fs::write(directory.join("tls.key"), &certified.key).unwrap();
    std::fs::write(directory.join("tls.crt"), &certified.certificate).unwrap();
}

/// A client that finds `cr.test` at that address.
fn client(authority: &Authority, address: SocketAddr) -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root = Certificate::from_pem(authority.certificate().as_bytes()).unwrap();
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([root]).pool_max_idle_per_host(0);
    builder.resolve("cr.test", address).resolve("new.test", address).build().unwrap()
}

async fn is_healthy(client: &reqwest::Client, host: &str, port: u16) -> bool {
    let answer = client.get(format!("https://{host}:{port}/healthz")).send().await;
    answer.is_ok_and(|answer| answer.status() == 200)
}

const BOTH: &str = "serve:\n  listen: 127.0.0.1:0\n  storage: images\n  tls:\n    listen: ['127.0.0.1:0']\n    \
    certificates: [{certificate: tls.crt, key: tls.key}]\n";

#[tokio::test(flavor = "multi_thread")]
async fn images_are_moved_over_https_and_new_certificates_are_taken() {
    let (ferry, authority) = (Ferry::new(), Authority::new().unwrap());
    put(ferry.home.path(), &authority.certify(&["cr.test", "127.0.0.1"]).unwrap());
    let admin = "  admin: {listen: '127.0.0.1:0', token: {file: token}, open_metrics: true}\n";
    std::fs::write(ferry.path("token"), "0123456789abcdef").unwrap();
    std::fs::write(ferry.path("serve.yaml"), format!("{BOTH}{admin}")).unwrap();
    let started = Started::new(ferry.command(&["--config", "serve.yaml", "serve"]), 3).await;
    let plain = started.at[0].strip_prefix("http://").unwrap().to_owned();
    let encrypted: SocketAddr = started.at[1].strip_prefix("https://").unwrap().parse().unwrap();

    let image = ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, 2_000_000)]);
    let image = image.build_single();
    let named = NamedImage { repository: "a/b".parse().unwrap(), tag: "v1".parse().unwrap(), image };
    push(std::slice::from_ref(&named), &plain).await;
    std::fs::write(ferry.path("ca.pem"), authority.certificate()).unwrap();
    let config = format!("registries:\n  \"{encrypted}\":\n    plain_http: false\n    tls: {{ca: ca.pem}}\n");
    std::fs::write(ferry.path("copy.yaml"), config).unwrap();
    let copied =
        ["--config", "copy.yaml", "copy", &format!("{encrypted}/a/b:v1"), &format!("{encrypted}/a/c:v1")];
    ferry.run(&copied).await.ok();
    ferry.run(&["--config", "copy.yaml", "copy", &copied[4].replace("/c", "/b"), "oci:layout:v1"]).await.ok();

    let (client, port) = (client(&authority, encrypted), encrypted.port());
    assert!(is_healthy(&client, "cr.test", port).await);
    let [file, key] = ["tls.crt", "tls.key"].map(|file| ferry.path(file));
    let shown = ferry_serve::Certificate::read(&file, &key).unwrap();
    let end = shown.valid().end.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let metrics = reqwest::get(format!("{}/metrics", started.at[2])).await.unwrap().text().await.unwrap();
    let line = format!("ferry_certificate_end_seconds{{certificate=\"tls.crt\"}} {end}\n");
    assert!(metrics.contains(&line), "{line} is not in {metrics}");
    put(ferry.home.path(), &authority.certify(&["new.test"]).unwrap());
    while !is_healthy(&client, "new.test", port).await {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(started.child);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_before_anything_is_listened_on() {
    let (ferry, authority) = (Ferry::new(), Authority::new().unwrap());
    let [one, other] = [["one.test"], ["other.test"]].map(|names| authority.certify(&names).unwrap());
    put(ferry.home.path(), &Certified { key: other.key, ..one.clone() });
    std::fs::write(ferry.path("serve.yaml"), BOTH).unwrap();
    for verb in [&["config", "check"][..], &["serve"]] {
        let ran = ferry.run(&[&["--config", "serve.yaml"], verb].concat()).await;
        assert_ne!(ran.code, Some(0));
        let said = ran.err;
        assert!(said.contains("serve.yaml: serve: tls: certificates: "), "{said}");
        assert!(said.contains("the private key is not that of the certificate"), "{said}");
        assert!(said.contains("tls.crt") && said.contains("tls.key"), "{said}");
        assert!(!ferry.path("images").exists() && ran.out.is_empty());
    }
    put(ferry.home.path(), &one);
    ferry.run(&["--config", "serve.yaml", "config", "check"]).await.ok();
}

/// Starts `ferry serve` as systemd does, with a socket that listens already; `name` is what systemd calls it.
async fn activated(ferry: &Ferry, arguments: &[&str], name: &str) -> (Started, SocketAddr) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let program = ferry.command(arguments);
    let mut command = Command::new("/bin/sh");
    // The variable holds the number of the very process that becomes ferry.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
    command.args(["-c", script]).arg(program.as_std().get_program()).args(program.as_std().get_args());
    command.env_clear().env("HOME", ferry.home.path()).env("LISTEN_FDNAMES", name);
    command.current_dir(ferry.home.path()).stdin(Stdio::from(OwnedFd::from(socket)));
    command.stdout(Stdio::piped()).kill_on_drop(true);
    (Started::new(command, 1).await, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_systemd_has_opened_are_listened_on() {
    let ferry = Ferry::new();
    // The address would be refused, and is not needed.
    let arguments = ["serve", "--storage", "images", "--listen", "127.0.0.1:1"];
    let (started, address) = activated(&ferry, &arguments, "ferry.socket").await;
    assert_eq!(started.at, [format!("http://{address}")]);
    let answer = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = answer.get(format!("http://{address}/healthz")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_speaks_what_its_name_says() {
    let (ferry, authority) = (Ferry::new(), Authority::new().unwrap());
    put(ferry.home.path(), &authority.certify(&["cr.test"]).unwrap());
    std::fs::write(ferry.path("serve.yaml"), BOTH).unwrap();
    let arguments = ["--config", "serve.yaml", "serve"];
    for (name, scheme) in [("https", "https"), ("http", "http"), ("ferry.socket", "https")] {
        let (started, address) = activated(&ferry, &arguments, name).await;
        assert_eq!(started.at, [format!("{scheme}://{address}")], "{name}");
        let healthy = is_healthy(&client(&authority, address), "cr.test", address.port()).await;
        assert_eq!(healthy, scheme == "https");
        let mut child = started.child;
        child.kill().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_without_encryption_is_sent_on_if_that_is_wanted() {
    let (ferry, authority) = (Ferry::new(), Authority::new().unwrap());
    put(ferry.home.path(), &authority.certify(&["cr.test"]).unwrap());
    std::fs::write(ferry.path("serve.yaml"), format!("{BOTH}    redirect: true\n")).unwrap();
    let served: Served = ferry.serve_with(&["--config", "serve.yaml", "serve"]).await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let answer = client.build().unwrap().get(format!("http://{}/v2/", served.address)).send().await.unwrap();
    assert_eq!(answer.status(), 308);
    assert_eq!(served.stop().await, Some(0));
}
