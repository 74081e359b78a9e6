//! A mirror of two upstreams, with repositories of its own beside them.

use std::convert::Infallible;
use std::sync::Arc;

use ferry_oci::{Digest, Manifest, Name, Registry, media_type};
use ferry_policy::address::{Addressing, Front};
use ferry_policy::upstream::{Upstream, Upstreams};
use ferry_serve::{Limits, Mirror, RegistryService};
use ferry_store::{Begun, Expect, MemoryStore, Mount, Scope, Store};

use crate::client::Server;

/// The stores behind a server.
struct Behind {
    server: Server,
    hosted: Arc<MemoryStore>,
    hub: Arc<MemoryStore>,
    corp: Arc<MemoryStore>,
}

impl Behind {
    async fn new() -> Self {
        let [hosted, hub, corp] = [(); 3].map(|()| Arc::new(MemoryStore::new()));
        let registry: Registry = "registry.corp:5000".parse().unwrap();
        let upstream = Upstream { aliases: vec!["corp".parse().unwrap()], ..Upstream::new(registry.clone()) };
        let upstreams = Upstreams::new(vec![Upstream::new(Registry::docker_hub()), upstream]).unwrap();
        let front = Front {
            domain: Some("cr.example.cn".parse().unwrap()),
            defaults: vec![("hub.example.cn".parse().unwrap(), Registry::docker_hub())],
            default: None,
            hosted: vec!["team/**".parse().unwrap()],
        };
        let stores = (Arc::clone(&hub), Arc::clone(&corp));
        let mirror = Mirror::new(Addressing::new(upstreams, front).unwrap(), |upstream| {
            let store: Arc<dyn Store> =
                if upstream.registry == registry { stores.1.clone() } else { stores.0.clone() };
            Ok::<_, Infallible>(store)
        });
        let service = RegistryService::new(hosted.clone()).mirroring(mirror.unwrap());
        Self { server: Server::of(service, Limits::default()).await, hosted, hub, corp }
    }
}

/// Puts a manifest that consists of its text alone, under these tags.
pub async fn put(store: &MemoryStore, name: &str, text: &str, tags: &[&str]) -> Digest {
    let body = format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{"is":"{text}"}}}}"#);
    let manifest = Manifest::parse(Some(media_type::OCI_INDEX), body.into()).unwrap();
    let repository = store.writable(&Scope::Hosted, &name.parse().unwrap()).unwrap();
    for tag in tags {
        repository.put_manifest(&manifest, Some(&tag.parse().unwrap())).await.unwrap();
    }
    manifest.digest()
}

pub async fn put_blob(store: &MemoryStore, name: &str, content: &'static [u8]) -> Digest {
    let name: Name = name.parse().unwrap();
    let digest = Digest::sha256(content);
    let expect = Expect { digest: Some(digest), size: None, mount: Mount::No };
    let repository = store.writable(&Scope::Hosted, &name).unwrap();
    let Begun::Upload(mut upload) = repository.begin(expect).await.unwrap() else { panic!("no upload") };
    upload.write(content.into()).await.unwrap();
    upload.commit(&digest).await.unwrap();
    digest
}

#[tokio::test]
async fn a_repository_is_found_in_every_way() {
    let behind = Behind::new().await;
    let hub = put(&behind.hub, concat!("library", "/mysql"), "hub", &["8"]).await.to_string();
    let corp = put(&behind.corp, "a/b", "corp", &["8"]).await.to_string();
    let own = put(&behind.hosted, "team/app", "own", &["8"]).await.to_string();
    for (host, target, digest, namespace) in [
        ("cr.example.cn", "/v2/docker.io/mysql/manifests/8", &hub, ""),
        ("10.0.0.5", "/v2/registry.corp-5000/a/b/manifests/8", &corp, ""),
        ("10.0.0.5", "/v2/registry.corp:5000/a/b/manifests/8", &corp, ""),
        ("corp.cr.example.cn", "/v2/a/b/manifests/8", &corp, ""),
        ("hub.example.cn:8080", "/v2/mysql/manifests/8", &hub, ""),
        ("cr.example.cn", "/docker.io/v2/mysql/manifests/8", &hub, ""),
        ("x", "/v2/mysql/manifests/8?ns=docker.io", &hub, "docker.io"),
        ("x", "/v2/a/b/manifests/8?ns=registry.corp%3A5000", &corp, "registry.corp:5000"),
        ("x", "/docker.io/v2/mysql/manifests/8?ns=docker.io", &hub, "docker.io"),
        ("x", "/v2/team/app/manifests/8", &own, ""),
        ("hub.example.cn", "/v2/team/app/manifests/8", &own, ""),
    ] {
        for method in ["GET", "HEAD"] {
            let reply = behind.server.send(&format!("{method} {target}"), &[("host", host)], b"").await;
            assert_eq!(reply.status, 200, "{host} {target}");
            assert_eq!(reply.header("docker-content-digest"), digest, "{host} {target}");
            assert_eq!(reply.header("oci-namespace"), namespace, "{host} {target}");
            assert_eq!(reply.headers.contains_key("cache-status"), *digest != own, "{host} {target}");
        }
    }
}

