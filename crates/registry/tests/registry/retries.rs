//! What is tried again, and what is not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferry_oci::Digest;
use ferry_registry::{Anonymous, ClientOptions};
use ferry_store::{ByteRange, Kind, Mount};

use crate::fake::{Fake, Reply};
use crate::support::*;

/// Answers the first request with `first` and all others with a blob of 5 bytes.
async fn failing_once(first: impl Fn() -> Reply + Send + Sync + 'static) -> Fake {
    let count = AtomicUsize::new(0);
    Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => first(),
        _ => Reply::new(200).body("hello"),
    })
    .await
}

fn digest() -> Digest {
    Digest::sha256(b"hello")
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let failures: [fn() -> Reply; 5] = [
        || Reply::new(500),
        || Reply::new(408),
        || Reply::new(503).header("retry-after", 0),
        || Reply::new(429),
        Reply::never,
    ];
    for failure in failures {
        let fake = failing_once(failure).await;
        let store = client(impatient(), Anonymous).registry(&fake.registry()).unwrap();
        let blob = reader(&store).blob(&digest(), ByteRange::ALL).await.unwrap();
        assert_eq!(blob.into_bytes().await.unwrap(), "hello");
        assert_eq!(fake.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_listing_that_breaks_off_is_read_again() {
    let count = AtomicUsize::new(0);
    let fake = Fake::start(move |_| {
        let reply = Reply::new(200).body(r#"{"tags":["a"]}"#);
        if count.fetch_add(1, Ordering::SeqCst) == 0 { reply.cut() } else { reply }
    })
    .await;
    let page = reader(&anonymous(&fake.registry())).tags(Default::default()).await.unwrap();
    assert_eq!((page.items.len(), fake.seen().len()), (1, 2));
}

#[tokio::test]
async fn attempts_end() {
    let fake = Fake::start(|_| Reply::new(502)).await;
    let store = anonymous(&fake.registry());
    assert_eq!(kind(reader(&store).stat(&digest()).await), Kind::Unavailable);
    assert_eq!(fake.seen().len(), quick().attempts as usize);
}

#[tokio::test]
async fn a_long_wait_is_left_to_the_caller() {
    let fake = Fake::start(|_| Reply::new(429).header("retry-after", 3600)).await;
    let store = anonymous(&fake.registry());
    let limited = Kind::RateLimited { after: Some(Duration::from_secs(3600)) };
    assert_eq!(kind(reader(&store).manifest(&tag("t")).await), limited);
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn what_does_not_pass_is_not_tried_again() {
    for (status, expected) in [(400, Kind::Invalid), (403, Kind::Denied), (404, Kind::NotFound)] {
        let fake = Fake::start(move |_| Reply::new(status)).await;
        let store = anonymous(&fake.registry());
        assert_eq!(kind(reader(&store).manifest(&tag("t")).await), expected);
        assert_eq!(fake.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let fake = Fake::start(|_| Reply::new(200)).await;
    let registry = fake.registry();
    drop(fake);
    tokio::task::yield_now().await;
    let error = reader(&anonymous(&registry)).stat(&digest()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.detail().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn silence_is_a_stall() {
    let fake = Fake::start(|_| Reply::never()).await;
    let options = ClientOptions { attempts: 1, ..impatient() };
    let store = client(options, Anonymous).registry(&fake.registry()).unwrap();
    assert_eq!(kind(reader(&store).stat(&digest()).await), Kind::Stalled);
}

#[tokio::test]
async fn a_mount_that_fails_costs_one_request() {
    let fake = Fake::start(|seen| match seen.target.contains("mount=") {
        true => Reply::new(500),
        false => Reply::new(202).header("location", "/u/1"),
    })
    .await;
    let bytes = content(5, 10);
    let store = anonymous(&fake.registry());
    opened(writer(&store).begin(promised(&bytes, Mount::Anywhere)).await.unwrap());
    let digest = Digest::sha256(&bytes).to_string().replace(':', "%3A");
    assert_eq!(
        fake.lines(),
        [
            format!("POST /v2/team/app/blobs/uploads/?mount={digest}"),
            "POST /v2/team/app/blobs/uploads/".to_owned()
        ]
    );
}
