//! What was fetched from upstreams, under upkeep and over restarts.

use std::sync::Arc;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_storage::{CheckOptions, CollectOptions, Depth, Storage};
use ferry_store::{Cache, CachedRepository, Kind, Scope, Staging};

use crate::fixtures::*;
use crate::upkeep_fixtures::*;

const CHECK: CheckOptions = CheckOptions { depth: Depth::Digests, repair: true };

fn cached(storage: &Storage, name: &str) -> Arc<dyn CachedRepository> {
    let scope = Scope::Upstream { host: "docker.io".to_owned(), account: None };
    storage.cached(&scope, &name.parse().unwrap())
}

async fn adopt(storage: &Storage, name: &str, content: &bytes::Bytes) -> Digest {
    let digest = Digest::sha256(content);
    let partial = storage.staging(None).await.unwrap().open(&digest, content.len() as u64).await;
    let partial = partial.unwrap().unwrap();
    partial.write_at(0, content.clone()).await.unwrap();
    partial.seal(&digest).await.unwrap();
    cached(storage, name).adopt(&digest, &*partial).await.unwrap();
    digest
}

/// Adopted blobs are collected and evicted with the manifests that name them, and kept as long as these are there.
#[tokio::test]
async fn upkeep_knows_what_was_adopted() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let (layer, lone) = (bytes("layer", 5000), bytes("lone", 300));
    let image = image(&[bytes("config", 100), layer.clone()]);
    cached(&storage, "a").keep(&image, Some((&tag("v1"), time.now()))).await.unwrap();
    let (layer, lone) = (adopt(&storage, "a", &layer).await, adopt(&storage, "a", &lone).await);
    let checked = storage.check(CHECK, &never(), &mut |_| {}).await.unwrap();
    assert_eq!(
        (checked.findings, checked.manifests, checked.contents),
        (0, 1, 3),
        "its configuration may come"
    );
    assert_eq!(content_files(directory.path()).len(), 3);
    time.pass(DAY + 1);
    let collected = storage.collect(&CollectOptions::default(), &never()).await.unwrap();
    assert_eq!((collected.links, collected.blobs, collected.orphans), (1, 1, 0), "what no manifest names");
    assert_eq!(cached(&storage, "a").held(&lone).await.unwrap(), None, "nor anywhere else");
    assert_eq!(cached(&storage, "a").stat(&layer).await.unwrap(), Some(5000));
    cached(&storage, "a").tag(&tag("v1")).await.unwrap().unwrap();
    assert_eq!(storage.evict_to(0, &never()).await.unwrap().manifests, 0, "asked for a moment ago");
    time.pass(DAY);
    assert_eq!(storage.evict_to(0, &never()).await.unwrap().manifests, 1);
    assert!(content_files(directory.path()).is_empty());
    assert_eq!(cached(&storage, "a").tag(&tag("v1")).await.unwrap(), None);
}

/// What is being fetched is no content yet, so no upkeep touches it.
#[tokio::test]
async fn partial_blobs_are_not_touched() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let (content, digest) = (bytes("flight", 5000), Digest::sha256(&bytes("flight", 5000)));
    let staging = storage.staging(None).await.unwrap();
    let partial = staging.open(&digest, 5000).await.unwrap().unwrap();
    partial.write_at(0, content.clone()).await.unwrap();
    time.pass(10 * DAY);
    storage.collect(&CollectOptions::default(), &never()).await.unwrap();
    storage.evict_to(0, &never()).await.unwrap();
    storage.check(CHECK, &never(), &mut |_| {}).await.unwrap();
    partial.seal(&digest).await.unwrap();
    cached(&storage, "a").adopt(&digest, &*partial).await.unwrap();
    storage.collect(&CollectOptions::default(), &never()).await.unwrap();
    assert_eq!(read_blob(&*cached(&storage, "a"), &digest).await, content);
}

#[tokio::test]
async fn all_is_kept_over_a_restart() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let content = bytes("layer", 5000);
    let image = image(&[bytes("config", 100), content.clone()]);
    let confirmed = {
        let storage = open_at(directory.path(), &time).await;
        let repo = cached(&storage, "a");
        repo.keep(&image, Some((&tag("v1"), time.now()))).await.unwrap();
        repo.withdraw(&tag("v1"), time.now() + Duration::from_secs(60)).await.unwrap();
        adopt(&storage, "a", &content).await;
        repo.tag(&tag("v1")).await.unwrap().unwrap()
    };
    let storage = open_at(directory.path(), &time).await;
    let repo = cached(&storage, "a");
    assert_eq!(repo.tag(&tag("v1")).await.unwrap().unwrap(), confirmed);
    assert_eq!(confirmed.withdrawn.unwrap().duration_since(confirmed.confirmed).unwrap().as_secs(), 60);
    assert_eq!(read_blob(&*repo, &Digest::sha256(&content)).await, content);
}

