//! Signed links.

use std::time::Duration;

use ferry_storage::{LinkOptions, Storage};
use ferry_store::{Blob, BlobBody, ByteRange, Kind, Scope, Store};

use super::fixtures::*;
use crate::fixtures::*;
use crate::upkeep_fixtures::{Time, bytes};

async fn linked(s3: &S3, expires: u64) -> std::sync::Arc<Storage> {
    let mut options = s3.options(&Time::new());
    let links = LinkOptions { expires: Duration::from_secs(expires), endpoint: None };
    options.bucket.as_mut().unwrap().links = Some(links);
    Storage::open_with(s3.directory(), options).await.unwrap()
}

fn url(blob: &Blob) -> &str {
    match &blob.body {
        BlobBody::Link(link) => &link.url,
        _ => panic!("a link was to be given"),
    }
}

/// Whoever can follow links gets them once the content is in the bucket, and nobody else does.
#[tokio::test(flavor = "multi_thread")]
async fn who_can_follow_links_gets_them() {
    let s3 = S3::start().await;
    let storage = linked(&s3, 900).await;
    let shown = storage.with_links().repository(&Scope::Hosted, &"a".parse().unwrap());
    let repo = writer(&storage, "a");
    let blob = bytes("linked", 100_000);
    s3.link.cut(true);
    let digest = push_blob(&*repo, &blob).await;
    let pending = shown.blob(&digest, ByteRange::ALL).await.unwrap();
    assert!(matches!(pending.body, BlobBody::File(_)), "it is not in the bucket yet");
    s3.link.cut(false);
    uploaded(&storage).await;
    let found = shown.blob(&digest, ByteRange::from(5)).await.unwrap();
    let answer = reqwest::get(url(&found)).await.unwrap();
    assert!(url(&found).contains("X-Amz-Expires=900"), "{}", url(&found));
    assert_eq!(answer.bytes().await.unwrap(), blob);
    let forged = url(&found).replace("X-Amz-Expires=900", "X-Amz-Expires=90000");
    assert_eq!(reqwest::get(forged).await.unwrap().status(), 403);
    let ours = repo.blob(&digest, ByteRange::ALL).await.unwrap();
    assert!(matches!(ours.body, BlobBody::Stream(_)), "who did not say so gets bytes");
    std::fs::remove_file(s3.object(&digest)).unwrap();
    assert_eq!(kind(shown.blob(&digest, ByteRange::ALL).await), Some(Kind::NotFound), "no link to nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends() {
    let s3 = S3::start().await;
    let storage = linked(&s3, 1).await;
    let digest = push_blob(&*writer(&storage, "a"), &bytes("short", 1000)).await;
    uploaded(&storage).await;
    let shown = storage.with_links().repository(&Scope::Hosted, &"a".parse().unwrap());
    let found = shown.blob(&digest, ByteRange::ALL).await.unwrap();
    // The server's clock decides, so we ask until it does.
    while reqwest::get(url(&found)).await.unwrap().status() != 403 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
