//! What goes when there is no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ferry_oci::{Digest, Reference};
use ferry_storage::{CollectOptions, Storage, StorageOptions};
use ferry_store::{Kind, PageRequest};

use crate::fixtures::*;
use crate::upkeep_fixtures::*;

#[tokio::test]
async fn the_least_recently_used_goes_first_and_whole() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = upstream(&storage, "library/alpine");
    let base = bytes("base", 10_000);
    for name in ["a", "b", "c"] {
        let blobs = [bytes(name, 20), base.clone(), bytes(&format!("{name} layer"), 20_000)];
        let image = push_image(&*repo, &blobs, None).await;
        let index = index(&[&image]);
        repo.put_manifest(&index, Some(&tag(name))).await.unwrap();
        repo.put_manifest(&referrer(&index, &blobs[0], name), None).await.unwrap();
        time.pass(HOUR);
    }
    push_image(&*writer(&storage, "own"), &[bytes("hosted", 90_000)], Some("v1")).await;
    time.pass(10 * HOUR);
    // "a" is used again, so "b" is what was not used for longest.
    assert_whole(&*repo, &by_tag("a")).await;
    let before = storage.statistics().await.unwrap();
    assert_eq!(storage.evict_to(before.bytes, &never()).await.unwrap().manifests, 0, "it fits");
    let evicted = storage.evict_to(before.bytes - 1, &never()).await.unwrap();
    assert_eq!(
        (evicted.manifests, evicted.links),
        (3, 2),
        "index, image, referrer; config, layer: {evicted:?}"
    );
    assert!(evicted.bytes > 20_000 && evicted.left == before.bytes - evicted.bytes, "{evicted:?}");
    assert_eq!(kind(repo.resolve(&by_tag("b")).await), Some(Kind::NotFound));
    let tags = repo.tags(PageRequest::default()).await.unwrap().items;
    assert_eq!(tags.iter().map(|t| t.tag.as_str()).collect::<Vec<_>>(), ["a", "c"]);

    let evicted = storage.evict_to(0, &never()).await.unwrap();
    assert_eq!(evicted.manifests, 3, "only \"c\": the rest is in use or hosted");
    for digest in [Digest::sha256(&base), Digest::sha256(&bytes("a layer", 20_000))] {
        assert!(repo.stat(&digest).await.unwrap().is_some());
    }
    let index = repo.manifest(&by_tag("a")).await.unwrap();
    assert_whole(&*repo, &Reference::Digest(index.children()[0].digest)).await;
    assert_whole(&*writer(&storage, "own"), &by_tag("v1")).await;
    time.pass(2 * HOUR);
    let evicted = storage.evict_to(0, &never()).await.unwrap();
    assert_eq!(evicted.manifests, 3);
    assert_eq!(content_files(directory.path()).len(), 2, "what is hosted stays");
    assert_whole(&*writer(&storage, "own"), &by_tag("v1")).await;
}

#[tokio::test]
async fn hosted_content_goes_only_if_asked() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let options = StorageOptions { evict_hosted: true, ..time.options() };
    let storage = Storage::open_with(directory.path(), options).await.unwrap();
    push_image(&*writer(&storage, "own"), &[bytes("hosted", 90_000)], Some("v1")).await;
    time.pass(HOUR - 1);
    assert_eq!(storage.evict_to(0, &never()).await.unwrap().blobs, 0, "just placed");
    time.pass(1);
    let evicted = storage.evict_to(0, &never()).await.unwrap();
    assert_eq!((evicted.manifests, evicted.blobs, evicted.left), (1, 2, 0));
}

/// The last use is in the catalog at the latest after an hour, and survives.
#[tokio::test]
async fn last_uses_are_recorded_and_survive() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    {
        let storage = open_at(directory.path(), &time).await;
        let repo = upstream(&storage, "a");
        for name in ["a", "b"] {
            push_image(&*repo, &[bytes(name, 5000)], Some(name)).await;
            time.pass(10);
        }
        time.pass(5 * HOUR);
        assert_whole(&*repo, &by_tag("a")).await;
        storage.collect(&CollectOptions::default(), &never()).await.unwrap();
    }
    let storage = open_at(directory.path(), &time).await;
    time.pass(HOUR);
    let bytes = storage.statistics().await.unwrap().bytes;
    assert_eq!(storage.evict_to(bytes - 1, &never()).await.unwrap().manifests, 1);
    assert_whole(&*upstream(&storage, "a"), &by_tag("a")).await;
}

/// A computer that begins with a wrong clock, which is then set right.
#[tokio::test]
async fn what_was_used_by_a_clock_that_was_ahead_goes_as_well() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let ahead = Arc::new(AtomicU64::new(400 * DAY));
    let clock = (time.clone(), Arc::clone(&ahead));
    let now = Arc::new(move || clock.0.now() + Duration::from_secs(clock.1.load(Ordering::SeqCst)));
    let options = StorageOptions { now, ..StorageOptions::default() };
    let storage = Storage::open_with(directory.path(), options).await.unwrap();
    let repo = upstream(&storage, "a");
    for name in ["read", "recorded"] {
        push_image(&*repo, &[bytes(name, 5000)], Some(name)).await;
    }
    assert_whole(&*repo, &by_tag("read")).await;
    ahead.store(0, Ordering::SeqCst);
    assert_eq!(storage.evict_to(0, &never()).await.unwrap().manifests, 0, "used lately, as far as is known");
    time.pass(2 * HOUR);
    let evicted = storage.evict_to(0, &never()).await.unwrap();
    assert_eq!((evicted.manifests, evicted.left), (2, 0));
}
