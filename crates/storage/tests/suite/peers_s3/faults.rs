//! What becomes of content when the bucket fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_storage::{Storage, StorageOptions};
use ferry_store::{Cache, Kind, Scope, Staging};
use ferry_testkit::link::{LinkOptions, Reset};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fixtures::*;
use crate::fixtures::*;
use crate::upkeep_fixtures::{Time, bytes};

fn large() -> Bytes {
    Bytes::from((0..30_000_000u32).map(|i| (i / 11) as u8).collect::<Vec<_>>())
}

/// Connections that break within a body are no matter for who reads it, and cost no byte again.
#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_where_a_connection_broke() {
    let s3 = S3::start().await;
    let storage = s3.open().await;
    let (repo, large) = (writer(&storage, "a"), large());
    let digest = push_blob(&*repo, &large).await;
    uploaded(&storage).await;
    s3.link.reset_stats();
    s3.link.set(LinkOptions { reset: Reset::Every(1_500_000), ..LinkOptions::default() });
    assert!(read_blob(&*repo, &digest).await == large);
    let stats = s3.link.stats();
    assert!(stats.resets >= 20, "{} resets", stats.resets);
    assert!(stats.bytes_down < 30_000_000 + stats.resets * 1_000_000, "{} bytes", stats.bytes_down);
}

/// An upload whose connections break is begun again until it is whole, and there is never half an object.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_is_tried_again() {
    let s3 = S3::start().await;
    let storage = s3.open().await;
    let (repo, large) = (writer(&storage, "a"), large());
    s3.link.set(LinkOptions { rate: Some(20_000_000), ..LinkOptions::default() });
    let digest = push_blob(&*repo, &large).await;
    for _ in 0..5 {
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        s3.link.kill_connections();
        let length = std::fs::metadata(s3.object(&digest)).map_or(30_000_000, |object| object.len());
        assert_eq!(length, 30_000_000, "all of it or nothing");
        assert!(read_blob(&*repo, &digest).await == large, "served meanwhile");
    }
    s3.link.set(LinkOptions::default());
    uploaded(&storage).await;
    assert!(s3.files().is_empty());
    assert!(read_blob(&*repo, &digest).await == large);
}

/// While the bucket is silent: what is pending is served, what is in the bucket is not to be had at present, and pushes are
/// taken as long as there is room. Afterwards all goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_down_delays_only_itself() {
    let s3 = S3::start().await;
    let time = Time::new();
    let mut options = s3.options(&time);
    options.bucket.as_mut().unwrap().pending_limit = Some(250_000);
    let storage = Storage::open_with(s3.directory(), options).await.unwrap();
    let repo = writer(&storage, "a");
    let there = push_blob(&*repo, &bytes("there", 100_000)).await;
    uploaded(&storage).await;
    s3.link.cut(true);
    assert_eq!(kind(repo.blob(&there, ferry_store::ByteRange::ALL).await), Some(Kind::Unavailable));
    assert_eq!(repo.stat(&there).await.unwrap(), Some(100_000), "it is only out of reach");
    let mut under_way = begin(&*repo, None).await;
    for text in ["one", "two", "three"] {
        let blob = bytes(text, 100_000);
        let digest = push_blob(&*repo, &blob).await;
        assert_eq!(read_blob(&*repo, &digest).await, blob);
    }
    assert_eq!(kind(repo.begin(no_mount(None)).await), Some(Kind::Full));
    under_way.write(bytes("four", 200_000)).await.unwrap_err();
    drop(under_way);
    let (digest, staging) = (Digest::sha256(&bytes("five", 1000)), storage.staging(None).await.unwrap());
    let partial = staging.open(&digest, 1000).await.unwrap().unwrap();
    partial.write_at(0, bytes("five", 1000)).await.unwrap();
    partial.seal(&digest).await.unwrap();
    let scope = Scope::Upstream { host: "docker.io".to_owned(), account: None };
    let cached = storage.cached(&scope, &"b".parse().unwrap());
    assert_eq!(kind(cached.adopt(&digest, &*partial).await), Some(Kind::Full), "it stays in staging");
    s3.link.cut(false);
    uploaded(&storage).await;
    cached.adopt(&digest, &*partial).await.unwrap();
    uploaded(&storage).await;
    assert_eq!(read_blob(&*cached, &digest).await, bytes("five", 1000));
    assert_eq!(read_blob(&*repo, &there).await, bytes("there", 100_000));
}

/// A storage opens although its bucket is silent, takes pushes, and brings them there later.
#[tokio::test(flavor = "multi_thread")]
async fn a_storage_opens_without_its_bucket() {
    let s3 = S3::start().await;
    s3.link.cut(true);
    let storage = s3.open().await;
    let repo = writer(&storage, "a");
    let digest = push_blob(&*repo, &bytes("early", 1000)).await;
    assert_eq!(read_blob(&*repo, &digest).await, bytes("early", 1000));
    assert_eq!(storage.statistics().await.unwrap().pending, 1);
}

/// A store that wants to be left alone for a moment is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn slow_down_is_patience() {
    let s3 = S3::start().await;
    let (address, refused) = grumpy(s3.server.addr(), 6).await;
    let mut bucket = s3.bucket();
    bucket.endpoint = Some(format!("http://{address}"));
    let options = StorageOptions { bucket: Some(bucket), ..StorageOptions::default() };
    let storage = Storage::open_with(s3.directory(), options).await.unwrap();
    let repo = writer(&storage, "a");
    let digest = push_blob(&*repo, &bytes("x", 1000)).await;
    uploaded(&storage).await;
    assert_eq!(read_blob(&*repo, &digest).await, bytes("x", 1000));
    assert_eq!(refused.load(Ordering::SeqCst), 0, "all six were said");
}

/// A relay to `upstream` that answers the first connections itself: 503 `SlowDown`.
async fn grumpy(upstream: SocketAddr, times: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, left) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(times)));
    let refusing = Arc::clone(&left);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let refuse =
                refusing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            tokio::spawn(async move {
                match refuse {
                    Ok(_) => refuse_once(client).await,
                    Err(_) => relay(client, upstream).await,
                }
            });
        }
    });
    (address, left)
}

async fn refuse_once(mut client: TcpStream) {
    let mut request = [0; 4096];
    let _ = client.read(&mut request).await;
    let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 503 Slow Down\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let _ = client.write_all(answer.as_bytes()).await;
    let _ = client.shutdown().await;
}

async fn relay(mut client: TcpStream, upstream: SocketAddr) {
    let mut server = TcpStream::connect(upstream).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
