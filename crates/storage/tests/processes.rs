//! Several processes. In a test program of their own: a child that is just being started holds a copy of every open
//! file, and with it the lock of a storage that another test may want to open again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "here a panic is a failed test")]

#[expect(dead_code, reason = "the other test program uses the rest")]
#[path = "suite/fixtures.rs"]
mod fixtures;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{Digest, Manifest, Reference};
use ferry_storage::{CheckOptions, CollectOptions, Depth, Storage};
use ferry_store::{Kind, PageRequest, RepositoryMut};

use fixtures::*;

/// Names the directory to push into, and makes a child of this test.
const DIRECTORY: &str = "FERRY_TEST_KILLED_DIRECTORY";

/// Everything that can be removed.
const AT_ONCE: CollectOptions =
    CollectOptions { grace: Some(Duration::ZERO), untagged_older_than: Some(Duration::ZERO), orphans: true };

fn blobs(round: usize, n: usize) -> [Bytes; 2] {
    [Bytes::from(format!("{{\"round\":{round},\"n\":{n}}}")), Bytes::from(vec![n as u8; 150_000])]
}

/// Pushes images until it is killed, and says of each one that it is stored. Without a directory it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (directory, round) = directory.split_once('#').unwrap();
    let storage = open(Path::new(directory)).await;
    let repo = writer(&storage, "a");
    for n in 0.. {
        let blobs = blobs(round.parse().unwrap(), n);
        for blob in &blobs {
            push_blob(&*repo, blob).await;
        }
        repo.put_manifest(&image(&blobs), Some(&tag(&format!("r{round}-{n}")))).await.unwrap();
        println!("stored {n}");
    }
}

/// Replaces images in one repository and removes at once whatever is not needed, until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child_with_upkeep() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let (directory, round) = directory.split_once('#').unwrap();
    let storage = open(Path::new(directory)).await;
    tokio::spawn({
        let storage = storage.clone();
        async move {
            let stop = Default::default();
            loop {
                storage.collect(&AT_ONCE, &stop).await.unwrap();
                storage.expire_uploads().await.unwrap();
            }
        }
    });
    let repo = writer(&storage, "a");
    for n in 0.. {
        let blobs = blobs(round.parse().unwrap(), n % 7);
        loop {
            for blob in &blobs {
                push_blob(&*repo, blob).await;
            }
            // Without any grace the blobs may be gone again.
            let put = repo.put_manifest(&image(&blobs), Some(&tag(&format!("t{}", n % 3)))).await;
            match kind(put) {
                None => break,
                kind => assert_eq!(kind, Some(Kind::Incomplete)),
            }
        }
        println!("stored {n}");
    }
}

/// Pushes in another process, kills it some time after `after` images, and returns how many it said to have stored.
fn push_and_kill(directory: &Path, round: usize, after: usize) -> usize {
    run_and_kill("child", directory, round, after)
}

fn run_and_kill(child: &str, directory: &Path, round: usize, after: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--nocapture"])
        .env(DIRECTORY, format!("{}#{round}", directory.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut stored = lines.by_ref().filter(|line| line.contains("stored ")).take(after).count();
    std::thread::sleep(Duration::from_micros(rand::random_range(0..15_000)));
    child.kill().unwrap();
    child.wait().unwrap();
    stored += lines.filter(|line| line.contains("stored ")).count();
    assert!(stored >= after, "the child ended by itself");
    stored
}

async fn assert_whole(repo: &dyn RepositoryMut, found: &Manifest) {
    for blob in found.blobs() {
        assert_eq!(Digest::sha256(&read_blob(repo, &blob.digest).await), blob.digest);
    }
}

#[tokio::test]
async fn what_was_stored_stays_and_nothing_is_half_there() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let stored = push_and_kill(directory.path(), round, round % 3 + 1);
        let storage = open(directory.path()).await;
        assert!(
            upload_files(directory.path()).len() <= round + 1,
            "at most the one upload under way at each kill"
        );
        let repo = writer(&storage, "a");
        for n in 0..stored {
            let found = repo.manifest(&by_tag(&format!("r{round}-{n}"))).await.unwrap();
            assert_eq!(found.digest(), image(&blobs(round, n)).digest());
        }
        for entry in repo.tags(PageRequest::default()).await.unwrap().items {
            assert_whole(&*repo, &repo.manifest(&Reference::Tag(entry.tag)).await.unwrap()).await;
        }
        // The image that was under way: all of it or nothing, and it can be pushed.
        let blobs = blobs(round, stored);
        let next = by_tag(&format!("r{round}-{stored}"));
        match repo.manifest(&next).await {
            Ok(found) => assert_eq!(found.digest(), image(&blobs).digest()),
            Err(error) => assert_eq!(error.kind(), Kind::NotFound),
        }
        for blob in &blobs {
            push_blob(&*repo, blob).await;
        }
        repo.put_manifest(&image(&blobs), Some(&tag(&format!("r{round}-{stored}")))).await.unwrap();
        assert_whole(&*repo, &repo.manifest(&next).await.unwrap()).await;
    }
}

/// Whatever upkeep was about when it was killed: what counts is whole, and the rest is found and removed.
#[tokio::test]
async fn a_killed_collection_loses_nothing_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..8 {
        run_and_kill("child_with_upkeep", directory.path(), round, round * 3 + 3);
        let storage = open(directory.path()).await;
        let repo = writer(&storage, "a");
        for entry in repo.tags(PageRequest::default()).await.unwrap().items {
            assert_whole(&*repo, &repo.manifest(&Reference::Tag(entry.tag)).await.unwrap()).await;
        }
        let options = CheckOptions { depth: Depth::Digests, repair: false };
        let checked = storage.check(options, &Default::default(), &mut |_| {}).await.unwrap();
        assert_eq!(checked.findings, 0);
        let collected = storage.collect(&AT_ONCE, &Default::default()).await.unwrap();
        println!("round {round}: {} orphans, {collected:?}", checked.orphans);
        let counted = storage.statistics().await.unwrap();
        assert_eq!(counted.tags, 3);
        assert!((1..=3).contains(&counted.manifests) && counted.bytes_unneeded == 0, "{counted:?}");
        let checked = storage.check(options, &Default::default(), &mut |_| {}).await.unwrap();
        assert_eq!((checked.findings, checked.orphans, checked.contents), (0, 0, counted.blobs));
        assert_eq!(counted.blobs, counted.manifests * 3);
    }
}

#[tokio::test]
async fn another_process_keeps_us_out() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).await);
    let lock = directory.path().join("lock");
    let mut child = Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo held; cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    let refused = Storage::open(directory.path()).await;
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(kind(refused), Some(Kind::Unavailable));
    open(directory.path()).await;
}
