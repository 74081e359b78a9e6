//! The narrow moments: content comes in the very instant in which it is about to go.

use std::time::Duration;

use ferry_oci::{Digest, Reference};
use ferry_storage::{CollectOptions, Storage};
use ferry_store::{Begun, Expect, Mount, RepositoryMut};
use tokio::task::JoinSet;

use crate::fixtures::*;
use crate::upkeep_fixtures::*;

/// Several repositories take in and give up the same image again and again, so that for each of them it is now new, now
/// there, now mounted, and now nobody's, while all that is nobody's is removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn content_that_comes_while_it_goes() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    // By the clock of this test every file is old, so that a file without a row goes at once.
    time.pass(2 * DAY);
    let mut clients = JoinSet::new();
    for n in 0..4 {
        let repo = writer(&storage, &format!("client/{n}"));
        clients.spawn(async move {
            for round in 0..250 {
                come_and_go(&*repo, if (round + n) % 3 == 0 { Mount::Anywhere } else { Mount::No }).await;
            }
        });
    }
    let mut removers = JoinSet::new();
    for _ in 0..2 {
        let storage = storage.clone();
        removers.spawn(async move {
            loop {
                collect(&storage).await;
            }
        });
    }
    clients.join_all().await;
    removers.shutdown().await;
    // A step that was under way goes on to its end.
    tokio::time::sleep(Duration::from_millis(50)).await;
    collect(&storage).await;
    assert!(content_files(directory.path()).is_empty());
}

async fn collect(storage: &Storage) {
    storage.collect(&CollectOptions::default(), &never()).await.unwrap();
}

async fn come_and_go(repo: &dyn RepositoryMut, mount: Mount) {
    let blob = bytes("the same for all", 200);
    let digest = Digest::sha256(&blob);
    match repo.begin(Expect { digest: Some(digest), size: None, mount }).await.unwrap() {
        Begun::Upload(mut upload) => {
            upload.write(blob.clone()).await.unwrap();
            upload.commit(&digest).await.unwrap();
        }
        Begun::Exists | Begun::Mounted => {}
    }
    assert_eq!(repo.stat(&digest).await.unwrap(), Some(200));
    let image = image(std::slice::from_ref(&blob));
    repo.put_manifest(&image, Some(&tag("v1"))).await.unwrap();
    assert_whole(repo, &by_tag("v1")).await;
    repo.delete_manifest(&Reference::Digest(image.digest())).await.unwrap();
    assert_eq!(read_blob(repo, &digest).await, blob);
    repo.delete_blob(&digest).await.unwrap();
}
