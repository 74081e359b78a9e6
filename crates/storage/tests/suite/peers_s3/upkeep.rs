//! Upkeep of a bucket.

use ferry_storage::{CheckEvent, CheckOptions, CollectOptions, Depth, Finding, Problem, Storage};
use ferry_store::Kind;

use super::fixtures::*;
use crate::fixtures::*;
use crate::upkeep_fixtures::{DAY, Time, bytes, never, push_image, upstream};

async fn findings(storage: &Storage, depth: Depth, repair: bool) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut observe = |event: CheckEvent<'_>| {
        if let CheckEvent::Found(Finding::Damaged { problem, .. }) = event {
            found.push(problem.clone());
        }
    };
    storage.check(CheckOptions { depth, repair }, &never(), &mut observe).await.unwrap();
    found
}

/// What nothing needs goes from the bucket, and so does what is evicted; the sums say so.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_goes_from_the_bucket() {
    let (s3, time) = (S3::start().await, Time::new());
    let storage = s3.open_at(&time).await;
    let lone = push_blob(&*writer(&storage, "a"), &bytes("lone", 300)).await;
    push_image(&*upstream(&storage, "b"), &[bytes("config", 100), bytes("layer", 5000)], Some("v1")).await;
    uploaded(&storage).await;
    assert_eq!(s3.server.objects().unwrap().len(), 5, "with the one that says whose it is");
    // The keeper's next word to the bucket takes no less than twenty real seconds, so the storage is opened again instead.
    storage.close().await;
    drop(storage);
    time.pass(DAY + 1);
    let storage = s3.open_at(&time).await;
    let collected = storage.collect(&CollectOptions::default(), &never()).await.unwrap();
    assert_eq!((collected.links, collected.blobs, collected.bytes, collected.orphans), (1, 1, 300, 0));
    assert!(!s3.object(&lone).exists());
    let evicted = storage.evict_to(0, &never()).await.unwrap();
    assert_eq!((evicted.manifests, evicted.blobs, evicted.left), (1, 3, 0));
    assert_eq!(s3.server.objects().unwrap(), ["p/q/ferry-owner.json"]);
}

/// A check sees what is missing, cut short or wrong in the bucket, and a repair lets it be pushed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_reads_the_bucket() {
    let (s3, time) = (S3::start().await, Time::new());
    let storage = s3.open_at(&time).await;
    let repo = writer(&storage, "a");
    let blobs = ["gone", "cut", "wrong", "whole"].map(|text| bytes(text, 1000));
    let image = push_image(&*repo, &blobs, Some("v1")).await;
    uploaded(&storage).await;
    assert!(findings(&storage, Depth::Digests, false).await.is_empty());
    let [gone, cut, wrong, whole] = blobs.each_ref().map(|blob| ferry_oci::Digest::sha256(blob));
    std::fs::remove_file(s3.object(&gone)).unwrap();
    std::fs::write(s3.object(&cut), b"cut").unwrap();
    std::fs::write(s3.object(&wrong), bytes("WRONG", 1000)).unwrap();
    let quick = findings(&storage, Depth::Sizes, false).await;
    assert!(
        quick.len() == 2 && quick.contains(&Problem::Missing) && quick.contains(&Problem::Size(3)),
        "{quick:?}"
    );
    let all = findings(&storage, Depth::Digests, true).await;
    let actual = ferry_oci::Digest::sha256(&bytes("WRONG", 1000));
    assert!(all.len() == 3 && all.contains(&Problem::Digest(actual)), "{all:?}");
    for damaged in [&gone, &cut, &wrong] {
        assert_eq!(repo.stat(damaged).await.unwrap(), None);
    }
    assert_eq!(repo.stat(&whole).await.unwrap(), Some(1000));
    let aside = s3.server.bucket().join("p/q/damaged");
    assert_eq!(std::fs::read_dir(aside).unwrap().count(), 2);
    for blob in &blobs {
        push_blob(&*repo, blob).await;
    }
    uploaded(&storage).await;
    assert!(findings(&storage, Depth::Digests, false).await.is_empty());
    assert_eq!(repo.manifest(&by_tag("v1")).await.unwrap().digest(), image.digest());
}

/// A bucket that does not answer is no reason to call anything damaged.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_no_damage() {
    let s3 = S3::start().await;
    let storage = s3.open().await;
    let digest = push_blob(&*writer(&storage, "a"), &bytes("there", 1000)).await;
    uploaded(&storage).await;
    s3.link.cut(true);
    let repair = CheckOptions { depth: Depth::Digests, repair: true };
    let checked = storage.check(repair, &never(), &mut |_| panic!("nothing is known")).await;
    assert_eq!(kind(checked), Some(Kind::Unavailable));
    s3.link.cut(false);
    assert_eq!(read_blob(&*writer(&storage, "a"), &digest).await, bytes("there", 1000));
}

/// An object that is gone behind our back is not shown any more once somebody asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_can_be_pushed_again() {
    let s3 = S3::start().await;
    let storage = s3.open().await;
    let (repo, blob) = (writer(&storage, "a"), bytes("gone", 1000));
    let digest = push_blob(&*repo, &blob).await;
    uploaded(&storage).await;
    std::fs::remove_file(s3.object(&digest)).unwrap();
    assert_eq!(kind(repo.blob(&digest, ferry_store::ByteRange::ALL).await), Some(Kind::NotFound));
    assert_eq!(repo.stat(&digest).await.unwrap(), None);
    push_blob(&*repo, &blob).await;
    uploaded(&storage).await;
    assert_eq!(read_blob(&*repo, &digest).await, blob);
}

/// What a kill leaves in the bucket that no row names is found and removed after the grace.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_found_in_the_bucket() {
    let (s3, time) = (S3::start().await, Time::new());
    let storage = s3.open_at(&time).await;
    push_blob(&*writer(&storage, "a"), &bytes("known", 1000)).await;
    uploaded(&storage).await;
    let orphan = ferry_oci::Digest::sha256(b"orphan");
    std::fs::create_dir_all(s3.object(&orphan).parent().unwrap()).unwrap();
    std::fs::write(s3.object(&orphan), b"orphan").unwrap();
    let young = storage.collect(&CollectOptions::default(), &never()).await.unwrap();
    assert_eq!((young.orphans, s3.object(&orphan).exists()), (0, true), "it may be on its way");
    let check = CheckOptions { depth: Depth::Sizes, repair: false };
    let checked = storage.check(check, &never(), &mut |_| {}).await.unwrap();
    assert_eq!((checked.findings, checked.orphans), (0, 1));
    // Longer than the server has been running, and not so long that the bucket may be somebody else's.
    time.pass(50);
    let at_once = CollectOptions { grace: Some(std::time::Duration::ZERO), ..CollectOptions::default() };
    let old = storage.collect(&at_once, &never()).await.unwrap();
    assert_eq!((old.orphans, s3.object(&orphan).exists()), (1, false));
}
