use std::io::ErrorKind;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferry_oci::{Digest, Name};
use ferry_store::{Begun, Expect, Mount, Scope, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const BLOB: &[u8] = &[7; 100_000];

/// What one request on a connection of its own came to.
struct Got {
    head: String,
    body: Vec<u8>,
    error: Option<ErrorKind>,
}

impl Got {
    fn status(&self) -> &str {
        self.head.get(9..12).unwrap_or("none")
    }
}

async fn send(registry: &FakeRegistry, line: &str, headers: &str, body: &[u8]) -> Got {
    let mut stream = TcpStream::connect(registry.address()).await.unwrap();
    let length = body.len();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let written = stream.write_all(body).await;
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all).await;
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    Got { head, body: all[end..].to_vec(), error: read.map(|_| ()).and(written).err().map(|e| e.kind()) }
}

async fn get(registry: &FakeRegistry, headers: &str) -> Got {
    send(registry, &format!("GET /v2/a/blobs/{}", Digest::sha256(BLOB)), headers, b"").await
}

async fn with_blob() -> FakeRegistry {
    let registry = FakeRegistry::start().await.unwrap();
    let name: Name = "a".parse().unwrap();
    let repository = registry.store().writable(&Scope::Hosted, &name).unwrap();
    let expect = Expect { digest: None, size: None, mount: Mount::No };
    let Begun::Upload(mut upload) = repository.begin(expect).await.unwrap() else { panic!("no upload") };
    upload.write(Bytes::from_static(BLOB)).await.unwrap();
    upload.commit(&Digest::sha256(BLOB)).await.unwrap();
    registry
}

#[tokio::test]
async fn rules_choose_and_run_out() {
    let registry = with_blob().await;
    let status = Fault::Status { status: 429, retry_after: Some("7".to_owned()), body: "{}".to_owned() };
    registry.fail(FaultRule::new(status).method("GET").path("/blobs/").skip(1).times(2));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let got = get(&registry, "").await;
        assert_eq!(got.head.contains("retry-after: 7"), got.status() == "429");
        statuses.push(got.status().to_owned());
    }
    assert_eq!(statuses, ["200", "429", "429", "200"]);
    registry.fail(FaultRule::new(Fault::status(500)).always());
    assert_eq!(get(&registry, "").await.status(), "500");
    registry.heal();
    assert_eq!(get(&registry, "").await.status(), "200");
}

#[tokio::test]
async fn bodies_break() {
    let registry = with_blob().await;
    registry.fail(FaultRule::new(Fault::Truncate { after: 70_000 }));
    let cut = get(&registry, "").await;
    assert!(cut.head.contains("content-length: 100000\r\n"));
    assert_eq!((cut.body.len(), cut.error), (70_000, None));
    registry.fail(FaultRule::new(Fault::Reset { after: 10 }));
    let reset = get(&registry, "").await;
    assert_eq!((reset.body.len(), reset.error), (10, Some(ErrorKind::ConnectionReset)));
    registry.fail(FaultRule::new(Fault::Reset { after: 0 }));
    let nothing = get(&registry, "").await;
    assert_eq!((nothing.status(), nothing.error), ("none", Some(ErrorKind::ConnectionReset)));
    registry.fail(FaultRule::new(Fault::Truncate { after: 0 }));
    let nothing = get(&registry, "").await;
    assert_eq!((nothing.status(), nothing.error), ("none", None));
}