/// A push says what the tag means from then on, whatever the upstream said before.
#[tokio::test]
async fn a_push_is_no_confirmation() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = cached(&storage, "library/alpine");
    repo.keep(&image(&[bytes("config", 100)]), Some((&tag("latest"), time.now()))).await.unwrap();
    repo.withdraw(&tag("latest"), time.now()).await.unwrap();
    time.pass(HOUR);
    let pushed =
        push_image(&*upstream(&storage, "library/alpine"), &[bytes("pushed", 100)], Some("latest")).await;
    let found = repo.tag(&tag("latest")).await.unwrap().unwrap();
    assert_eq!((found.descriptor.digest, found.withdrawn), (pushed.digest(), None));
    assert!(time.now().duration_since(found.confirmed).unwrap().as_secs() < 1, "as old as the push");
}

/// Nothing is adopted twice from bytes that are gone.
#[tokio::test]
async fn what_was_evicted_is_not_adopted_again() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let content = bytes("layer", 5000);
    let digest = Digest::sha256(&content);
    let partial = storage.staging(None).await.unwrap().open(&digest, 5000).await.unwrap().unwrap();
    partial.write_at(0, content).await.unwrap();
    partial.seal(&digest).await.unwrap();
    cached(&storage, "a").adopt(&digest, &*partial).await.unwrap();
    std::fs::remove_file(content_file(directory.path(), &digest)).unwrap();
    assert_eq!(kind(cached(&storage, "b").adopt(&digest, &*partial).await), Some(Kind::Unavailable));
    assert_eq!(cached(&storage, "b").stat(&digest).await.unwrap(), None);
}

/// What was begun and given up makes room, but not for what is too large anyway, and not while somebody holds it.
#[tokio::test]
async fn staging_makes_room() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let staging = storage.staging(Some(10_000)).await.unwrap();
    let digests = ["oldest", "held", "young", "new"].map(|text| Digest::sha256(text.as_bytes()));
    let mut held = Vec::new();
    for (digest, age) in digests[..3].iter().zip([300, 200, 100]) {
        held.push(staging.open(digest, 3000).await.unwrap().unwrap());
        let part = directory.path().join("staging").join(format!("sha256-{}.part", digest.hex()));
        let file = std::fs::File::options().write(true).open(part).unwrap();
        file.set_modified(time.now() - Duration::from_secs(age)).unwrap();
    }
    assert!(staging.open(&digests[3], 3000).await.unwrap().is_none(), "all are held");
    let there = async || {
        let mut sizes = Vec::new();
        for digest in &digests {
            sizes.push(staging.staged(digest).await.unwrap());
        }
        sizes
    };
    held.remove(2);
    held.remove(0);
    assert!(staging.open(&digests[3], 10_001).await.unwrap().is_none());
    assert_eq!(there().await, [Some(3000), Some(3000), Some(3000), None], "nothing was lost for it");
    staging.open(&digests[3], 3000).await.unwrap().unwrap();
    assert_eq!(there().await, [None, Some(3000), Some(3000), Some(3000)]);
    staging.open(&digests[0], 7000).await.unwrap().unwrap();
    assert_eq!(there().await, [Some(7000), Some(3000), None, None]);
}

/// What a kill leaves between the file and its row is not fetched again.
#[tokio::test]
async fn a_file_without_a_row_is_shown_once_it_is_confirmed() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let content = bytes("layer", 5000);
    let digest = {
        let storage = open_at(directory.path(), &time).await;
        let digest = adopt(&storage, "a", &content).await;
        upstream(&storage, "a").delete_blob(&digest).await.unwrap();
        storage.collect(&CollectOptions { orphans: false, ..Default::default() }, &never()).await.unwrap();
        digest
    };
    std::fs::create_dir_all(content_file(directory.path(), &digest).parent().unwrap()).unwrap();
    std::fs::write(content_file(directory.path(), &digest), &content).unwrap();
    let storage = open_at(directory.path(), &time).await;
    let repo = cached(&storage, "a");
    assert_eq!((repo.stat(&digest).await.unwrap(), repo.held(&digest).await.unwrap()), (None, Some(5000)));
    assert!(!repo.link(&digest, 4999).await.unwrap());
    assert!(repo.link(&digest, 5000).await.unwrap());
    assert_eq!(read_blob(&*repo, &digest).await, content);
}
