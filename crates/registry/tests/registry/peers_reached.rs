//! The ways to a registry: tokens, certificates of a private authority, certificates of our own, proxies.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{Digest, Manifest, Registry, media_type};
use ferry_registry::{
    Anonymous, ClientOptions, Credential, Proxies, ProxyUrl, Secret, Site, Tls, TlsVersion,
};
use ferry_store::{Begun, ByteRange, Kind, Mount, PageRequest, Scope};
use ferry_testkit::authority::{Authority, Certified};
use ferry_testkit::peers::{DockerRegistry, Microsocks, PASSWORD, RegistryOptions, Squid, TokenAuth, USER};
use ferry_testkit::tokens::{IDENTITY_TOKEN, SERVICE, TokenServer};

use crate::support::*;

const HOST: &str = "registry.ferry.test";

async fn with_tokens(server: &TokenServer) -> DockerRegistry {
    let dir = tempfile::tempdir().unwrap();
    let certificate = dir.path().join("tokens.pem");
    fs::write(&certificate, server.certificate()).unwrap();
    let tokens = TokenAuth { realm: server.realm(), service: SERVICE.to_owned(), certificate };
    // The registry reads the certificate before it answers.
    DockerRegistry::start_with(&RegistryOptions { tokens: Some(tokens), ..RegistryOptions::default() })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_a_token_server() {
    let server = TokenServer::start(Duration::from_secs(300)).await.unwrap();
    let registry = with_tokens(&server).await;
    let identity = Fixed(Credential::IdentityToken(Secret::new(IDENTITY_TOKEN)));
    for (place, credentials) in [("public/app", password(USER, PASSWORD)), ("private/app", identity)] {
        let before = server.asked().len();
        let store = client(quick(), credentials).registry(&registry.host()).unwrap();
        let repository = store.writable(&Scope::Hosted, &name(place)).unwrap();
        let bytes = content(1, 300_000);
        let digest = push(&repository, &bytes).await;
        push(&repository, &Bytes::from_static(b"{}")).await;
        assert_eq!(server.asked().len() - before, 1, "{:?}", server.asked());
        let other = store.writable(&Scope::Hosted, &name("private/other")).unwrap();
        let begun = other.begin(promised(&bytes, Mount::From(vec![name(place)]))).await.unwrap();
        assert!(matches!(begun, Begun::Mounted), "{begun:?}");
        let scope = format!("repository:private/other:pull,push repository:{place}:pull");
        assert_eq!(server.asked().last(), Some(&scope));
        assert_eq!(repository.stat(&digest).await.unwrap(), Some(300_000));
        let config = Digest::sha256(b"{}");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":2}},"layers":[]}}"#,
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_CONFIG
        );
        let manifest = Manifest::parse(None, Bytes::from(text)).unwrap();
        repository.put_manifest(&manifest, Some(&"v1".parse().unwrap())).await.unwrap();
        let known = store.repositories("", PageRequest::default()).await.unwrap();
        assert!(known.items.iter().any(|entry| entry.name.as_str() == place), "registry:catalog:*");
    }
    let nobody = anonymous(&registry.host());
    let place = |text: &str| nobody.repository(&Scope::Hosted, &name(text));
    place("public/app").manifest(&tag("v1")).await.unwrap();
    assert_eq!(kind(place("private/app").manifest(&tag("v1")).await), Kind::Unauthorized);
    let wrong = client(quick(), password(USER, "wrong")).registry(&registry.host()).unwrap();
    let read = wrong.repository(&Scope::Hosted, &name("public/app")).manifest(&tag("v1")).await;
    assert_eq!(kind(read), Kind::Unauthorized, "a wrong password is not passed over");
}

/// A registry with a certificate of a private authority.
struct Private {
    registry: DockerRegistry,
    authority: Authority,
    dir: tempfile::TempDir,
}

fn write(dir: &Path, file: &str, text: &str) -> PathBuf {
    let path = dir.join(file);
    fs::write(&path, text).unwrap();
    path
}

impl Private {
    async fn start(clients: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new().unwrap();
        let Certified { certificate, key } = authority.certify(&[HOST]).unwrap();
        let tls =
            Some((write(dir.path(), "server.pem", &certificate), write(dir.path(), "server.key", &key)));
        let bundle = write(dir.path(), "ca.pem", &authority.certificate());
        let options =
            RegistryOptions { tls, clients: clients.then_some(bundle), ..RegistryOptions::default() };
        let registry = DockerRegistry::start_with(&options).await.unwrap();
        Self { registry, authority, dir }
    }

    fn host(&self) -> Registry {
        format!("{HOST}:{}", self.registry.addr().port()).parse().unwrap()
    }

    fn tls(&self) -> Tls {
        Tls { roots: vec![self.authority.certificate().into_bytes()], ..Tls::default() }
    }

