//! Answers that are made to hold us, to fill our memory, or to be taken for others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferry_oci::{Digest, MAX_MANIFEST_SIZE, Reference};
use ferry_registry::{Anonymous, ClientOptions};
use ferry_store::{ByteRange, Kind, PageRequest, Repository, Scope, Store};

use crate::fake::{Fake, Reply};
use crate::raw::{Raw, Script, chunked};
use crate::support::*;

/// What may be on its way in the buffers of a connection.
const BUFFERS: usize = 12 << 20;

fn store(raw: &Raw) -> Arc<dyn Store> {
    client(ClientOptions { attempts: 1, ..quick() }, Anonymous).registry(&raw.registry()).unwrap()
}

fn repository(raw: &Raw) -> Arc<dyn Repository> {
    reader(&store(raw))
}

/// Read by somebody who gives up.
fn hurried(raw: &Raw) -> Arc<dyn Repository> {
    let options = ClientOptions { attempts: 1, ..impatient() };
    reader(&client(options, Anonymous).registry(&raw.registry()).unwrap())
}

fn digest() -> Digest {
    Digest::sha256(b"x")
}

/// All that is read whole, with the most that is taken of each.
async fn read_all(store: &Arc<dyn Store>, mut check: impl FnMut(&str, Kind, usize)) {
    let repository = reader(store);
    let manifest = MAX_MANIFEST_SIZE as usize;
    check("manifest", kind(repository.manifest(&tag("t")).await), manifest);
    check("tags", kind(repository.tags(PageRequest::default()).await), 32 << 20);
    check("referrers", kind(repository.referrers(&digest(), None, PageRequest::default()).await), manifest);
    check("repositories", kind(store.repositories("", PageRequest::default()).await), 32 << 20);
}

#[tokio::test]
async fn answers_without_end_are_not_read_to_it() {
    let raw = Raw::start(|_| {
        let (head, chunk) = chunked("200 OK", &[b' '; 65536]);
        Script::new(head).endless(chunk)
    })
    .await;
    let mut before = 0;
    read_all(&store(&raw), |what, kind, most| {
        let taken = raw.written() - before;
        before = raw.written();
        assert_eq!(kind, Kind::Invalid, "{what}");
        assert!(taken < most + BUFFERS, "{taken} bytes of {what}");
    })
    .await;
}

#[tokio::test]
async fn errors_without_end_are_not_read_to_it() {
    let raw = Raw::start(|_| {
        let (head, chunk) = chunked("403 Forbidden", &[b'x'; 65536]);
        Script::new(head).endless(chunk)
    })
    .await;
    let error = repository(&raw).blob(&digest(), ByteRange::ALL).await.unwrap_err();
    assert_eq!((error.kind(), error.detail()), (Kind::Denied, "403 Forbidden"));
    assert!(raw.written() < BUFFERS, "{}", raw.written());
}

#[tokio::test]
async fn a_token_without_end_is_not_read_to_it() {
    let raw = Raw::start(|head| {
        let host = head.split("host: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let challenge = format!("www-authenticate: Bearer realm=\"http://{host}/token\"");
        match head.contains("GET /token") {
            true => {
                let (head, chunk) = chunked("200 OK", &[b' '; 65536]);
                Script::new(head).endless(chunk)
            }
            false => Script::new(format!("HTTP/1.1 401 No\r\n{challenge}\r\ncontent-length: 0\r\n\r\n")),
        }
    })
    .await;
    assert_eq!(kind(repository(&raw).stat(&digest()).await), Kind::Invalid);
    assert!(raw.written() < (1 << 20) + BUFFERS, "{}", raw.written());
}

