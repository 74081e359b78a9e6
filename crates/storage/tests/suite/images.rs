//! What those see and do who look after a storage: images, pins, and what is dropped.

use std::collections::HashMap;
use std::time::Duration;

use ferry_oci::{Digest, Reference};
use ferry_storage::{CollectOptions, Dropped, ImagePlace, Storage};
use ferry_store::{Kind, PageRequest, Scope};

use crate::fixtures::*;
use crate::upkeep_fixtures::*;

fn docker() -> Scope {
    Scope::Upstream { host: "docker.io".to_owned(), account: None }
}

fn place(name: &str, reference: &str) -> ImagePlace {
    ImagePlace { scope: docker(), name: name.parse().unwrap(), reference: reference.parse().unwrap() }
}

async fn listed(storage: &Storage) -> Vec<(String, bool)> {
    let mut images = Vec::new();
    let mut request = PageRequest { limit: Some(2), ..PageRequest::default() };
    loop {
        let page = storage.images(Some(&docker()), request.clone()).await.unwrap();
        assert!(page.items.len() <= 2);
        images.extend(page.items.iter().map(|image| {
            let tag = image.tag.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            (format!("{}:{tag}", image.name), image.pinned)
        }));
        match page.next {
            Some(next) => request.after = Some(next),
            None => break,
        }
    }
    images.sort();
    images
}

#[tokio::test]
async fn what_is_pinned_survives_eviction_and_a_restart() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let mut pinned = Vec::new();
    {
        let storage = open_at(directory.path(), &time).await;
        let repo = upstream(&storage, "a");
        for name in ["by-tag", "by-digest", "child", "not"] {
            let image = push_image(&*repo, &[bytes(name, 5000)], None).await;
            let index = index(&[&image]);
            repo.put_manifest(&index, Some(&tag(name))).await.unwrap();
            pinned.push((image, index));
        }
        assert!(storage.pin(&place("a", "by-tag")).await.unwrap());
        assert!(!storage.pin(&place("a", "by-tag")).await.unwrap(), "it is pinned");
        storage.pin(&place("a", &pinned[1].1.digest().to_string())).await.unwrap();
        storage.pin(&place("a", &pinned[2].0.digest().to_string())).await.unwrap();
        storage.pin(&place("a", "absent")).await.unwrap();
    }
    time.pass(10 * HOUR);
    let storage = open_at(directory.path(), &time).await;
    assert_eq!(storage.pins().await.unwrap().len(), 4);
    let evicted = storage.evict_to(0, &never()).await.unwrap();
    assert_eq!(evicted.manifests, 3, "two indexes and the image that is not pinned: {evicted:?}");
    let statistics = storage.statistics().await.unwrap();
    assert_eq!((statistics.evicted, statistics.evicted_bytes), (3, evicted.bytes));
    assert!(statistics.free > 0);
    let repo = upstream(&storage, "a");
    assert_whole(&*repo, &Reference::Digest(pinned[2].0.digest())).await;
    for name in ["by-tag", "by-digest"] {
        let index = repo.manifest(&by_tag(name)).await.unwrap();
        assert_whole(&*repo, &Reference::Digest(index.children()[0].digest)).await;
    }
    assert_eq!(kind(repo.resolve(&by_tag("not")).await), Some(Kind::NotFound));
    // Nor is it collected as untagged.
    time.pass(40 * DAY);
    let options =
        CollectOptions { untagged_older_than: Some(Duration::from_secs(DAY)), ..CollectOptions::default() };
    assert_eq!(storage.collect(&options, &never()).await.unwrap().manifests, 0);
    for pin in storage.pins().await.unwrap() {
        assert!(storage.unpin(&pin).await.unwrap());
        assert!(!storage.unpin(&pin).await.unwrap());
    }
    assert_eq!(storage.evict_to(0, &never()).await.unwrap().left, 0);
}

#[tokio::test]
async fn a_pin_goes_with_its_tag() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = upstream(&storage, "a");
    let old = push_image(&*repo, &[bytes("old", 5000)], Some("v1")).await;
    storage.pin(&place("a", "v1")).await.unwrap();
    push_image(&*repo, &[bytes("new", 5000)], Some("v1")).await;
    time.pass(2 * HOUR);
    assert_eq!(storage.evict_to(0, &never()).await.unwrap().manifests, 1);
    assert_eq!(kind(repo.resolve(&Reference::Digest(old.digest())).await), Some(Kind::NotFound));
    assert_whole(&*repo, &by_tag("v1")).await;
}