#[tokio::test]
async fn what_is_nowhere_gets_the_list() {
    let behind = Behind::new().await;
    put(&behind.hosted, "other/app", "own", &["x"]).await;
    for target in [
        "/v2/gcr.io/a/manifests/x",
        "/v2/a/manifests/x?ns=evil.example",
        "/v2/docker.io/a/manifests/x?ns=169.254.169.254",
        "/v2/other/app/manifests/x",
        "/elsewhere/v2/a/tags/list",
    ] {
        let reply = behind.server.get(target).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "NAME_UNKNOWN"), "{target}");
        let body = String::from_utf8(reply.body).unwrap();
        assert!(body.contains("docker.io, registry.corp:5000"), "{body}");
    }
    for target in ["/v2/docker.io/UPPER/manifests/x", "/v2/docker.io/a/../b/manifests/x", "/v2/A/tags/list"] {
        let reply = behind.server.get(target).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "NAME_INVALID"), "{target}");
    }
    let reply = behind.server.get("/v2/a/manifests/none?ns=docker.io").await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "MANIFEST_UNKNOWN"));
    assert!(String::from_utf8(reply.body.clone()).unwrap().contains("not found at docker.io"));
    assert_eq!(reply.header("oci-namespace"), "docker.io");
}

#[tokio::test]
async fn upstreams_are_only_read() {
    let behind = Behind::new().await;
    let manifest = br#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = put_blob(&behind.corp, "a", b"there").await;
    for (line, host) in [
        ("PUT /v2/docker.io/a/manifests/x".to_owned(), "x"),
        ("PUT /v2/a/manifests/x".to_owned(), "corp.cr.example.cn"),
        ("PUT /v2/a/manifests/x?ns=registry.corp:5000".to_owned(), "x"),
        ("PUT /v2/team/app/manifests/x?ns=docker.io".to_owned(), "x"),
        ("POST /v2/docker.io/a/blobs/uploads/".to_owned(), "x"),
        ("PATCH /v2/docker.io/a/blobs/uploads/token".to_owned(), "x"),
        ("GET /v2/docker.io/a/blobs/uploads/token".to_owned(), "x"),
        (format!("DELETE /v2/registry.corp-5000/a/blobs/{digest}"), "x"),
        (format!("DELETE /v2/registry.corp-5000/a/manifests/{digest}"), "x"),
    ] {
        let headers = [("host", host), ("content-type", media_type::OCI_INDEX)];
        let reply = behind.server.send(&line, &headers, manifest).await;
        assert_eq!((reply.status, reply.code().as_str()), (405, "UNSUPPORTED"), "{line}");
        assert_eq!(reply.header("allow"), "GET, HEAD", "{line}");
        assert!(String::from_utf8(reply.body).unwrap().contains("only pulled from"), "{line}");
    }
    let blob = behind.server.get(&format!("/v2/a/blobs/{digest}?ns=registry.corp:5000")).await;
    assert_eq!((blob.status, blob.body.as_slice()), (200, b"there".as_slice()));
    assert!(behind.hub.repositories("", Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn our_own_stays_apart() {
    let behind = Behind::new().await;
    put(&behind.hosted, "team/app", "own", &["x"]).await;
    put(&behind.hub, "a/b", "hub", &["x"]).await;
    for target in ["/v2/", "/docker.io/v2/", "/v2", "/v2/?ns=evil.example"] {
        assert_eq!(behind.server.get(target).await.status, 200, "{target}");
    }
    let catalog = behind.server.get("/v2/_catalog?ns=docker.io").await;
    assert_eq!(catalog.body, br#"{"repositories":["team/app"]}"#);
    let pushed = behind
        .server
        .send(
            "PUT /v2/team/new/manifests/x",
            &[("content-type", media_type::OCI_INDEX)],
            br#"{"schemaVersion":2,"manifests":[]}"#,
        )
        .await;
    assert_eq!(pushed.status, 201);
    // Somebody pushed it when this was no mirror yet.
    let before = put_blob(&behind.hosted, "docker.io/secret", b"before").await;
    let own = put_blob(&behind.hosted, "team/app", b"own").await;
    for (digest, from, status) in
        [(before, "&from=docker.io/secret", 202), (before, "", 202), (own, "&from=team/app", 201)]
    {
        let line = format!("POST /v2/team/new/blobs/uploads/?mount={digest}{from}");
        assert_eq!(behind.server.send(&line, &[], b"").await.status, status, "{from}");
    }
}

#[tokio::test]
async fn the_next_page_is_asked_for_in_the_same_way() {
    let behind = Behind::new().await;
    put(&behind.corp, "a/b", "corp", &["one", "two"]).await;
    for (target, next) in [
        ("/v2/registry.corp:5000/a/b/tags/list?n=1", "/v2/registry.corp:5000/a/b/tags/list?n=1&last=one"),
        (
            "/v2/a/b/tags/list?n=1&ns=registry.corp:5000",
            "/v2/a/b/tags/list?ns=registry.corp%3A5000&n=1&last=one",
        ),
        ("/registry.corp-5000/v2/a/b/tags/list?n=1", "/registry.corp-5000/v2/a/b/tags/list?n=1&last=one"),
    ] {
        let first = behind.server.get(target).await;
        assert_eq!(first.body, br#"{"name":"a/b","tags":["one"]}"#, "{target}");
        assert_eq!(first.header("link"), format!("<{next}>; rel=\"next\""));
        assert_eq!(behind.server.get(next).await.body, br#"{"name":"a/b","tags":["two"]}"#, "{next}");
    }
}