    /// Pushes and pulls a blob by way of `site`, which counts for this registry only.
    async fn try_with(&self, site: Site) -> ferry_store::Result<()> {
        let sites = [(self.host(), site)].into();
        let resolve = vec![(HOST.to_owned(), "127.0.0.1:0".parse().unwrap())];
        let store = client(ClientOptions { sites, resolve, ..quick() }, Anonymous).registry(&self.host())?;
        let bytes = content(7, 100_000);
        reader(&store).stat(&Digest::sha256(&bytes)).await?;
        let digest = push(&writer(&store), &bytes).await;
        let blob = reader(&store).blob(&digest, ByteRange::ALL).await?;
        assert_eq!(blob.into_bytes().await?, bytes);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_a_private_authority() {
    let private = Private::start(false).await;
    let with = |tls: Tls| Site { tls, ..Site::default() };
    private.try_with(with(private.tls())).await.unwrap();
    private.try_with(with(Tls { oldest: Some(TlsVersion::Tls13), ..private.tls() })).await.unwrap();
    let unknown = private.try_with(Site::default()).await.unwrap_err();
    assert!(unknown.to_string().contains("certificate"), "{unknown}");
    assert!(!unknown.kind().is_transient(), "trying again does not help: {unknown}");
    private.try_with(with(Tls { accept_any: true, ..Tls::default() })).await.unwrap();
    let nonsense = with(Tls { roots: vec![b"-----BEGIN CERTIFICATE-----\nx".to_vec()], ..Tls::default() });
    assert_eq!(private.try_with(nonsense).await.unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_our_own() {
    let private = Private::start(true).await;
    let Certified { certificate, key } = private.authority.certify(&["client.ferry.test"]).unwrap();
    let shown = |identity: String| {
        let tls = Tls { identity: Some(Secret::new(identity)), ..private.tls() };
        Site { tls, ..Site::default() }
    };
    private.try_with(shown(format!("{key}{certificate}"))).await.unwrap();
    let without = Site { tls: private.tls(), ..Site::default() };
    assert!(private.try_with(without).await.is_err());
    let stranger = Authority::new().unwrap().certify(&["client.ferry.test"]).unwrap();
    assert!(private.try_with(shown(format!("{}{}", stranger.key, stranger.certificate))).await.is_err());
    let unreadable = private.try_with(shown("hunter2".to_owned())).await.unwrap_err();
    assert!(!unreadable.to_string().contains("hunter2"), "{unreadable}");
    assert!(private.dir.path().exists());
}

fn proxies(url: &str, except: &str) -> Proxies {
    let proxy: ProxyUrl = url.parse().unwrap();
    Proxies { http: Some(proxy.clone()), https: Some(proxy), except: except.to_owned() }
}

/// What squid has been asked, as soon as that is `enough`.
async fn requests(squid: &Squid, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
    for _ in 0..500 {
        let seen = squid.requests().unwrap();
        if enough(&seen) {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", squid.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn through_squid() {
    let squid = Squid::start(&[HOST]).await.unwrap();
    let url = format!("http://{}", squid.addr());
    let private = Private::start(false).await;
    let site = Site { tls: private.tls(), proxies: proxies(&url, ""), ..Site::default() };
    private.try_with(site.clone()).await.unwrap();
    let connect = format!("CONNECT {}", private.host());
    let seen = requests(&squid, |seen| !seen.is_empty()).await;
    assert!(seen.iter().all(|line| *line == connect), "{seen:?}");

    let plain = DockerRegistry::start().await.unwrap();
    let named: Registry = format!("{HOST}:{}", plain.addr().port()).parse().unwrap();
    let usual = Site { plain_http: Some(true), proxies: proxies(&url, ""), ..Site::default() };
    let store = client(ClientOptions { usual, ..quick() }, Anonymous).registry(&named).unwrap();
    push(&writer(&store), &content(3, 50_000)).await;
    let put = format!("PUT http://{named}/v2/");
    requests(&squid, |seen| seen.iter().any(|line| line.starts_with(&put))).await;

    // Excepted by its name, and this machine always.
    drop(squid);
    let except = Site { proxies: proxies(&url, "ferry.test"), ..site };
    private.try_with(except).await.unwrap();
    let usual = Site { proxies: proxies(&url, ""), ..Site::default() };
    let store = client(ClientOptions { usual, ..quick() }, Anonymous).registry(&plain.host()).unwrap();
    push(&writer(&store), &content(4, 50_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_microsocks() {
    let socks = Microsocks::start("me", "hunter2").await.unwrap();
    let private = Private::start(false).await;
    let through = |login: &str| {
        let url = format!("socks5://{login}@{}", socks.addr());
        Site { tls: private.tls(), proxies: proxies(&url, ""), ..Site::default() }
    };
    private.try_with(through("me:hunter2")).await.unwrap();
    assert!(socks.connections().unwrap() > 0);
    let refused = private.try_with(through("me:wrong-one")).await.unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("wrong-one"), "{refused:?}");

    // Looked up by the proxy: 0.0.0.0 is this machine, and no loopback address.
    let plain = DockerRegistry::start().await.unwrap();
    let named: Registry = format!("0.0.0.0:{}", plain.addr().port()).parse().unwrap();
    let url = format!("socks5h://me:hunter2@{}", socks.addr());
    let usual = Site { plain_http: Some(true), proxies: proxies(&url, ""), ..Site::default() };
    let before = socks.connections().unwrap();
    let store = client(ClientOptions { usual, ..quick() }, Anonymous).registry(&named).unwrap();
    push(&writer(&store), &content(5, 50_000)).await;
    assert!(socks.connections().unwrap() > before);
}