#[tokio::test]
async fn what_nobody_used_for_long_goes_whatever_room_there_is() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = upstream(&storage, "a");
    for name in ["old", "read", "pinned"] {
        push_image(&*repo, &[bytes(name, 5000)], Some(name)).await;
    }
    push_image(&*writer(&storage, "own"), &[bytes("hosted", 5000)], Some("v1")).await;
    storage.pin(&place("a", "pinned")).await.unwrap();
    time.pass(5 * DAY);
    assert_whole(&*repo, &by_tag("read")).await;
    let week = Duration::from_secs(7 * DAY);
    assert_eq!(storage.evict_unused(week, &never()).await.unwrap().manifests, 0);
    time.pass(3 * DAY);
    let evicted = storage.evict_unused(week, &never()).await.unwrap();
    assert_eq!((evicted.manifests, evicted.links, evicted.blobs), (1, 1, 2), "{evicted:?}");
    assert_eq!(kind(repo.resolve(&by_tag("old")).await), Some(Kind::NotFound));
    assert_whole(&*writer(&storage, "own"), &by_tag("v1")).await;
    // What is in use stays, however short the age.
    assert_whole(&*repo, &by_tag("read")).await;
    assert_eq!(storage.evict_unused(Duration::ZERO, &never()).await.unwrap().manifests, 0);
}

#[tokio::test]
async fn images_are_listed_with_their_size() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = upstream(&storage, "a");
    let layer = bytes("layer", 9000);
    let image = push_image(&*repo, std::slice::from_ref(&layer), None).await;
    let both = index(&[&image]);
    for name in ["v1", "latest"] {
        repo.put_manifest(&both, Some(&tag(name))).await.unwrap();
    }
    let alone = push_image(&*upstream(&storage, "b"), &[bytes("b", 10)], None).await;
    push_image(&*writer(&storage, "own"), &[bytes("hosted", 50)], Some("v1")).await;
    storage.pin(&place("a", "v1")).await.unwrap();
    let names = |names: &[(&str, bool)]| names.iter().map(|(n, p)| ((*n).to_owned(), *p)).collect::<Vec<_>>();
    assert_eq!(listed(&storage).await, names(&[("a:latest", true), ("a:v1", true), ("b:-", false)]));
    let all = storage.images(None, PageRequest::default()).await.unwrap().items;
    assert_eq!(all.len(), 4);
    let sizes: HashMap<Digest, u64> = all.iter().map(|image| (image.digest, image.bytes)).collect();
    let expected = both.bytes().len() + image.bytes().len() + layer.len();
    assert_eq!(sizes[&both.digest()], expected as u64);
    assert_eq!(sizes[&alone.digest()], alone.bytes().len() as u64 + 10);
    let wrong = PageRequest { after: Some(ferry_store::Cursor::after("x")), ..PageRequest::default() };
    assert_eq!(kind(storage.images(None, wrong).await), Some(Kind::Invalid));
}

#[tokio::test]
async fn what_is_dropped_goes_and_what_others_need_stays() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = upstream(&storage, "a");
    let (base, stop) = (bytes("base", 4000), never());
    let image = push_image(&*repo, &[base.clone(), bytes("one", 4000)], None).await;
    let root = index(&[&image]);
    for name in ["v1", "latest"] {
        repo.put_manifest(&root, Some(&tag(name))).await.unwrap();
    }
    repo.put_manifest(&referrer(&root, &base, "signed"), None).await.unwrap();
    push_image(&*repo, &[base.clone(), bytes("two", 4000)], Some("v2")).await;
    let at = |reference: &str| place("a", reference);
    assert_eq!(kind(storage.drop_image(&at("absent"), &stop).await), Some(Kind::NotFound));
    assert_eq!(
        kind(storage.drop_image(&at(&image.digest().to_string()), &stop).await),
        Some(Kind::Denied),
        "the index needs it"
    );
    storage.pin(&at("v1")).await.unwrap();
    assert_eq!(kind(storage.drop_image(&at("v1"), &stop).await), Some(Kind::Denied), "pinned");
    assert_eq!(storage.drop_image(&at("latest"), &stop).await.unwrap(), Dropped::default());
    storage.unpin(&at("v1")).await.unwrap();
    let dropped = storage.drop_image(&at("v1"), &stop).await.unwrap();
    assert_eq!((dropped.manifests, dropped.links), (3, 1), "{dropped:?}");
    assert!(dropped.bytes > 4000, "{dropped:?}");
    assert_whole(&*repo, &by_tag("v2")).await;
    assert_eq!(listed(&storage).await, [("a:v2".to_owned(), false)]);
    let digest = repo.resolve(&by_tag("v2")).await.unwrap().descriptor.digest;
    storage.drop_image(&at(&digest.to_string()), &stop).await.unwrap();
    assert!(content_files(directory.path()).is_empty());
}
