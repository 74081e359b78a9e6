//! Whose the bucket is.

use std::sync::Arc;

use ferry_storage::{Storage, StorageOptions};
use ferry_store::{Cache, Error, Kind, Result, Scope};
use tempfile::TempDir;

use super::fixtures::*;
use crate::fixtures::*;
use crate::upkeep_fixtures::{Time, bytes, never};

/// Another directory with the same bucket.
struct Other {
    directory: TempDir,
    options: StorageOptions,
}

impl Other {
    fn of(s3: &S3, time: &Time) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), options: s3.options(time) }
    }

    fn taking_over(mut self) -> Self {
        self.options.bucket.as_mut().unwrap().take_over = true;
        self
    }

    async fn open(&self) -> Result<Arc<Storage>> {
        Storage::open_with(self.directory.path(), self.options.clone()).await
    }

    async fn refused(&self) -> Error {
        self.open().await.err().unwrap()
    }
}

/// A bucket that is in use is named with its user; one that is not is still another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_has_one_directory() {
    let (s3, time) = (S3::start().await, Time::new());
    let storage = s3.open_at(&time).await;
    let other = Other::of(&s3, &time);
    let live = other.refused().await;
    assert_eq!(live.kind(), Kind::Unavailable);
    assert!(live.detail().contains(&format!("process {} on ", std::process::id())), "{live}");
    let other = other.taking_over();
    assert_eq!(other.refused().await.kind(), Kind::Unavailable, "not while it is in use");
    storage.close().await;
    let closed = Other::of(&s3, &time).refused().await;
    assert_eq!(closed.kind(), Kind::Invalid);
    assert!(closed.detail().contains("take_over: true"), "{closed}");
    let taken = other.open().await.unwrap();
    let digest = push_blob(&*writer(&taken, "a"), &bytes("theirs", 1000)).await;
    uploaded(&taken).await;
    assert!(s3.object(&digest).is_file());
}

/// A process that was killed did not say that it has ended: the next one of its directory need not wait, others must.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_holds_a_bucket_for_a_minute() {
    let (s3, time) = (S3::start().await, Time::new());
    drop(s3.open_at(&time).await);
    let again = s3.open_at(&time).await;
    drop(again);
    let other = Other::of(&s3, &time).taking_over();
    assert_eq!(other.refused().await.kind(), Kind::Unavailable);
    time.pass(61);
    other.open().await.unwrap();
}

/// Who lost the bucket to another one changes nothing there any more.
#[tokio::test(flavor = "multi_thread")]
async fn who_lost_a_bucket_leaves_it_alone() {
    let (s3, time) = (S3::start().await, Time::new());
    let storage = s3.open_at(&time).await;
    let repo = writer(&storage, "a");
    let digest = push_blob(&*repo, &bytes("ours", 1000)).await;
    uploaded(&storage).await;
    // It was stopped for longer than a minute, as a sleeping machine is.
    time.pass(61);
    let taken = Other::of(&s3, &time).taking_over().open().await.unwrap();
    repo.delete_blob(&digest).await.unwrap();
    let collected = storage.collect(&ferry_storage::CollectOptions::default(), &never()).await;
    assert_eq!(kind(collected), Some(Kind::Unavailable));
    assert!(s3.object(&digest).is_file());
    taken.close().await;
}

/// Where the catalog is lost and the bucket is taken over, what is there need not be fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_catalog_is_not_lost_content() {
    let (s3, time) = (S3::start().await, Time::new());
    let (blob, left) = (bytes("layer", 5000), bytes("left", 700));
    let (digest, left) = {
        let storage = s3.open_at(&time).await;
        let digests = (
            push_blob(&*writer(&storage, "a"), &blob).await,
            push_blob(&*writer(&storage, "a"), &left).await,
        );
        uploaded(&storage).await;
        storage.close().await;
        digests
    };
    time.pass(100);
    let other = Other::of(&s3, &time).taking_over();
    let storage = other.open().await.unwrap();
    let scope = Scope::Upstream { host: "docker.io".to_owned(), account: None };
    let cached = storage.cached(&scope, &"a".parse().unwrap());
    while cached.held(&digest).await.unwrap().is_none() || cached.held(&left).await.unwrap().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(cached.stat(&digest).await.unwrap(), None, "a digest is no password");
    assert!(cached.link(&digest, 5000).await.unwrap());
    assert_eq!(read_blob(&*cached, &digest).await, blob);
    let collected = storage.collect(&ferry_storage::CollectOptions::default(), &never()).await.unwrap();
    assert_eq!(collected.blobs, 0, "it is given time");
    // Others must hear that it is still in use before a day is over, so the day passes for the grace alone.
    let at_once =
        ferry_storage::CollectOptions { grace: Some(std::time::Duration::ZERO), ..Default::default() };
    let collected = storage.collect(&at_once, &never()).await.unwrap();
    assert_eq!(
        (collected.orphans, collected.links),
        (1, 1),
        "what nothing needed, and what no manifest names"
    );
    assert!(!s3.object(&left).exists());
}
