//! Logins of every kind, private authorities and proxies, with the program as users have it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use ferry_registry::{Asked, Client, ClientOptions, Credential, Credentials, Secret, Site, Tls};
use ferry_store::Scope;
use ferry_testkit::authority::Authority;
use ferry_testkit::images::{NamedImage, SetSpec, image_set};
use ferry_testkit::peers::{DockerRegistry, PASSWORD, RegistryOptions, Squid, TokenAuth, USER, skopeo};
use ferry_testkit::tokens::{SERVICE, TokenServer};
use tokio::io::AsyncWriteExt;

use crate::harness::{Ferry, Ran};
use crate::mirror_harness::{get, prefix, start};

/// A registry that wants tokens, and who gives them.
pub struct Guarded {
    pub registry: DockerRegistry,
    pub server: TokenServer,
}

impl Guarded {
    pub async fn start(ferry: &Ferry) -> Self {
        let server = TokenServer::start(Duration::from_secs(300)).await.unwrap();
        let certificate = ferry.path("tokens.pem");
        fs::write(&certificate, server.certificate()).unwrap();
        let tokens = TokenAuth { realm: server.realm(), service: SERVICE.to_owned(), certificate };
        let options = RegistryOptions { tokens: Some(tokens), ..RegistryOptions::default() };
        Self { registry: DockerRegistry::start_with(&options).await.unwrap(), server }
    }

    pub fn host(&self) -> String {
        self.registry.host().to_string()
    }
}

async fn basic() -> DockerRegistry {
    let options = RegistryOptions { login: true, ..RegistryOptions::default() };
    DockerRegistry::start_with(&options).await.unwrap()
}

struct Known;

#[async_trait::async_trait]
impl Credentials for Known {
    async fn find(&self, _: &Asked<'_>) -> ferry_store::Result<Vec<Credential>> {
        Ok(vec![Credential::Password { username: USER.to_owned(), password: Secret::new(PASSWORD) }])
    }
}

fn images() -> Vec<NamedImage> {
    image_set(&SetSpec { images: 1, seed: 11, base_size: 20_000, own_size: 1_000 })
}

/// Pushes the image to `private/app:v1`.
async fn fill(host: &str, site: Site) {
    let named = NamedImage { repository: "private/app".parse().unwrap(), ..images().remove(0) };
    push_known(host, site, &NamedImage { tag: "v1".parse().unwrap(), ..named }).await;
}

/// Pushes an image as a user who may.
pub async fn push_known(host: &str, site: Site, named: &NamedImage) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client =
        Client::new(ClientOptions { usual: site, ..ClientOptions::default() }, std::sync::Arc::new(Known));
    let store = client.unwrap().registry(&host.parse().unwrap()).unwrap();
    let repository = store.writable(&Scope::Hosted, &named.repository).unwrap();
    named.image.push_to(&*repository, Some(&named.tag)).await.unwrap();
}

