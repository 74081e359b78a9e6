//! What a check finds, and what a repair does about it.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use ferry_oci::{Digest, Reference};
use ferry_storage::{CheckEvent, CheckOptions, Checked, Depth, Finding, Problem, Storage};
use ferry_store::{ByteRange, Kind, PageRequest, Scope};

use crate::fixtures::*;
use crate::upkeep_fixtures::*;

const LOOK: CheckOptions = CheckOptions { depth: Depth::Digests, repair: false };
const REPAIR: CheckOptions = CheckOptions { depth: Depth::Digests, repair: true };

async fn check(storage: &Storage, options: CheckOptions) -> (Checked, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut last = Checked::default();
    let observe = &mut |event: CheckEvent<'_>| match event {
        CheckEvent::Found(finding) => findings.push(finding.clone()),
        CheckEvent::Progress(checked) => last = *checked,
    };
    let checked = storage.check(options, &never(), observe).await.unwrap();
    assert_eq!((checked.contents, checked.manifests), (last.contents, last.manifests), "progress is told");
    assert_eq!(checked.findings, findings.len() as u64);
    (checked, findings)
}

fn damaged(digest: Digest, problem: Problem, repositories: &[&str], repaired: bool) -> Finding {
    let repositories = repositories.iter().map(|name| (Scope::Hosted, name.parse().unwrap())).collect();
    Finding::Damaged { digest, problem, repositories, repaired }
}

fn spoil(directory: &Path, digest: &Digest) -> (Digest, Vec<u8>) {
    let path = content_file(directory, digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, &bytes).unwrap();
    (Digest::sha256(&bytes), bytes)
}

#[tokio::test]
async fn nothing_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let child = push_image(&*repo, &[bytes("config", 100), bytes("layer", 20_000_000)], None).await;
    repo.put_manifest(&index(&[&child]), Some(&tag("v1"))).await.unwrap();
    for depth in [Depth::Sizes, Depth::Digests] {
        let (checked, findings) = check(&storage, CheckOptions { depth, repair: true }).await;
        assert_eq!(findings, []);
        assert_eq!((checked.contents, checked.manifests, checked.orphans), (4, 2, 0));
        assert!(checked.bytes > 20_000_000 && !checked.stopped);
    }
    assert!(!directory.path().join("damaged").exists());
}

#[tokio::test]
async fn a_damaged_blob_is_taken_out_and_comes_back_by_a_push() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let blobs = [bytes("config", 100), bytes("layer", 5000)];
    let (repo, other) = (writer(&storage, "a"), writer(&storage, "b"));
    let image = push_image(&*repo, &blobs, Some("v1")).await;
    push_blob(&*other, &blobs[1]).await;
    let layer = Digest::sha256(&blobs[1]);
    let (actual, spoilt) = spoil(directory.path(), &layer);

    let sizes = CheckOptions { depth: Depth::Sizes, repair: true };
    assert_eq!(check(&storage, sizes).await.1, [], "its size is right");
    let problem = Problem::Digest(actual);
    assert_eq!(check(&storage, LOOK).await.1, [damaged(layer, problem.clone(), &["a", "b"], false)]);
    assert!(repo.stat(&layer).await.unwrap().is_some(), "only looked at");

    let (checked, findings) = check(&storage, REPAIR).await;
    let incomplete = Finding::Incomplete {
        scope: Scope::Hosted,
        repository: "a".parse().unwrap(),
        manifest: image.digest(),
        missing: layer,
    };
    assert_eq!(findings, [damaged(layer, problem, &["a", "b"], true), incomplete.clone()]);
    assert_eq!(checked.repaired, 1);
    let kept = directory.path().join("damaged").join(format!("sha256-{}", layer.hex()));
    assert_eq!(fs::read(&kept).unwrap(), spoilt, "no byte is lost");
    for repo in [&repo, &other] {
        assert_eq!(repo.stat(&layer).await.unwrap(), None);
        assert_eq!(kind(repo.blob(&layer, ByteRange::ALL).await), Some(Kind::NotFound));
    }
    assert_eq!(repo.manifest(&by_tag("v1")).await.unwrap().bytes(), image.bytes(), "the manifest stays");
    assert_eq!(kind(repo.put_manifest(&image, Some(&tag("v2"))).await), Some(Kind::Incomplete));
    assert_eq!(check(&storage, REPAIR).await.1, [incomplete]);
    assert_eq!(storage.statistics().await.unwrap().blobs, 2);

    push_blob(&*repo, &blobs[1]).await;
    assert_whole(&*repo, &by_tag("v1")).await;
    assert_eq!(check(&storage, LOOK).await.1, []);
    // Once more: what is kept of the first time stays.
    spoil(directory.path(), &layer);
    assert_eq!(check(&storage, REPAIR).await.0.repaired, 1);
    assert_eq!(fs::read(&kept).unwrap(), spoilt);
    assert_eq!(fs::read(kept.with_extension("2")).unwrap(), spoilt);
}