#[tokio::test]
async fn bodies_change() {
    let registry = with_blob().await;
    registry.fail(FaultRule::new(Fault::Corrupt { at: 99_999 }));
    let corrupt = get(&registry, "").await.body;
    assert_eq!((&corrupt[..99_999], corrupt[99_999]), (&BLOB[..99_999], 6));
    registry.fail(FaultRule::new(Fault::Trickle { chunk: 30_000, pause: Duration::from_millis(1) }));
    assert_eq!(get(&registry, "").await.body, BLOB);
    registry.fail(FaultRule::new(Fault::IgnoreRange));
    let whole = get(&registry, "range: bytes=5-9\r\n").await;
    assert_eq!((whole.status(), whole.body.len()), ("200", BLOB.len()));
    assert_eq!(get(&registry, "range: bytes=5-9\r\n").await.status(), "206");
    registry.fail(FaultRule::new(Fault::WrongDigest));
    for named in [Digest::sha256(b"something else"), Digest::sha256(BLOB)] {
        let head = get(&registry, "").await.head;
        assert_eq!(head.matches("docker-content-digest").count(), 1);
        assert!(head.contains(&format!("docker-content-digest: {named}")), "{head}");
    }
}

#[tokio::test]
async fn a_stalled_body_stays_open() {
    let registry = with_blob().await;
    registry.fail(FaultRule::new(Fault::Stall { after: 3 }));
    assert!(tokio::time::timeout(Duration::from_millis(200), get(&registry, "")).await.is_err());
}

