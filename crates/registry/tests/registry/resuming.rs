//! Uploads that are gone on with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_registry::{Anonymous, ClientOptions, Habit, Site};
use ferry_store::{ByteRange, Kind, RepositoryMut, Upload, UploadToken};
use ferry_testkit::fake::{Auth, FakeRegistry, Fault, FaultRule, Kind as Asked};
use ferry_testkit::link::{Link, LinkOptions};
use http::Method;

use crate::fake::{Fake, Reply, Seen};
use crate::support::*;

const SIZE: usize = 3_000_000;

fn resumable() -> ClientOptions {
    ClientOptions { resumable_from: 1_000_000, ..quick() }
}

async fn send(upload: &mut Box<dyn Upload>, bytes: &Bytes, until: usize) -> ferry_store::Result<()> {
    let mut at = upload.durable_offset().await?;
    while (at as usize) < until {
        let end = until.min(at as usize + 100_000);
        upload.write(bytes.slice(at as usize..end)).await?;
        at = end as u64;
    }
    Ok(())
}

async fn resume(repository: &Arc<dyn RepositoryMut>, token: &UploadToken) -> Box<dyn Upload> {
    for _ in 0..100 {
        match repository.resume(token).await {
            Err(error) if error.kind() == Kind::Unavailable => {
                tokio::time::sleep(Duration::from_millis(25)).await
            }
            other => return other.unwrap().unwrap(),
        }
    }
    panic!("the upload is not let go of");
}

async fn finish(repository: &Arc<dyn RepositoryMut>, mut upload: Box<dyn Upload>, bytes: &Bytes) {
    send(&mut upload, bytes, bytes.len()).await.unwrap();
    let digest = Digest::sha256(bytes);
    upload.commit(&digest).await.unwrap();
    let blob = repository.blob(&digest, ByteRange::ALL).await.unwrap();
    assert!(blob.into_bytes().await.unwrap() == *bytes);
}

#[tokio::test]
async fn what_arrived_before_a_break_is_not_sent_again() {
    let registry = FakeRegistry::start().await.unwrap();
    let link = Link::start(registry.address(), LinkOptions { rate: Some(20_000_000), ..Default::default() });
    let link = link.await.unwrap();
    let repository = writer(&client(resumable(), Anonymous).registry(&link.host()).unwrap());
    let bytes = content(1, SIZE);
    let mut upload = begin(&repository, &bytes).await;
    send(&mut upload, &bytes, 2_500_000).await.unwrap();
    while link.stats().bytes_up < 1_000_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    link.kill_connections();
    assert!(upload.durable_offset().await.is_err());
    let token = upload.token().expect("it can be gone on with");
    drop(upload);
    let sent = link.stats().bytes_up;
    let upload = resume(&repository, &token).await;
    finish(&repository, upload, &bytes).await;
    let then = link.stats().bytes_up - sent;
    assert!(then < SIZE as u64 - 500_000, "{then} bytes after the break");
}