/// Each byte comes in time, but all of them would take years.
#[tokio::test]
async fn answers_that_trickle_are_given_up() {
    let head = ("HTTP/1.1 200 OK\r\nx-long: ".to_owned(), b"x".to_vec());
    let interim = ("HTTP/1.1 100 Continue\r\n\r\n".to_owned(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
    let scripts = [chunked("200 OK", b" "), chunked("403 Forbidden", b"x"), head, interim];
    let given_up = scripts.map(|(first, again)| async move {
        let expected = if first.contains("403") { Kind::Denied } else { Kind::Stalled };
        let drop = Duration::from_millis(50);
        let raw = Raw::start(move |_| Script::new(&*first).endless(&*again).slowly(drop)).await;
        let asked = async { kind(hurried(&raw).manifest(&tag("t")).await) };
        let answered = tokio::time::timeout(30 * impatient().idle_timeout, asked).await;
        assert_eq!(answered.expect("it is given up"), expected);
    });
    futures_util::future::join_all(given_up).await;
}

#[tokio::test]
async fn a_blob_that_trickles_is_given_up() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let raw = Raw::start(move |_| Script::new(head).endless("x").slowly(Duration::from_millis(50))).await;
    let blob = hurried(&raw).blob(&digest(), ByteRange::ALL).await.unwrap();
    let read = tokio::time::timeout(30 * impatient().idle_timeout, blob.into_bytes()).await;
    assert_eq!(kind(read.expect("it is given up")), Kind::Stalled);
}

#[tokio::test]
async fn a_thin_link_is_no_trickle() {
    let chunk = vec![b'x'; 1000];
    let raw = Raw::start(move |_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
        Script::new(head).endless(&*chunk).slowly(Duration::from_millis(40))
    })
    .await;
    let blob = hurried(&raw).blob(&digest(), ByteRange::ALL).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_page_of_too_many_names_is_refused() {
    let names = "\"\",".repeat(1_000_000);
    let body = format!(r#"{{"tags":[{names}""],"repositories":[{names}""]}}"#);
    let fake = Fake::start(move |_| Reply::new(200).body(body.clone())).await;
    let store = client(quick(), Anonymous).registry(&fake.registry()).unwrap();
    assert_eq!(kind(reader(&store).tags(PageRequest::default()).await), Kind::Invalid);
    assert_eq!(kind(store.repositories("", PageRequest::default()).await), Kind::Invalid);
}

#[tokio::test]
async fn heads_without_end_are_not_read_to_it() {
    for again in ["x-flood: and another one of them\r\n", "x"] {
        let raw =
            Raw::start(move |_| Script::new("HTTP/1.1 200 OK\r\nx-first: ").endless(again.repeat(1000)))
                .await;
        let error = repository(&raw).manifest(&tag("t")).await.unwrap_err();
        assert!(error.kind().is_transient(), "{error}");
        assert!(raw.written() < BUFFERS, "{}", raw.written());
    }
}

#[tokio::test]
async fn lengths_that_are_none_are_not_believed() {
    for length in [
        "content-length: -1",
        "content-length: 1, 2",
        "content-length: 1\r\ncontent-length: 2",
        "content-length: +1",
    ] {
        let raw = Raw::start(move |head| {
            let body = if head.starts_with("HEAD") { "" } else { "x" };
            Script::new(format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n{body}"))
        })
        .await;
        let repository = repository(&raw);
        assert!(repository.stat(&digest()).await.is_err(), "{length}");
        let blob = repository.blob(&digest(), ByteRange::ALL).await;
        assert!(blob.is_err(), "{length}");
    }
}

#[tokio::test]
async fn a_length_beyond_all_bounds_reserves_nothing() {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", u64::MAX - 2);
    let raw = Raw::start(move |_| Script::new(&*head)).await;
    let repository = repository(&raw);
    assert_eq!(repository.stat(&digest()).await.unwrap(), Some(u64::MAX - 2));
    assert_eq!(kind(repository.manifest(&tag("t")).await), Kind::Unavailable);
    let blob = repository.blob(&digest(), ByteRange::ALL).await.unwrap();
    assert_eq!(kind(blob.into_bytes().await), Kind::Unavailable);
}

/// What follows an answer that was too short is no answer to anything.
#[tokio::test]
async fn bytes_beyond_the_length_are_nobodys() {
    let raw = Raw::start(|_| {
        let smuggled = "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n";
        Script::new(format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx{smuggled}"))
    })
    .await;
    let repository = repository(&raw);
    for _ in 0..3 {
        let blob = repository.blob(&digest(), ByteRange::ALL).await.unwrap();
        assert_eq!(blob.into_bytes().await.unwrap(), "x");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(repository.stat(&digest()).await.unwrap(), Some(1));
    }
}

#[tokio::test]
async fn a_part_longer_or_shorter_than_it_says_is_noticed() {
    for (body, whole) in [("3456 and more", true), ("34", false)] {
        let fake = Fake::start(move |_| {
            Reply::new(206).header("content-range", "bytes 3-6/10").body(body).chunked()
        })
        .await;
        let range = ByteRange { start: 3, end: Some(7) };
        let blob = reader(&anonymous(&fake.registry())).blob(&digest(), range).await.unwrap();
        match whole {
            true => assert_eq!(blob.into_bytes().await.unwrap(), "3456"),
            false => assert_eq!(kind(blob.into_bytes().await), Kind::Unavailable),
        }
    }
}

#[tokio::test]
async fn nobody_waits_for_years() {
    let now =
        [u64::MAX.to_string(), "Fri, 31 Dec 9999 23:59:59 GMT".to_owned(), "99999999999999999999".to_owned()];
    for wait in now {
        let far = wait.len() < 20 || wait.contains("GMT") || wait == u64::MAX.to_string();
        let asked = wait.clone();
        let fake = Fake::start(move |_| Reply::new(429).header("retry-after", &asked)).await;
        let repository = reader(&anonymous(&fake.registry()));
        let begun = Instant::now();
        for _ in 0..2 {
            let answered = kind(repository.manifest(&tag("t")).await);
            assert!(matches!(answered, Kind::RateLimited { .. }), "{answered:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{wait}");
        assert!(!far || fake.seen().len() == 1, "it was asked again: {wait}");
    }
}

#[tokio::test]
async fn a_digest_in_a_header_is_one_or_nothing() {
    let manifest = r#"{"schemaVersion":2,"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}}"#;
    let right = Digest::sha256(manifest.as_bytes());
    let upper = right.to_string().to_uppercase().replace("SHA256", "sha256");
    for claimed in [upper.as_str(), "sha256:../../../etc/passwd", "sha256:%2e%2e", "md5:0123", ""] {
        let claimed = claimed.to_owned();
        let fake =
            Fake::start(move |_| Reply::new(200).header("docker-content-digest", &claimed).body(manifest))
                .await;
        let found = reader(&anonymous(&fake.registry())).resolve(&tag("t")).await.unwrap();
        assert_eq!(found.descriptor.digest, right);
        assert_eq!(fake.lines().len(), 2, "the head is not believed");
    }
}

#[tokio::test]
async fn what_a_head_claims_is_fetched_and_verified() {
    let lie = Digest::sha256(b"never seen");
    let fake = Fake::start(move |_| {
        Reply::new(200)
            .header("docker-content-digest", lie)
            .header("content-type", ferry_oci::media_type::OCI_INDEX)
            .body(r#"{"schemaVersion":2,"manifests":[]}"#)
    })
    .await;
    let repository = reader(&anonymous(&fake.registry()));
    let claimed = repository.resolve(&tag("t")).await.unwrap().descriptor.digest;
    assert_eq!(kind(repository.manifest(&Reference::Digest(claimed)).await), Kind::DigestMismatch);
    assert_eq!(kind(repository.manifest(&tag("t")).await), Kind::DigestMismatch);
}

#[tokio::test]
async fn names_that_leave_their_place_are_left_out() {
    let names = [
        "../x",
        "..",
        ".",
        "a/../b",
        "/etc/passwd",
        "a%2fb",
        "a%00",
        "a\\u0000",
        "a b",
        "a\\nb",
        "",
        "a?b",
        "a#b",
        "good",
    ];
    let list = names.map(|name| format!("\"{name}\"")).join(",");
    let body = format!(r#"{{"tags":[{list}],"repositories":[{list}]}}"#);
    let fake = Fake::start(move |_| Reply::new(200).body(body.clone())).await;
    let store = anonymous(&fake.registry());
    let tags = reader(&store).tags(PageRequest::default()).await.unwrap().items;
    assert_eq!(tags.iter().map(|entry| entry.tag.as_str()).collect::<Vec<_>>(), ["good"]);
    let found = store.repositories("", PageRequest::default()).await.unwrap().items;
    assert_eq!(found.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["good"]);
    let _ = store.repository(&Scope::Hosted, &found[0].name);
}

#[tokio::test]
async fn referrers_that_cannot_be_named_are_left_out() {
    let hex = digest().hex();
    let entries: Vec<String> = [
        "sha256:../../../../etc/passwd".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{hex}/.."),
        format!("sha256:{hex}%00"),
        digest().to_string(),
    ]
    .iter()
    .map(|digest| format!(r#"{{"mediaType":"m","digest":"{digest}","size":1}}"#))
    .collect();
    let body = format!(r#"{{"schemaVersion":2,"manifests":[{},7,null,[]]}}"#, entries.join(","));
    let fake = Fake::start(move |_| Reply::new(200).body(body.clone())).await;
    let page = reader(&anonymous(&fake.registry())).referrers(&digest(), None, PageRequest::default()).await;
    let found: Vec<Digest> = page.unwrap().items.iter().map(|item| item.digest).collect();
    assert_eq!(found, [digest()]);
}
