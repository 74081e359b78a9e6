//! Manifests, blobs and listings from registries that are not as they should be.

use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{Digest, MAX_MANIFEST_SIZE, Reference, media_type};
use ferry_registry::{Anonymous, ClientOptions};
use ferry_store::{ByteRange, Kind, PageRequest};
use futures_util::StreamExt;
use http::Method;

use crate::fake::{Fake, Reply};
use crate::support::*;

const BODY: &[u8] = b"0123456789";

fn digest() -> Digest {
    Digest::sha256(BODY)
}

fn part(start: u64, end: u64) -> ByteRange {
    ByteRange { start, end: Some(end) }
}

fn manifest() -> (Bytes, Digest) {
    let config = Digest::sha256(b"{}");
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"x","digest":"{config}","size":2}},"layers":[]}}"#,
        media_type::OCI_MANIFEST
    );
    let digest = Digest::sha256(text.as_bytes());
    (Bytes::from(text), digest)
}

fn manifest_reply() -> Reply {
    Reply::new(200).header("content-type", media_type::OCI_MANIFEST).body(manifest().0)
}

#[tokio::test]
async fn content_is_asked_for_as_it_is() {
    let fake = Fake::start(|seen| match seen.target.contains("blobs") {
        true => Reply::new(200).body(BODY).header("content-encoding", "gzip"),
        false => manifest_reply().header("content-encoding", "br"),
    })
    .await;
    let repository = reader(&anonymous(&fake.registry()));
    assert_eq!(kind(repository.blob(&digest(), ByteRange::ALL).await), Kind::Invalid);
    assert_eq!(kind(repository.manifest(&tag("t")).await), Kind::Invalid);
    for seen in fake.seen() {
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert!(seen.header("user-agent").unwrap().starts_with("ferry/"));
    }
}

#[tokio::test]
async fn a_head_is_enough_to_resolve() {
    let fake = Fake::start(|_| manifest_reply().header("docker-content-digest", manifest().1)).await;
    let resolved = reader(&anonymous(&fake.registry())).resolve(&tag("t")).await.unwrap();
    assert_eq!(resolved.descriptor.digest, manifest().1);
    assert_eq!(resolved.descriptor.size, manifest().0.len() as u64);
    assert_eq!(fake.lines(), ["HEAD /v2/team/app/manifests/t"]);
    let accept = fake.seen()[0].header("accept").unwrap().to_owned();
    assert!(media_type::MANIFESTS.iter().all(|known| accept.contains(known)), "{accept}");
}

