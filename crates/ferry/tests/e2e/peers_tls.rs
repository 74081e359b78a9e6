//! Logins and pulls at a mirror that speaks HTTPS and wants tokens, by skopeo and podman, which check its certificate.

use std::net::SocketAddr;

use ferry_testkit::authority::Authority;
use ferry_testkit::images::Image;
use ferry_testkit::peers::{DockerRegistry, Squid};

use crate::access::{PASSWORD, USER, add_user, image};
use crate::harness::{Ferry, push};
use crate::mirror_clients::{config_of, layout_holds, shell_in};
use crate::mirror_harness::prefix;
use crate::tls::{Started, put};

/// The host that the certificate is for, beside the address.
pub const HOST: &str = "cr.test";

/// A mirror that speaks HTTPS and shows things to users only.
pub struct Secured {
    pub ferry: Ferry,
    pub address: SocketAddr,
    pub image: Image,
    upstream: DockerRegistry,
    _started: Started,
}

impl Secured {
    pub async fn new() -> Self {
        let (ferry, authority) = (Ferry::new(), Authority::new().unwrap());
        add_user(&ferry).await;
        let upstream = DockerRegistry::start().await.unwrap();
        let host = upstream.host();
        push(&[image()], host.as_str()).await;
        put(ferry.home.path(), &authority.certify(&[HOST, "127.0.0.1"]).unwrap());
        std::fs::create_dir(ferry.path("certs")).unwrap();
        std::fs::write(ferry.path("certs/ca.crt"), authority.certificate()).unwrap();
        let config = format!(
            "serve:\n  listen: 127.0.0.1:0\n  storage: cache\n  \
             tls: {{certificates: [{{certificate: tls.crt, key: tls.key}}]}}\n  \
             access: {{mode: token, users: users}}\n  mirror: {{upstreams: [\"{host}\"], default: none}}\n"
        );
        std::fs::write(ferry.path("ferry.yaml"), config).unwrap();
        let started = Started::new(ferry.command(&["--config", "ferry.yaml", "serve"]), 1).await;
        let address = started.at[0].strip_prefix("https://").unwrap().parse().unwrap();
        Self { ferry, address, image: image().image, upstream, _started: started }
    }

    /// What the image is called at the mirror, below a host.
    pub fn name(&self, host: &str) -> String {
        format!("{host}:{}/{}/team/app:v1", self.address.port(), prefix(self.upstream.host().as_str()))
    }
}

/// Logs in wrongly and rightly, and pulls before and after. `login` and `pull` are commands; `GIVEN` is where the
/// password goes.
async fn logs_in(secured: &Secured, login: &str, pull: &str) -> String {
    let proxy = Squid::start(&[]).await.unwrap();
    let said = async |script: &str| shell_in(&secured.ferry, script, &proxy).await;
    let strange = said(&login.replace("--cert-dir certs", "").replace("GIVEN", PASSWORD)).await.unwrap_err();
    assert!(strange.contains("x509"), "{strange}");
    let stranger = said(pull).await.unwrap_err();
    assert!(stranger.contains("unauthorized") || stranger.contains("authentication required"), "{stranger}");
    said(&login.replace("GIVEN", "wrong")).await.unwrap_err();
    said(&login.replace("GIVEN", PASSWORD)).await.unwrap();
    said(pull).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_logs_in_and_pulls_over_https() {
    let secured = Secured::new().await;
    let (name, address) = (secured.name("127.0.0.1"), secured.address);
    let login = format!("skopeo login --cert-dir certs --authfile auth.json -u {USER} -p GIVEN {address}");
    let pull = format!(
        "skopeo --insecure-policy copy --authfile auth.json --src-cert-dir certs docker://{name} oci:layout:x"
    );
    std::fs::write(secured.ferry.path("auth.json"), "{}").unwrap();
    logs_in(&secured, &login, &pull).await;
    layout_holds(&secured.ferry.path("layout"), &secured.image);
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_logs_in_and_pulls_over_https() {
    let secured = Secured::new().await;
    std::fs::write(secured.ferry.path("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
        .unwrap();
    std::fs::write(secured.ferry.path("auth.json"), "{}").unwrap();
    let (name, address) = (secured.name("127.0.0.1"), secured.address);
    let podman = "export REGISTRY_AUTH_FILE=$HOME/auth.json; podman --storage-driver vfs --root $HOME/root --runroot $HOME/run";
    let login = format!("{podman} login --cert-dir certs -u {USER} -p GIVEN {address}");
    let pull = format!("{podman} pull --quiet --cert-dir certs --signature-policy policy.json {name}");
    let id = logs_in(&secured, &login, &pull).await;
    assert_eq!(id.trim(), config_of(&secured.image.root).hex());
}
