//! Links to where a registry keeps its blobs: which of them may be handed on.

use ferry_oci::Digest;
use ferry_registry::Anonymous;
use ferry_store::{Blob, BlobBody, Kind, Result};

use crate::fake::{Fake, Reply, Seen};
use crate::support::*;

const BODY: &[u8] = b"content of a blob";

async fn link(registry: &Fake) -> Result<Option<Blob>> {
    let links = client(quick(), Anonymous).links(&registry.registry()).unwrap();
    links.link(&name(NAME), &Digest::sha256(BODY)).await
}

fn url(blob: &Blob) -> &str {
    match &blob.body {
        BlobBody::Link(link) => &link.url,
        _ => panic!("{blob:?} is no link"),
    }
}

/// A store of blobs that sends a part of one.
fn part(_: &Seen) -> Reply {
    Reply::new(206).header("content-range", format!("bytes 0-0/{}", BODY.len())).body(&BODY[..1])
}

#[tokio::test]
async fn the_end_of_the_way_is_linked_to_after_a_look_at_it() {
    for (all, answer) in [(false, part as fn(&Seen) -> Reply), (true, |_| Reply::new(200).body(BODY))] {
        let cdn = Fake::start(answer).await;
        let there = format!("http://{}/x?sig=secret", cdn.address);
        let expected = there.clone();
        let registry = Fake::start(move |seen| match seen.target.as_str() {
            "/here" => Reply::new(302).header("location", &there),
            _ => Reply::new(307).header("location", "/here"),
        })
        .await;
        let blob = link(&registry).await.unwrap().unwrap();
        assert_eq!((url(&blob), blob.size), (expected.as_str(), BODY.len() as u64), "all of it: {all}");
        assert!(!format!("{blob:?}").contains("secret"));
        assert_eq!(kind(blob.into_bytes().await), Kind::Invalid, "nothing of it is read here");
        assert_eq!(cdn.seen()[0].header("range"), Some("bytes=0-0"));
    }
}

#[tokio::test]
async fn what_the_registry_sends_itself_has_no_link() {
    let itself = Fake::start(part).await;
    assert!(link(&itself).await.unwrap().is_none());
    let around = Fake::start(|seen| match seen.target.as_str() {
        "/here" => part(seen),
        _ => Reply::new(307).header("location", "/here"),
    })
    .await;
    assert!(link(&around).await.unwrap().is_none());
    let empty = Fake::start(|_| Reply::new(416)).await;
    assert!(link(&empty).await.unwrap().is_none());
}

/// Where a token was needed the URL alone leads nowhere.
#[tokio::test]
async fn what_a_token_opens_has_no_link() {
    let real = Fake::start(|seen| match seen.header("authorization") {
        _ if seen.target.starts_with("/token") => Reply::new(200).body(r#"{"token":"t"}"#),
        Some("Bearer t") => part(seen),
        _ => Reply::new(401)
            .header("www-authenticate", format!("Bearer realm=\"http://{}/token\"", seen.host())),
    })
    .await;
    let there = real.address;
    let vanity =
        Fake::start(move |seen| Reply::new(307).header("location", format!("http://{there}{}", seen.target)))
            .await;
    assert!(link(&vanity).await.unwrap().is_none());
    assert!(real.seen().iter().any(|seen| seen.header("authorization") == Some("Bearer t")));
}

#[tokio::test]
async fn nobody_is_sent_to_where_we_do_not_go() {
    for target in ["http://10.0.0.1/x", "http://169.254.169.254/x", "http://[::ffff:169.254.169.254]/x"] {
        let registry = Fake::start(move |_| Reply::new(307).header("location", target)).await;
        assert_eq!(kind(link(&registry).await), Kind::Misdirected, "{target}");
    }
    let absent = Fake::start(|_| Reply::new(404)).await;
    assert_eq!(kind(link(&absent).await), Kind::NotFound);
}