#[tokio::test]
async fn a_head_that_tells_nothing_is_followed_by_a_get() {
    for head in [200, 405] {
        let fake = Fake::start(move |seen| match seen.method == Method::HEAD {
            true => Reply::new(head),
            false => manifest_reply(),
        })
        .await;
        let resolved = reader(&anonymous(&fake.registry())).resolve(&tag("t")).await.unwrap();
        assert_eq!(resolved.descriptor.digest, manifest().1);
        assert_eq!(fake.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_manifest_is_what_was_asked_for_or_nothing() {
    let fake = Fake::start(|seen| match seen.target.contains("lie") {
        true => manifest_reply().header("docker-content-digest", Digest::sha256(b"else")),
        false => manifest_reply(),
    })
    .await;
    let repository = reader(&anonymous(&fake.registry()));
    assert_eq!(repository.manifest(&tag("t")).await.unwrap().digest(), manifest().1);
    let other = Reference::Digest(Digest::sha256(b"other"));
    assert_eq!(kind(repository.manifest(&other).await), Kind::DigestMismatch);
    assert_eq!(kind(repository.manifest(&tag("lie")).await), Kind::DigestMismatch);
}

#[tokio::test]
async fn an_endless_manifest_is_not_read() {
    let length = MAX_MANIFEST_SIZE as usize + 1;
    let fake = Fake::start(move |_| Reply::new(200).body(vec![b' '; length]).chunked()).await;
    assert_eq!(kind(reader(&anonymous(&fake.registry())).manifest(&tag("t")).await), Kind::Invalid);
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_cut_to_them() {
    let fake = Fake::start(|_| Reply::new(200).body(BODY)).await;
    let repository = reader(&anonymous(&fake.registry()));
    for range in [part(0, 10), part(3, 7), part(9, 20), ByteRange::from(4), ByteRange::from(10)] {
        let blob = repository.blob(&digest(), range).await.unwrap();
        assert_eq!(blob.size, 10);
        let expected = range.within(10).unwrap();
        assert_eq!(blob.range, expected);
        let bytes = blob.into_bytes().await.unwrap();
        assert_eq!(bytes, BODY[expected.start as usize..expected.end as usize], "{range:?}");
    }
    assert_eq!(kind(repository.blob(&digest(), ByteRange::from(11)).await), Kind::Invalid);
}

#[tokio::test]
async fn a_part_must_be_the_right_one() {
    for (sent, range) in [
        ("bytes 0-3/10", part(3, 7)),
        ("bytes 3-5/10", part(3, 7)),
        ("bytes 3-6/5", part(3, 7)),
        ("nonsense", part(3, 7)),
    ] {
        let fake =
            Fake::start(move |_| Reply::new(206).header("content-range", sent).body(&BODY[3..7])).await;
        let answer = reader(&anonymous(&fake.registry())).blob(&digest(), range).await;
        assert_eq!(kind(answer), Kind::Invalid, "{sent}");
    }
}

#[tokio::test]
async fn a_part_of_unknown_size_costs_a_question() {
    let fake = Fake::start(|seen| match seen.method == Method::HEAD {
        true => Reply::new(200).body(BODY),
        false => Reply::new(206).header("content-range", "bytes 3-6/*").body(&BODY[3..7]),
    })
    .await;
    let blob = reader(&anonymous(&fake.registry())).blob(&digest(), part(3, 7)).await.unwrap();
    assert_eq!((blob.size, blob.range.clone()), (10, 3..7));
    assert_eq!(fake.seen()[0].header("range"), Some("bytes=3-6"));
}

#[tokio::test]
async fn a_blob_without_length_costs_a_question() {
    let fake = Fake::start(|seen| match (&seen.method, seen.target.contains(&digest().to_string())) {
        (_, false) => Reply::new(200).chunked(),
        (&Method::HEAD, _) => Reply::new(200).header("content-length", 10),
        _ => Reply::new(200).body(BODY).chunked(),
    })
    .await;
    let repository = reader(&anonymous(&fake.registry()));
    let blob = repository.blob(&digest(), ByteRange::ALL).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap(), BODY);
    assert_eq!(kind(repository.blob(&Digest::sha256(b"unknown"), ByteRange::ALL).await), Kind::Invalid);
}

#[tokio::test]
async fn more_than_was_promised_is_not_passed_on() {
    let fake = Fake::start(|seen| match seen.method == Method::HEAD {
        true => Reply::new(200).header("content-length", 4),
        false => Reply::new(200).body(BODY).chunked(),
    })
    .await;
    let blob = reader(&anonymous(&fake.registry())).blob(&digest(), ByteRange::ALL).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap(), BODY[..4]);
}

#[tokio::test]
async fn a_body_that_ends_early_or_stops_is_an_error_of_the_stream() {
    for (stops, expected) in [(false, Kind::Unavailable), (true, Kind::Stalled)] {
        let fake = Fake::start(move |_| {
            let reply = Reply::new(200).body(BODY);
            if stops { reply.silent() } else { reply.cut() }
        })
        .await;
        let store = client(impatient(), Anonymous).registry(&fake.registry()).unwrap();
        let blob = reader(&store).blob(&digest(), ByteRange::ALL).await.unwrap();
        let mut stream = blob.into_stream();
        assert_eq!(stream.next().await.unwrap().unwrap(), BODY, "what came is passed on");
        assert_eq!(kind(stream.next().await.unwrap()), expected);
        assert_eq!(fake.seen().len(), 1, "going on is not the store's work");
    }
    let short = Fake::start(|seen| match seen.method == Method::HEAD {
        true => Reply::new(200).header("content-length", 11),
        false => Reply::new(200).body(BODY).chunked(),
    })
    .await;
    let blob = reader(&anonymous(&short.registry())).blob(&digest(), ByteRange::ALL).await.unwrap();
    assert_eq!(kind(blob.into_bytes().await), Kind::Unavailable);
}

#[tokio::test]
async fn a_slow_reader_is_no_stall() {
    let body = content(6, 3_000_000);
    let sent = body.clone();
    let fake = Fake::start(move |_| Reply::new(200).body(sent.clone())).await;
    let options = ClientOptions { idle_timeout: Duration::from_secs(1), ..quick() };
    let store = client(options, Anonymous).registry(&fake.registry()).unwrap();
    let mut stream = reader(&store).blob(&digest(), ByteRange::ALL).await.unwrap().into_stream();
    let mut length = stream.next().await.unwrap().unwrap().len();
    tokio::time::sleep(Duration::from_secs(2)).await;
    while let Some(bytes) = stream.next().await {
        length += bytes.unwrap().len();
    }
    assert_eq!(length, body.len());
}

#[tokio::test]
async fn a_download_keeps_its_place_until_it_is_dropped() {
    let fake = Fake::start(|_| Reply::new(200).body(BODY)).await;
    let options = ClientOptions { connections_per_host: 1, ..quick() };
    let store = client(options, Anonymous).registry(&fake.registry()).unwrap();
    let repository = reader(&store);
    let first = repository.blob(&digest(), ByteRange::ALL).await.unwrap();
    repository.stat(&digest()).await.expect("questions have a budget of their own");
    let wanted = digest();
    let second = repository.blob(&wanted, ByteRange::ALL);
    tokio::pin!(second);
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(waits.is_err(), "there is one place");
    drop(first);
    assert_eq!(second.await.unwrap().into_bytes().await.unwrap(), BODY);
}

#[tokio::test]
async fn absent_content_is_not_found() {
    let fake = Fake::start(|_| Reply::new(404)).await;
    let repository = reader(&anonymous(&fake.registry()));
    assert_eq!(repository.stat(&digest()).await.unwrap(), None);
    assert_eq!(kind(repository.blob(&digest(), ByteRange::ALL).await), Kind::NotFound);
    assert_eq!(kind(repository.blob(&digest(), part(3, 3)).await), Kind::NotFound);
    assert_eq!(kind(repository.resolve(&tag("t")).await), Kind::NotFound);
    assert_eq!(kind(repository.tags(PageRequest::default()).await), Kind::NotFound);
}

#[tokio::test]
async fn a_page_is_asked_for_on_our_own_url() {
    let fake = Fake::start(|seen| match seen.target.contains("last=b") {
        true => Reply::new(200).body(r#"{"tags":["c"]}"#),
        false => Reply::new(200)
            .body(r#"{"tags":["a","b"]}"#)
            .header("link", "<http://10.0.0.1/lost/prefix?last=b&n=2&x=y>; rel=\"next\""),
    })
    .await;
    let repository = reader(&anonymous(&fake.registry()));
    let first = repository.tags(PageRequest { after: None, limit: Some(2) }).await.unwrap();
    let second = repository.tags(PageRequest { after: first.next, limit: Some(2) }).await.unwrap();
    assert!(second.next.is_none() && second.items.len() == 1);
    assert_eq!(fake.lines(), ["GET /v2/team/app/tags/list?n=2", "GET /v2/team/app/tags/list?n=2&last=b"]);
    assert_eq!(fake.seen()[0].header("accept"), Some("application/json"));
}

#[tokio::test]
async fn a_missing_referrers_api_is_remembered_for_a_while() {
    let fake = Fake::start(|_| Reply::new(404).body("404 page not found\n")).await;
    let repository = reader(&anonymous(&fake.registry()));
    for _ in 0..2 {
        let page = repository.referrers(&digest(), None, PageRequest::default()).await.unwrap();
        assert!(page.items.is_empty());
    }
    assert_eq!((fake.count("/referrers/"), fake.count("/manifests/sha256-")), (1, 2), "{:?}", fake.lines());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(16 * 60)).await;
    tokio::time::resume();
    repository.referrers(&digest(), None, PageRequest::default()).await.unwrap();
    assert_eq!(fake.count("/referrers/"), 2, "it may have got one");
}

#[tokio::test]
async fn referrers_are_filtered_here_unless_the_registry_did() {
    let entry = |kind: &str| {
        let digest = Digest::sha256(kind.as_bytes());
        format!(r#"{{"mediaType":"m","digest":"{digest}","size":1,"artifactType":"{kind}"}}"#)
    };
    let body = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{{"mediaType":"m","digest":"blake3:00","size":1}},{}]}}"#,
        entry("a"),
        entry("b")
    );
    let fake = Fake::start(move |seen| {
        let reply = Reply::new(200).body(body.clone());
        match seen.target.contains("artifactType=b") {
            true => reply.header("oci-filters-applied", "artifactType"),
            false => reply,
        }
    })
    .await;
    let repository = reader(&anonymous(&fake.registry()));
    for (wanted, expected) in [(None, 2), (Some("a"), 1), (Some("b"), 2), (Some("c"), 0)] {
        let page = repository.referrers(&digest(), wanted, PageRequest::default()).await.unwrap();
        assert_eq!(page.items.len(), expected, "{wanted:?}");
    }
}