#[tokio::test]
async fn missing_and_cut_files_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let mut pushed = Vec::new();
    for text in ["missing", "short", "long"] {
        pushed.push(push_blob(&*repo, &bytes(text, 1000)).await);
    }
    fs::remove_file(content_file(directory.path(), &pushed[0])).unwrap();
    fs::write(content_file(directory.path(), &pushed[1]), [0; 999]).unwrap();
    fs::write(content_file(directory.path(), &pushed[2]), [0; 1001]).unwrap();
    let problems = [Problem::Missing, Problem::Size(999), Problem::Size(1001)];
    for repaired in [false, true] {
        let (_, found) = check(&storage, CheckOptions { depth: Depth::Sizes, repair: repaired }).await;
        assert_eq!(found.len(), 3);
        for (digest, problem) in pushed.iter().zip(&problems) {
            assert!(found.contains(&damaged(*digest, problem.clone(), &["a"], repaired)), "{found:?}");
        }
    }
    assert_eq!(check(&storage, REPAIR).await.1, []);
    assert_eq!(fs::read_dir(directory.path().join("damaged")).unwrap().count(), 2);
    assert!(content_files(directory.path()).is_empty());
}

#[tokio::test]
async fn a_damaged_manifest_goes_with_its_tags() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let config = bytes("config", 100);
    let child = push_image(&*repo, std::slice::from_ref(&config), Some("child")).await;
    let index = index(&[&child]);
    repo.put_manifest(&index, Some(&tag("v1"))).await.unwrap();
    spoil(directory.path(), &child.digest());
    let (_, findings) = check(&storage, REPAIR).await;
    assert_eq!(findings.len(), 2, "the child is damaged and its index lacks it: {findings:?}");
    for gone in [by_tag("child"), Reference::Digest(child.digest())] {
        assert_eq!(kind(repo.manifest(&gone).await), Some(Kind::NotFound), "a clean answer");
    }
    let tags = repo.tags(PageRequest::default()).await.unwrap().items;
    assert_eq!(tags.iter().map(|t| t.tag.as_str()).collect::<Vec<_>>(), ["v1"]);
    assert_eq!(kind(repo.put_manifest(&index, None).await), Some(Kind::Incomplete));
    push_image(&*repo, &[config], Some("child")).await;
    repo.put_manifest(&index, None).await.unwrap();
    assert_eq!(check(&storage, LOOK).await.1, []);
}

#[tokio::test]
async fn what_was_deleted_under_a_manifest_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let config = bytes("config", 100);
    let image = push_image(&*repo, std::slice::from_ref(&config), Some("v1")).await;
    repo.delete_blob(&Digest::sha256(&config)).await.unwrap();
    let (_, findings) = check(&storage, LOOK).await;
    assert!(
        matches!(&findings[..], [Finding::Incomplete { manifest, missing, .. }]
            if *manifest == image.digest() && *missing == Digest::sha256(&config)),
        "{findings:?}"
    );
}

#[tokio::test]
async fn orphans_are_counted_and_left() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let path = content_file(directory.path(), &Digest::sha256(b"lost"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "lost").unwrap();
    let (checked, findings) = check(&storage, REPAIR).await;
    assert_eq!((checked.orphans, checked.orphan_bytes, findings), (1, 4, vec![]));
    assert!(path.exists());
}

/// A check that repairs while everything is pushed, pulled and removed takes nothing out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_wrong_while_it_changes() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let pushing = tokio::spawn({
        let storage = storage.clone();
        async move {
            let repo = writer(&storage, "a");
            for n in 0..60 {
                let blobs = [bytes("config", 100), Bytes::from(vec![n % 5; 30_000])];
                let image = push_image(&*repo, &blobs, Some("v1")).await;
                assert_whole(&*repo, &by_tag("v1")).await;
                repo.delete_manifest(&Reference::Digest(image.digest())).await.unwrap();
                for blob in &blobs {
                    repo.delete_blob(&Digest::sha256(blob)).await.unwrap();
                }
            }
        }
    });
    while !pushing.is_finished() {
        let (_, findings) = check(&storage, REPAIR).await;
        let damage = findings.iter().find(|finding| matches!(finding, Finding::Damaged { .. }));
        assert_eq!(damage, None, "an image on its way out may be incomplete");
        storage.collect(&ferry_storage::CollectOptions::default(), &never()).await.unwrap();
    }
    pushing.await.unwrap();
}