#[tokio::test]
async fn a_request_is_cut_and_the_upload_remains() {
    let registry = FakeRegistry::start().await.unwrap();
    let begun = send(&registry, "POST /v2/a/blobs/uploads/", "", b"").await;
    let location = begun.head.split("location: ").nth(1).unwrap().split("\r\n").next().unwrap();
    registry.fail(FaultRule::new(Fault::CutRequest { after: 50_000 }).method("PATCH"));
    let cut = send(&registry, &format!("PATCH {location}"), "", &vec![0; 4_000_000]).await;
    assert!(cut.error.is_some() && cut.head.is_empty());
    let status = send(&registry, &format!("GET {location}"), "", b"").await;
    let range = status.head.split("range: 0-").nth(1).unwrap().split("\r\n").next().unwrap();
    let last: u64 = range.parse().unwrap();
    assert!((40_000..3_999_999).contains(&last), "{last}");
    registry.fail(FaultRule::new(Fault::StaleUpload).method("PATCH"));
    let stale = send(&registry, &format!("PATCH {location}"), "", b"x").await;
    assert_eq!(stale.status(), "404");
    assert!(stale.body.starts_with(br#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN""#));
    assert_eq!((registry.count(Kind::UploadPatch), registry.count(Kind::UploadGet)), (2, 1));
}

async fn token(registry: &FakeRegistry, query: &str, headers: &str) -> String {
    let got = send(registry, &format!("GET /token?service=fake{query}"), headers, b"").await;
    let value: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
    format!("authorization: Bearer {}\r\n", value["token"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn tokens_hold_scopes_and_expire() {
    let registry = with_blob().await;
    let login = Some(Login::new("u", "p"));
    registry.require(Auth::Bearer { login, lifetime: Duration::from_secs(60) });
    let refused = get(&registry, "").await;
    assert_eq!(refused.status(), "401");
    let challenge = format!(
        "www-authenticate: Bearer realm=\"http://{}/token\",service=\"fake\",scope=\"repository:a:pull\"",
        registry.address()
    );
    assert!(refused.head.contains(&challenge), "{}", refused.head);
    assert_eq!(send(&registry, "GET /token", "", b"").await.status(), "401");
    let basic = format!("authorization: Basic {}\r\n", STANDARD.encode("u:p"));
    let other = token(&registry, "&scope=repository:b:pull", &basic).await;
    assert_eq!(get(&registry, &other).await.status(), "401");
    let right = token(&registry, "&scope=repository%3Aa%3Apull%2Cpush", &basic).await;
    assert_eq!(get(&registry, &right).await.status(), "200");
    assert_eq!(send(&registry, "GET /v2/", &right, b"").await.status(), "200");
    assert_eq!(send(&registry, "POST /v2/a/blobs/uploads/", &right, b"").await.status(), "202");
    let digest = Digest::sha256(BLOB);
    let mount = format!("POST /v2/a/blobs/uploads/?mount={digest}&from=c");
    assert_eq!(send(&registry, &mount, &right, b"").await.status(), "401");
    registry.expire_tokens();
    assert_eq!(get(&registry, &right).await.status(), "401");
    registry.require(Auth::Bearer { login: None, lifetime: Duration::ZERO });
    let expired = token(&registry, "&scope=repository:a:pull", "").await;
    assert_eq!(get(&registry, &expired).await.status(), "401");
}

#[tokio::test]
async fn basic_authentication() {
    let registry = with_blob().await;
    registry.require(Auth::Basic(Login::new("u", "p")));
    assert!(get(&registry, "").await.head.contains("www-authenticate: Basic realm=\"fake\""));
    let right = format!("authorization: Basic {}\r\n", STANDARD.encode("u:p"));
    assert_eq!(get(&registry, &right).await.status(), "200");
    assert_eq!(registry.requests().iter().map(|r| r.authorized).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn requests_are_remembered_and_the_end_is_an_end() {
    let registry = with_blob().await;
    get(&registry, "range: bytes=0-1\r\n").await;
    let seen = registry.requests();
    assert_eq!((seen[0].kind, seen[0].range.as_deref()), (Kind::BlobGet, Some("bytes=0-1")));
    registry.reset_counts();
    assert!(registry.requests().is_empty());
    assert_eq!(registry.host().unwrap().to_string(), registry.address().to_string());
    let address = registry.address();
    drop(registry);
    let mut refused = false;
    for _ in 0..200 {
        refused = TcpStream::connect(address).await.is_err();
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(refused);
}

async fn put(registry: &FakeRegistry, repository: &str, manifest: &ferry_oci::Manifest) -> Got {
    let line = format!("PUT /v2/{repository}/manifests/{}", manifest.digest());
    let headers = format!("content-type: {}\r\n", manifest.media_type());
    send(registry, &line, &headers, manifest.bytes()).await
}

#[tokio::test]
async fn particular_registries() {
    use crate::images::{ImageBuilder, MediaTypes};
    let registry = FakeRegistry::start().await.unwrap();
    let repository = registry.store().writable(&Scope::Hosted, &"a/b".parse().unwrap()).unwrap();
    let image = |types| ImageBuilder::new(types).platform("linux/amd64", []).attestations().build();
    let (oci, docker) = (image(MediaTypes::Oci), image(MediaTypes::Docker));
    for image in [&oci, &docker] {
        image.push_to(&*repository, None).await.unwrap();
    }
    registry.quirks(Quirks { refuses_oci: true, ..Quirks::default() });
    let refused = put(&registry, "a/b", &oci.manifests[0]).await;
    let body = String::from_utf8(refused.body.clone()).unwrap();
    assert_eq!(refused.status(), "400");
    assert!(body.contains("MANIFEST_INVALID") && body.contains("fail to parse 'manifest.json'"), "{body}");
    assert_eq!(put(&registry, "a/b", &docker.root).await.status(), "201");
    registry.quirks(Quirks { refuses_attestations: true, ..Quirks::default() });
    assert_eq!(put(&registry, "a/b", &docker.root).await.status(), "400");
    assert_eq!(put(&registry, "a/b", &docker.manifests[0]).await.status(), "201");
    registry.quirks(Quirks { manifest_size: Some(100), ..Quirks::default() });
    assert_eq!(put(&registry, "a/b", &docker.manifests[0]).await.status(), "400");
    registry.quirks(Quirks { depth: Some(1), ..Quirks::default() });
    let deep = send(&registry, "POST /v2/a/b/blobs/uploads/", "", b"").await;
    assert_eq!(deep.status(), "400");
    assert!(deep.body.starts_with(br#"{"errors":[{"code":"NAME_INVALID""#));
    assert_eq!(send(&registry, "POST /v2/a/blobs/uploads/", "", b"").await.status(), "202");
    registry.quirks(Quirks::default());
    assert_eq!(put(&registry, "a/b", &oci.root).await.status(), "201");
}