#[tokio::test]
async fn no_request_is_held_open_by_a_slow_source() {
    let registry = FakeRegistry::start().await.unwrap();
    let options = ClientOptions { upload_pause: Duration::from_millis(50), ..resumable() };
    let repository = writer(&client(options, Anonymous).registry(&registry.host().unwrap()).unwrap());
    let bytes = content(2, SIZE);
    let mut upload = begin(&repository, &bytes).await;
    for part in [0..900_000, 900_000..1_800_000, 1_800_000..SIZE] {
        upload.write(bytes.slice(part)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    upload.commit(&Digest::sha256(&bytes)).await.unwrap();
    assert_eq!(registry.count(Asked::UploadPatch), 3);
    assert_eq!((registry.count(Asked::UploadPost), registry.count(Asked::UploadPut)), (1, 1));
}

#[tokio::test]
async fn an_upload_outlives_its_token_of_authorization() {
    let registry = FakeRegistry::start().await.unwrap();
    registry.require(Auth::Bearer { login: None, lifetime: Duration::from_secs(300) });
    let options = ClientOptions { upload_pause: Duration::from_millis(20), ..resumable() };
    let repository = writer(&client(options, Anonymous).registry(&registry.host().unwrap()).unwrap());
    let bytes = content(3, SIZE);
    let mut upload = begin(&repository, &bytes).await;
    send(&mut upload, &bytes, 1_000_000).await.unwrap();
    assert_eq!(upload.durable_offset().await.unwrap(), 1_000_000);
    registry.expire_tokens();
    upload.write(bytes.slice(1_000_000..2_000_000)).await.ok();
    let error = upload.durable_offset().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let token = upload.token().unwrap();
    drop(upload);
    let mut upload = resume(&repository, &token).await;
    assert_eq!(upload.durable_offset().await.unwrap(), 1_000_000);
    finish(&repository, upload, &bytes).await;
}

#[tokio::test]
async fn an_upload_that_is_not_known_any_more_begins_anew() {
    let registry = FakeRegistry::start().await.unwrap();
    let repository = writer(&client(resumable(), Anonymous).registry(&registry.host().unwrap()).unwrap());
    let bytes = content(4, SIZE);
    let mut upload = begin(&repository, &bytes).await;
    let token = upload.token().unwrap();
    registry.fail(FaultRule::new(Fault::StaleUpload).method("PATCH"));
    let _ = send(&mut upload, &bytes, 2_000_000).await;
    let error = upload.durable_offset().await;
    assert!(error.is_err() || upload.token().is_none());
    assert!(upload.token().is_none(), "there is nothing to go on with");
    registry.fail(FaultRule::new(Fault::StaleUpload).method("GET").path("/uploads/"));
    assert!(repository.resume(&token).await.unwrap().is_none());
    registry.fail(FaultRule::new(Fault::status(503)).method("GET").path("/uploads/").always());
    assert_eq!(kind(repository.resume(&token).await), Kind::Unavailable, "it may be known again later");
}

#[tokio::test]
async fn small_blobs_and_some_registries_are_sent_in_one_go() {
    let registry = FakeRegistry::start().await.unwrap();
    let host = registry.host().unwrap();
    let repository = writer(&client(resumable(), Anonymous).registry(&host).unwrap());
    assert!(begin(&repository, &content(5, 999_999)).await.token().is_none());
    let usual = Site { habit: Some(Habit::Whole), ..Site::default() };
    let repository =
        writer(&client(ClientOptions { usual, ..resumable() }, Anonymous).registry(&host).unwrap());
    let bytes = content(5, SIZE);
    let upload = begin(&repository, &bytes).await;
    assert!(upload.token().is_none());
    finish(&repository, upload, &bytes).await;
    assert_eq!((registry.count(Asked::UploadPatch), registry.count(Asked::UploadPut)), (0, 1));
}

/// As ECR: 201 to each part with the `Range` of the first, 404 to the question how far it is.
fn ecr(received: Arc<AtomicUsize>) -> impl Fn(&Seen) -> Reply {
    move |seen| match seen.method {
        Method::POST => Reply::new(202).header("location", "/v2/team/app/blobs/uploads/1?part=0"),
        Method::PATCH => {
            let range = seen.header("content-range").unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            if received.load(Ordering::SeqCst) != first {
                return Reply::new(416);
            }
            received.store(last + 1, Ordering::SeqCst);
            let next = format!("/v2/team/app/blobs/uploads/1?part={}", last + 1);
            Reply::new(201).header("location", next).header("range", "0-999999")
        }
        Method::PUT => Reply::new(201).header("location", "/v2/team/app/blobs/x"),
        _ => Reply::new(404),
    }
}

#[tokio::test]
async fn where_the_answers_lie_our_own_count_holds() {
    let received = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(ecr(Arc::clone(&received))).await;
    let usual = Site { habit: Some(Habit::Chunks(1_000_000)), ..Site::default() };
    let options = ClientOptions { usual, ..resumable() };
    let repository = writer(&client(options, Anonymous).registry(&fake.registry()).unwrap());
    let bytes = content(6, SIZE - 1);
    let mut upload = begin(&repository, &bytes).await;
    send(&mut upload, &bytes, 1_000_000).await.unwrap();
    let token = upload.suspend().await.unwrap().unwrap();
    assert_eq!(received.load(Ordering::SeqCst), 1_000_000);
    let mut upload = resume(&repository, &token).await;
    assert_eq!(upload.durable_offset().await.unwrap(), 1_000_000);
    send(&mut upload, &bytes, bytes.len()).await.unwrap();
    upload.commit(&Digest::sha256(&bytes)).await.unwrap();
    assert_eq!(received.load(Ordering::SeqCst), bytes.len());
    let seen = fake.seen();
    assert!(seen.iter().all(|seen| seen.method != Method::GET), "it is not asked");
    let parts: Vec<&Seen> = seen.iter().filter(|seen| seen.method == Method::PATCH).collect();
    let ranges: Vec<&str> = parts.iter().map(|seen| seen.header("content-range").unwrap()).collect();
    assert_eq!(ranges, ["0-999999", "1000000-1999999", "2000000-2999998"]);
    let sent: Vec<u8> = parts.iter().flat_map(|seen| seen.body.clone().unwrap()).collect();
    assert!(sent == bytes, "every byte once, in order");
}

/// As Quay: the count where the last byte belongs, with a unit, and no new location.
#[tokio::test]
async fn quay_tells_the_count_in_its_own_way() {
    let fake = Fake::start(|seen| match seen.method {
        Method::POST => Reply::new(202).header("location", "/v2/team/app/blobs/uploads/1"),
        Method::GET => Reply::new(204).header("range", "bytes=0-1234567"),
        _ => Reply::new(202).header("location", "/v2/team/app/blobs/uploads/1"),
    })
    .await;
    let repository = writer(&client(resumable(), Anonymous).registry(&fake.registry()).unwrap());
    let upload = begin(&repository, &content(7, SIZE)).await;
    let token = upload.token().unwrap();
    drop(upload);
    assert_eq!(resume(&repository, &token).await.durable_offset().await.unwrap(), 1_234_567);
    let other = begin(&repository, &content(8, 1_200_000)).await.token().unwrap();
    assert!(repository.resume(&other).await.unwrap().is_none(), "more than the blob has");
}