/// Runs ferry with more in its environment, and with something to read.
async fn run(ferry: &Ferry, arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Ran {
    let mut command = ferry.command(arguments);
    let mut child = command.envs(variables.iter().copied()).stdin(Stdio::piped()).spawn().unwrap();
    // A run that ends early does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    let said = format!("{}{}", ran.out, ran.err);
    assert!(!said.contains(PASSWORD), "a secret was printed: {said}");
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_tried_and_kept_and_forgotten() {
    let ferry = Ferry::new();
    let (guarded, plain) = (Guarded::start(&ferry).await, basic().await);
    fill(&guarded.host(), Site::default()).await;
    let source = format!("{}/private/app:v1", guarded.host());
    let target = format!("{}/mine/app", plain.host());
    let refused = run(&ferry, &["copy", &source, &target], &[], "").await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.err.contains("ferry login"), "{}", refused.err);

    let login = |host: &str| ["login", "-u", USER, host].map(str::to_owned);
    for host in [guarded.host(), plain.host().to_string()] {
        let arguments = login(&host);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let wrong = run(&ferry, &arguments, &[], "wrong\n").await;
        assert_eq!(wrong.code, Some(4), "{wrong:?}");
        assert!(!ferry.path(".docker/config.json").exists() || host != guarded.host());
        run(&ferry, &arguments, &[], &format!("{PASSWORD}\n")).await.ok();
    }
    let kept = ferry.path(".docker/config.json");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    run(&ferry, &["-vv", "copy", &source, &target], &[], "").await.ok();
    let authfile = kept.to_str().unwrap();
    let image = format!("docker://{target}:v1");
    let seen =
        skopeo(["inspect", "--raw", "--tls-verify=false", "--authfile", authfile, &image]).await.unwrap();
    assert!(seen.status.success(), "{}", String::from_utf8_lossy(&seen.stderr));

    run(&ferry, &["logout", &guarded.host()], &[], "").await.ok();
    let refused = run(&ferry, &["inspect", &source], &[], "").await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    run(&ferry, &["tags", &format!("{}/mine/app", plain.host())], &[], "").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_from_the_environment_and_from_the_configuration() {
    let ferry = Ferry::new();
    let (guarded, plain) = (Guarded::start(&ferry).await, basic().await);
    fill(&guarded.host(), Site::default()).await;
    let source = format!("{}/private/app:v1", guarded.host());
    let of_source = [("FERRY_SOURCE_USERNAME", USER), ("FERRY_SOURCE_PASSWORD", PASSWORD)];
    let of_target = [("FERRY_TARGET_USERNAME", USER), ("FERRY_TARGET_PASSWORD", PASSWORD)];
    let both = [of_source, of_target].concat();
    let to = |name: &str| format!("{}/{name}", plain.host());
    run(&ferry, &["-vv", "copy", &source, &to("by/environment")], &both, "").await.ok();
    let half = run(&ferry, &["copy", &source, &to("half")], &of_source, "").await;
    assert_eq!(half.code, Some(4), "the source's account is not the target's: {half:?}");

    fs::write(ferry.path("password"), format!("{PASSWORD}\n")).unwrap();
    fs::create_dir_all(ferry.path(".config/ferry")).unwrap();
    let configuration = format!(
        "registries:\n  {}:\n    accounts: [{{username: {USER}, password: {{file: ../../password}}}}]\n  \
         {}:\n    accounts: [{{username: {USER}, password: {{command: [/bin/cat, {}]}}}}]\n",
        guarded.host(),
        plain.host(),
        ferry.path("password").display(),
    );
    fs::write(ferry.path(".config/ferry/ferry.yaml"), configuration).unwrap();
    run(&ferry, &["config", "check"], &[], "").await.ok();
    run(&ferry, &["config", "show"], &[], "").await.ok();
    run(&ferry, &["-vv", "copy", &source, &to("by/configuration")], &[], "").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_behind_a_credential_helper() {
    let ferry = Ferry::new();
    let plain = basic().await;
    let host = plain.host().to_string();
    fill(&host, Site::default()).await;
    let bin = ferry.path("bin");
    fs::create_dir(&bin).unwrap();
    // Keeps one login, in a file.
    let script = "#!/bin/sh\ncase $1 in\nstore) cat > \"$HOME/kept\" ;;\nerase) rm \"$HOME/kept\" ;;\n\
         get) if [ -e \"$HOME/kept\" ]; then cat \"$HOME/kept\"; else \
         echo credentials not found in native keychain; exit 1; fi ;;\nesac\n";
    fs::write(bin.join("docker-credential-test"), script).unwrap();
    fs::set_permissions(bin.join("docker-credential-test"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(ferry.path(".docker")).unwrap();
    fs::write(ferry.path(".docker/config.json"), r#"{"credsStore": "test"}"#).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let with_path = [("PATH", path.as_str())];
    let image = format!("{host}/private/app:v1");
    assert_eq!(run(&ferry, &["inspect", &image], &with_path, "").await.code, Some(4));
    run(&ferry, &["login", "-u", USER, &host], &with_path, PASSWORD).await.ok();
    assert!(!fs::read_to_string(ferry.path(".docker/config.json")).unwrap().contains("auth\":"));
    run(&ferry, &["inspect", &image], &with_path, "").await.ok();
    run(&ferry, &["logout", &host], &with_path, "").await.ok();
    assert!(!ferry.path("kept").exists());
    let without = run(&ferry, &["inspect", &image], &[("PATH", "/nowhere")], "").await;
    assert!(without.err.contains("docker-credential-test"), "{}", without.err);
}

/// A registry of a private authority, which also wants to see certificates; those files stand beside `ferry`. With the way to it.
async fn private(ferry: &Ferry) -> (DockerRegistry, Site) {
    let authority = Authority::new().unwrap();
    let server = authority.certify(&["localhost"]).unwrap();
    let ours = authority.certify(&["client.ferry.test"]).unwrap();
    for (file, text) in [
        ("ca.pem", &authority.certificate()),
        ("server.pem", &server.certificate),
        ("server.key", &server.key),
        ("me.pem", &ours.certificate),
        ("me.key", &ours.key),
    ] {
        fs::write(ferry.path(file), text).unwrap();
    }
    let tls = Some((ferry.path("server.pem"), ferry.path("server.key")));
    let options = RegistryOptions { tls, clients: Some(ferry.path("ca.pem")), ..RegistryOptions::default() };
    let registry = DockerRegistry::start_with(&options).await.unwrap();
    let identity = Some(Secret::new(format!("{}{}", ours.key, ours.certificate)));
    let tls = Tls { roots: vec![authority.certificate().into_bytes()], identity, ..Tls::default() };
    (registry, Site { plain_http: Some(false), tls, ..Site::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_client_certificates_and_a_proxy_by_configuration() {
    let ferry = Ferry::new();
    let (registry, site) = private(&ferry).await;
    let host = format!("localhost:{}", registry.addr().port());
    fill(&host, site).await;
    let image = format!("{host}/private/app:v1");
    let configured = |tls: &str| format!("registries:\n  {host}:\n    plain_http: false\n    tls: {tls}\n");
    let whole = configured("{ca: ca.pem, certificate: me.pem, key: me.key, min_version: \"1.3\"}");
    fs::write(ferry.path("ferry.yaml"), &whole).unwrap();
    let with = ["--config", "ferry.yaml"];
    run(&ferry, &[&with[..], &["copy", &image, "oci:layout"]].concat(), &[], "").await.ok();
    fs::write(ferry.path("ferry.yaml"), configured("{ca: ca.pem}")).unwrap();
    let refused = run(&ferry, &[&with[..], &["inspect", &image]].concat(), &[], "").await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    let insecure = configured("{insecure: true, certificate: me.pem, key: me.key}");
    fs::write(ferry.path("ferry.yaml"), insecure).unwrap();
    let warned = run(&ferry, &[&with[..], &["inspect", &image]].concat(), &[], "").await.ok();
    assert!(warned.err.contains("certificates are not checked"), "{}", warned.err);

    // A plain registry that only the proxy can find.
    let squid = Squid::start(&["only.ferry.test"]).await.unwrap();
    let plain = DockerRegistry::start().await.unwrap();
    let behind = format!("only.ferry.test:{}", plain.addr().port());
    let configured =
        format!("registries:\n  {behind}: {{plain_http: true, proxy: \"http://{}\"}}\n", squid.addr());
    fs::write(ferry.path("ferry.yaml"), configured).unwrap();
    let arguments = ["copy", "oci:layout", &format!("{behind}/mine/app")].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(&ferry, &[&with[..], &arguments].concat(), &[], "").await.ok();
    fs::write(ferry.path("ferry.yaml"), format!("registries:\n  {behind}: {{plain_http: true}}\n")).unwrap();
    let proxy = format!("http://{}", squid.addr());
    let by_environment = [("http_proxy", proxy.as_str())];
    run(&ferry, &[&with[..], &["tags", &format!("{behind}/mine/app")]].concat(), &by_environment, "")
        .await
        .ok();

    // A mirror reaches both in the same way.
    let both = format!(
        "{whole}  {behind}: {{plain_http: true, proxy: \"http://{}\"}}\nserve: {{mirror: {{upstreams: [{host}, {behind}]}}}}\n",
        squid.addr()
    );
    let mirror = start(&ferry, "cache", &both).await;
    for (upstream, path) in [(&host, "private/app/manifests/v1"), (&behind, "mine/app/tags/list")] {
        let seen = get(&mirror, &format!("/v2/{}/{path}", prefix(upstream))).await;
        assert_eq!(seen.status, 200, "{upstream}: {}", seen.text());
    }
}
