//! Certificates from an ACME server that nobody here wrote, Debian's pebble, and clients that check them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::peers::{Pebble, PebbleOptions};
use reqwest::Certificate;
use tokio::process::Command;

use crate::harness::{Ferry, Served, push};

/// A mirror that gets its certificates from an authority of its own.
struct Site {
    ferry: Ferry,
    pebble: Pebble,
    /// The ports for plain HTTP and for HTTPS.
    ports: [u16; 2],
}

impl Site {
    async fn new(options: PebbleOptions) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = [free(), free()];
        let ports = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap().port());
        let options = PebbleOptions { http_port: ports[0], tls_port: ports[1], ..options };
        let pebble = Pebble::start(&options).await.unwrap();
        Self { ferry: Ferry::new(), pebble, ports }
    }

    /// A mirror with two alias hosts.
    async fn serve(&self, acme: &str) -> Served {
        let [http, https] = self.ports;
        let directory = self.pebble.directory();
        let ca = self.pebble.ca();
        let config = format!(
            "serve:\n  listen: 127.0.0.1:{http}\n  tls:\n    listen: 127.0.0.1:{https}\n    redirect: true\n    \
             acme:\n      agree: true\n      directory: {directory}\n      ca: {}\n      contact: me@example.com\n{acme}  \
             mirror:\n    domain: cr.example.com\n    upstreams: [gcr.io, quay.io]\n    aliases: {{gcr.io: gcr, quay.io: quay}}\n    default: none\n    hosted: own/**\n",
            ca.display()
        );
        std::fs::write(self.ferry.path("ferry.yaml"), config).unwrap();
        self.ferry.serve_with(&["--config", "ferry.yaml", "serve", "--storage", "storage"]).await
    }

    /// A client that trusts the authority's certificates and finds every host on this machine.
    async fn client(&self) -> reqwest::Client {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let own = std::fs::read(self.pebble.ca()).unwrap();
        let builder = |pem: &[u8]| {
            let root = Certificate::from_pem(pem).unwrap();
            let builder =
                reqwest::Client::builder().no_proxy().tls_certs_only([root]).pool_max_idle_per_host(0);
            builder.redirect(reqwest::redirect::Policy::none())
        };
        let manager = builder(&own).build().unwrap();
        let root = manager.get(self.pebble.root()).send().await.unwrap().bytes().await.unwrap();
        std::fs::write(self.ferry.path("root.pem"), &root).unwrap();
        let address = ([127, 0, 0, 1], self.ports[1]).into();
        let hosts = ["cr.example.com", "gcr.cr.example.com", "quay.cr.example.com"];
        let builder = hosts.iter().fold(builder(&root), |builder, host| builder.resolve(host, address));
        builder.build().unwrap()
    }

    /// Whether a host shows a certificate of its own.
    async fn is_certified(&self, client: &reqwest::Client, host: &str) -> bool {
        let url = format!("https://{host}:{}/healthz", self.ports[1]);
        client.get(url).send().await.is_ok_and(|answer| answer.status() == 200)
    }

    /// Waits until it does; the test is ended by its own limit if that does not come.
    async fn certified(&self, client: &reqwest::Client, host: &str) {
        while !self.is_certified(client, host).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn kept(&self, name: &str) -> std::path::PathBuf {
        let authority = self.pebble.directory().replace("https://", "").replace([':', '/'], "_");
        self.ferry.path("storage/acme").join(authority).join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_gets_a_certificate_and_one_that_is_not_found_harms_no_other() {
    let site = Site::new(PebbleOptions::default()).await;
    for host in ["cr.example.com", "quay.cr.example.com"] {
        site.pebble.know(host).await.unwrap();
    }
    let mirror = site.serve("      challenge: http-01\n").await;
    let client = site.client().await;
    for host in ["cr.example.com", "quay.cr.example.com"] {
        site.certified(&client, host).await;
    }
    assert!(!site.is_certified(&client, "gcr.cr.example.com").await, "it is in no DNS");
    // What is not for an authority is sent to HTTPS, and tokens are nobody's secret to be guessed.
    let plain = |path: &str| format!("http://127.0.0.1:{}{path}", site.ports[0]);
    let sent = client.get(plain("/v2/")).send().await.unwrap();
    assert_eq!(
        (sent.status().as_u16(), sent.headers()["location"].to_str().unwrap()),
        (308, &*format!("https://127.0.0.1:{}/v2/", site.ports[1]))
    );
    let path = "/.well-known/acme-challenge/token";
    assert_eq!(client.get(plain(path)).send().await.unwrap().status(), 404);
    assert_eq!(mirror.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_got_by_a_handshake_is_kept_for_the_next_run() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let external = Some(("kid-1".to_owned(), key.to_owned()));
    let site = Site::new(PebbleOptions { external, ..PebbleOptions::default() }).await;
    site.pebble.know("cr.example.com").await.unwrap();
    std::fs::write(site.ferry.path("hmac"), format!("{key}\n")).unwrap();
    let acme = "      external_account: {id: kid-1, key: {file: hmac}}\n      names: cr.example.com\n";
    let mirror = site.serve(acme).await;
    let client = site.client().await;
    site.certified(&client, "cr.example.com").await;
    let certificate = std::fs::read(site.kept("cr.example.com.pem")).unwrap();
    for name in ["cr.example.com.pem", "account.json"] {
        let mode = std::fs::metadata(site.kept(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(mirror.stop().await, Some(0));
    assert_eq!(site.pebble.orders().unwrap(), 1);
    let again = site.serve(acme).await;
    assert!(site.is_certified(&client, "cr.example.com").await, "it is there from the first moment");
    assert_eq!(again.stop().await, Some(0));
    assert_eq!(site.pebble.orders().unwrap(), 1, "nothing was asked for");
    assert_eq!(std::fs::read(site.kept("cr.example.com.pem")).unwrap(), certificate);
}

/// A hook that tells pebble's DNS, and writes down what it was told.
fn hook(site: &Site) -> String {
    let names = site.pebble.names();
    let text = format!(
        "#!/bin/sh\nset -eu\necho \"$1 $2\" >> \"$(dirname \"$0\")/calls\"\ncase $1 in\n\
         present) curl -fsS -d \"{{\\\"host\\\": \\\"$2.\\\", \\\"value\\\": \\\"$3\\\"}}\" http://{names}/set-txt ;;\n\
         cleanup) curl -fsS -d \"{{\\\"host\\\": \\\"$2.\\\"}}\" http://{names}/clear-txt ;;\nesac\n"
    );
    let path = site.ferry.path("hook");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    "      challenge: dns-01\n      hook: ./hook\n      settle: 0s\n".to_owned()
}

async fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_serves_all_hosts_to_curl_and_skopeo() {
    let site = Site::new(PebbleOptions::default()).await;
    let mirror = site.serve(&hook(&site)).await;
    let client = site.client().await;
    for host in ["cr.example.com", "gcr.cr.example.com", "quay.cr.example.com"] {
        site.certified(&client, host).await;
    }
    assert_eq!(site.pebble.orders().unwrap(), 1);
    let calls = std::fs::read_to_string(site.ferry.path("calls")).unwrap();
    let count = |what: &str| {
        calls.lines().filter(|line| *line == format!("{what} _acme-challenge.cr.example.com")).count()
    };
    assert_eq!((count("present"), count("cleanup"), calls.lines().count()), (2, 2, 4), "{calls}");

    let root = site.ferry.path("root.pem");
    let https = site.ports[1];
    let said = succeeds(Command::new("curl").args(["-fsS", "--noproxy", "*", "--cacert"]).arg(&root).args([
        "--resolve",
        &format!("quay.cr.example.com:{https}:127.0.0.1"),
        &format!("https://quay.cr.example.com:{https}/healthz"),
    ]))
    .await;
    assert_eq!(said, "ok\n");
    skopeo(&site, &mirror, &root).await;
    assert_eq!(mirror.stop().await, Some(0));
}

/// Pushes over HTTPS and pulls again. Names of tests are in no DNS, so the host is this machine with a certificate in a file.
async fn skopeo(site: &Site, mirror: &Served, root: &Path) {
    let image = ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::random(1, 3_000_000)])
        .build_single();
    let source = site.ferry.serve(&site.ferry.path("source"), 0).await;
    let named = NamedImage { repository: "own/a".parse().unwrap(), tag: "v1".parse().unwrap(), image };
    push(std::slice::from_ref(&named), &source.host()).await;
    let certificates = site.ferry.path("certificates");
    std::fs::create_dir(&certificates).unwrap();
    std::fs::copy(root, certificates.join("root.crt")).unwrap();
    // The hosts are found by a file of this process alone.
    let target = format!("cr.example.com:{}/own/a:v1", site.ports[1]);
    let script = format!(
        "echo '127.0.0.1 cr.example.com' > hosts && mount --bind hosts /etc/hosts && \
         skopeo --insecure-policy copy --src-tls-verify=false --dest-cert-dir certificates docker://{}/own/a:v1 docker://{target} && \
         skopeo --insecure-policy inspect --raw --cert-dir certificates docker://{target}",
        source.host()
    );
    let said = succeeds(
        Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", &script])
            .current_dir(site.ferry.home.path())
            .env("HOME", site.ferry.home.path()),
    )
    .await;
    let manifest = &said[said.find('{').unwrap()..];
    assert_eq!(manifest.as_bytes(), &named.image.root.bytes()[..]);
    assert_ne!(mirror.address.port(), site.ports[1], "it was not over plain HTTP");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_it_expires() {
    // It is renewed after two thirds of that time.
    let site = Site::new(PebbleOptions { validity: 24, ..PebbleOptions::default() }).await;
    site.pebble.know("cr.example.com").await.unwrap();
    let mirror = site.serve("      names: cr.example.com\n").await;
    let client = site.client().await;
    site.certified(&client, "cr.example.com").await;
    let first = std::fs::read(site.kept("cr.example.com.pem")).unwrap();
    while std::fs::read(site.kept("cr.example.com.pem")).unwrap() == first {
        assert!(site.is_certified(&client, "cr.example.com").await, "there is always one");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    site.certified(&client, "cr.example.com").await;
    assert_eq!(site.pebble.orders().unwrap(), 2);
    assert_eq!(mirror.stop().await, Some(0));
}
