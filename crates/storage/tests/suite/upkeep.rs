//! What upkeep removes, and what it must not.

use std::time::Duration;

use ferry_oci::{Digest, Reference};
use ferry_storage::{CollectOptions, Storage, StorageOptions};
use ferry_store::{ByteRange, Kind, PageRequest};
use tokio_util::sync::CancellationToken;

use crate::fixtures::*;
use crate::upkeep_fixtures::*;

/// Collects what may go now.
async fn collect(storage: &Storage) -> ferry_storage::Collected {
    storage.collect(&CollectOptions::default(), &never()).await.unwrap()
}

async fn untagged(storage: &Storage, older_than: u64) -> ferry_storage::Collected {
    let untagged_older_than = Some(Duration::from_secs(older_than));
    storage
        .collect(&CollectOptions { untagged_older_than, ..CollectOptions::default() }, &never())
        .await
        .unwrap()
}

#[tokio::test]
async fn blobs_without_manifest_go_after_the_grace() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = writer(&storage, "a");
    let blobs = [bytes("config", 100), bytes("layer", 5000)];
    let image = push_image(&*repo, &blobs, Some("v1")).await;
    let lone = push_blob(&*repo, &bytes("lone", 777)).await;
    let asked = push_blob(&*repo, &bytes("asked for", 778)).await;

    time.pass(DAY - 1);
    assert_eq!(repo.stat(&asked).await.unwrap(), Some(778), "a push may rely on this answer");
    let collected = collect(&storage).await;
    assert_eq!((collected.links, collected.blobs), (0, 0), "{collected:?}");
    time.pass(1);
    let collected = collect(&storage).await;
    assert_eq!((collected.links, collected.blobs, collected.bytes), (1, 1, 777), "{collected:?}");
    assert_eq!(repo.stat(&lone).await.unwrap(), None);
    assert!(!content_file(directory.path(), &lone).exists());
    assert_eq!(repo.stat(&asked).await.unwrap(), Some(778));
    time.pass(DAY);
    let collected = collect(&storage).await;
    assert_eq!((collected.links, collected.bytes), (1, 778), "{collected:?}");
    assert_whole(&*repo, &by_tag("v1")).await;
    let expected = [image.digest(), Digest::sha256(&blobs[0]), Digest::sha256(&blobs[1])];
    assert_eq!(content_files(directory.path()), expected.into_iter().collect());
}

#[tokio::test]
async fn untagged_manifests_stay_unless_that_is_asked_for() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = writer(&storage, "a");
    let child = push_image(&*repo, &[bytes("child", 50)], None).await;
    let index = index(&[&child]);
    repo.put_manifest(&index, Some(&tag("v1"))).await.unwrap();
    let sbom = referrer(&index, &bytes("child", 50), "sbom");
    repo.put_manifest(&sbom, None).await.unwrap();
    let of_child = referrer(&child, &bytes("child", 50), "of the child");
    repo.put_manifest(&of_child, None).await.unwrap();
    let loose = push_image(&*repo, &[bytes("loose", 60)], None).await;
    let all = [&child, &index, &sbom, &of_child, &loose];

    time.pass(10 * DAY);
    assert_eq!(collect(&storage).await.manifests, 0);
    assert_eq!(untagged(&storage, 11 * DAY).await.manifests, 0, "too young");
    assert_eq!(untagged(&storage, 10 * DAY).await.manifests, 1);
    for manifest in all {
        let found = repo.resolve(&Reference::Digest(manifest.digest())).await;
        assert_eq!(found.is_ok(), manifest.digest() != loose.digest());
    }
    // What is untagged now has been read just now.
    repo.delete_manifest(&by_tag("v1")).await.unwrap();
    assert_eq!(untagged(&storage, 1).await.manifests, 0);
    time.pass(HOUR);
    let collected = untagged(&storage, HOUR).await;
    assert_eq!(collected.manifests, 4, "children and referrers go after what held them: {collected:?}");
    time.pass(DAY);
    collect(&storage).await;
    assert!(content_files(directory.path()).is_empty());
}

#[tokio::test]
async fn a_tag_that_moves_away_starts_the_age() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = writer(&storage, "a");
    let first = push_image(&*repo, &[bytes("first", 50)], Some("latest")).await;
    time.pass(30 * DAY);
    push_image(&*repo, &[bytes("second", 50)], Some("latest")).await;
    time.pass(DAY - 1);
    assert_eq!(untagged(&storage, DAY).await.manifests, 0);
    time.pass(1);
    assert_eq!(untagged(&storage, DAY).await.manifests, 1);
    assert_eq!(kind(repo.resolve(&Reference::Digest(first.digest())).await), Some(Kind::NotFound));
}

#[tokio::test]
async fn what_another_repository_or_scope_has_stays() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let shared = bytes("shared", 4000);
    let repo = upstream(&storage, "b");
    push_image(&*repo, std::slice::from_ref(&shared), Some("v1")).await;
    let digest = push_blob(&*writer(&storage, "a"), &shared).await;
    time.pass(2 * DAY);
    let collected = collect(&storage).await;
    assert_eq!((collected.links, collected.blobs), (1, 0), "the link goes, the file stays");
    assert_eq!(writer(&storage, "a").stat(&digest).await.unwrap(), None);
    assert_whole(&*repo, &by_tag("v1")).await;
}

/// What many repositories have is looked up in another way.
#[tokio::test]
async fn a_blob_of_many_repositories() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let base = bytes("base", 4000);
    let digest = Digest::sha256(&base);
    for n in 0..60 {
        let repo = writer(&storage, &format!("app/{n}"));
        let expect = ferry_store::Expect { mount: ferry_store::Mount::Anywhere, ..no_mount(Some(digest)) };
        if let ferry_store::Begun::Upload(mut upload) = repo.begin(expect).await.unwrap() {
            upload.write(base.clone()).await.unwrap();
            upload.commit(&digest).await.unwrap();
        }
        if n % 3 == 0 {
            repo.put_manifest(&image(std::slice::from_ref(&base)), Some(&tag("v1"))).await.unwrap();
        }
    }
    time.pass(DAY);
    let collected = collect(&storage).await;
    assert_eq!((collected.links, collected.blobs), (40, 0));
    for n in 0..60 {
        let repo = writer(&storage, &format!("app/{n}"));
        assert_eq!(repo.stat(&digest).await.unwrap().is_some(), n % 3 == 0);
    }
}

#[tokio::test]
async fn a_reader_reads_to_the_end() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = writer(&storage, "a");
    let content = bytes("being read", 2_000_000);
    let digest = push_blob(&*repo, &content).await;
    let reading = repo.blob(&digest, ByteRange::ALL).await.unwrap();
    repo.delete_blob(&digest).await.unwrap();
    assert_eq!(collect(&storage).await.blobs, 1);
    assert!(content_files(directory.path()).is_empty());
    assert_eq!(reading.into_bytes().await.unwrap(), content);
}

#[tokio::test]
async fn orphans_go_after_the_grace_and_strange_files_stay() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let lost = Digest::sha256(b"in place, then killed");
    let path = content_file(directory.path(), &lost);
    let fan = path.parent().unwrap();
    std::fs::create_dir_all(fan).unwrap();
    std::fs::write(&path, "in place, then killed").unwrap();
    let elsewhere = directory.path().join("blobs/sha256/zz").join(lost.hex());
    std::fs::create_dir_all(elsewhere.parent().unwrap()).unwrap();
    let strange =
        [fan.join("notes.txt"), fan.join(&lost.hex()[1..]), elsewhere, directory.path().join("blobs/x")];
    for path in &strange {
        std::fs::write(path, "keep").unwrap();
    }
    assert_eq!(collect(&storage).await.orphans, 0, "too young");
    time.pass(DAY + 1);
    let without = CollectOptions { orphans: false, ..CollectOptions::default() };
    assert_eq!(storage.collect(&without, &never()).await.unwrap().orphans, 0);
    let collected = collect(&storage).await;
    assert_eq!((collected.orphans, collected.blobs, collected.bytes), (1, 1, 21));
    assert!(!path.exists() && strange.iter().all(|path| path.exists()));
}

#[tokio::test]
async fn a_stopped_collection_ends_early_and_says_so() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    push_blob(&*writer(&storage, "a"), &bytes("lone", 10)).await;
    time.pass(2 * DAY);
    let stop = CancellationToken::new();
    stop.cancel();
    let collected = storage.collect(&CollectOptions::default(), &stop).await.unwrap();
    assert!(collected.stopped && collected.blobs == 0);
    assert_eq!(collect(&storage).await.blobs, 1);
}

#[tokio::test]
async fn uploads_expire_while_running_unless_held() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = writer(&storage, "a");
    let mut tokens = Vec::new();
    for _ in 0..2 {
        let mut upload = begin(&*repo, None).await;
        upload.write(bytes("some", 1000)).await.unwrap();
        tokens.push(upload.suspend().await.unwrap().unwrap());
    }
    let mut held = repo.resume(&tokens[1]).await.unwrap().unwrap();
    assert_eq!(storage.expire_uploads().await.unwrap().uploads, 0);
    time.pass(DAY + 1);
    let expired = storage.expire_uploads().await.unwrap();
    assert_eq!((expired.uploads, expired.bytes), (1, 1000));
    assert!(repo.resume(&tokens[0]).await.unwrap().is_none());
    held.write(bytes("more", 1000)).await.unwrap();
    assert_eq!(held.durable_offset().await.unwrap(), 2000);
    drop(held);
    assert_eq!(upload_files(directory.path()), [tokens[1].expose()]);
    // Written to just now, which by the time of the test lies a day back.
    assert_eq!(storage.expire_uploads().await.unwrap().uploads, 1);
    assert!(upload_files(directory.path()).is_empty());
}

#[tokio::test]
async fn statistics_count_what_is_there() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let empty = storage.statistics().await.unwrap();
    assert_eq!((empty.blobs, empty.bytes, empty.oldest_use), (0, 0, None));
    let shared = bytes("shared", 1000);
    let image = push_image(&*writer(&storage, "a"), std::slice::from_ref(&shared), Some("v1")).await;
    let repo = writer(&storage, "b");
    push_image(&*repo, std::slice::from_ref(&shared), Some("v1")).await;
    repo.put_manifest(&image, Some(&tag("v2"))).await.unwrap();
    begin(&*repo, None).await.write(bytes("under way", 500)).await.unwrap();
    let found = storage.statistics().await.unwrap();
    let manifest = image.bytes().len() as u64;
    assert_eq!((found.repositories, found.tags, found.manifests, found.links), (2, 3, 2, 2));
    assert_eq!((found.blobs, found.bytes, found.bytes_linked), (2, 1000 + manifest, 2000));
    assert_eq!((found.uploads, found.upload_bytes, found.bytes_unneeded), (1, 500, 0));
    let oldest = time.now().duration_since(found.oldest_use.unwrap()).unwrap();
    assert!(oldest < Duration::from_secs(2), "{oldest:?}");
    repo.delete_manifest(&Reference::Digest(image.digest())).await.unwrap();
    repo.delete_blob(&Digest::sha256(&shared)).await.unwrap();
    let found = storage.statistics().await.unwrap();
    assert_eq!((found.tags, found.manifests, found.links, found.blobs), (1, 1, 1, 2));
    let repo = writer(&storage, "a");
    repo.delete_manifest(&Reference::Digest(image.digest())).await.unwrap();
    repo.delete_blob(&Digest::sha256(&shared)).await.unwrap();
    assert_eq!(storage.statistics().await.unwrap().bytes_unneeded, 1000 + manifest);
}

#[tokio::test]
async fn a_listing_says_when_a_tag_was_pushed() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let storage = open_at(directory.path(), &time).await;
    let repo = writer(&storage, "a");
    let image = push_image(&*repo, &[bytes("x", 10)], Some("v1")).await;
    let pushed = async || repo.tags(PageRequest::default()).await.unwrap().items[0].pushed.unwrap();
    let first = pushed().await;
    assert!(time.now().duration_since(first).unwrap() < Duration::from_secs(1), "in whole seconds");
    time.pass(100);
    assert_eq!(pushed().await, first);
    repo.put_manifest(&image, Some(&tag("v1"))).await.unwrap();
    assert_eq!(pushed().await, first + Duration::from_secs(100));
}

/// Upkeep as the server runs it.
#[tokio::test]
async fn upkeep_goes_on_until_it_is_stopped() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let options = StorageOptions { size_limit: Some(0), ..time.options() };
    let storage = Storage::open_with(directory.path(), options).await.unwrap();
    let repo = upstream(&storage, "a");
    let token = begin(&*repo, None).await.suspend().await.unwrap().unwrap();
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn({
        let (storage, stop) = (storage.clone(), stop.clone());
        async move { storage.upkeep(stop, Duration::from_millis(5)).await }
    });
    push_image(&*repo, &[bytes("cached", 5000)], Some("v1")).await;
    push_blob(&*repo, &bytes("lone", 5000)).await;
    time.pass(2 * DAY);
    while !content_files(directory.path()).is_empty() || !upload_files(directory.path()).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(repo.resume(&token).await.unwrap().is_none());
    stop.cancel();
    upkeep.await.unwrap();
}

mod small_disks {
    use std::fs::File;
    use std::path::PathBuf;

    use super::*;

    const DISK: &str = "FERRY_TEST_SMALL_DISK";

    /// A file system of 12 MiB, for the test of this name, which is called in a mount namespace of its own; `None` when it
    /// has passed there.
    fn small_disk(test: &str) -> Option<PathBuf> {
        if let Some(disk) = std::env::var_os(DISK) {
            return Some(disk.into());
        }
        let dir = tempfile::tempdir().unwrap();
        let script = format!("mount -t tmpfs -o size=12m none \"${DISK}\" && exec \"$0\" --exact {test}");
        let output = std::process::Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env(DISK, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
        None
    }

    #[tokio::test]
    async fn a_disk_without_any_room_is_told_from_a_broken_one() {
        let test = "upkeep::small_disks::a_disk_without_any_room_is_told_from_a_broken_one";
        let Some(disk) = small_disk(test) else { return };
        let directory = disk.join("storage");
        let storage = Storage::open(&directory).await.unwrap();
        let there = push_blob(&*writer(&storage, "a"), &bytes("there", 1000)).await;
        drop(storage);
        // It is closed when what is shared is gone.
        while directory.join("catalog.sqlite-shm").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let filler = disk.join("filler");
        std::io::copy(&mut std::io::repeat(0), &mut File::create(&filler).unwrap()).unwrap_err();
        let error = Storage::open(&directory).await.map(|_| ()).unwrap_err();
        assert!(error.kind() == Kind::Full && error.detail().contains("free some space"), "{error}");
        std::fs::remove_file(filler).unwrap();
        let storage = Storage::open(&directory).await.unwrap();
        assert_eq!(writer(&storage, "a").stat(&there).await.unwrap(), Some(1000));
    }

    #[tokio::test]
    async fn what_did_not_fit_makes_room_soon() {
        let Some(disk) = small_disk("upkeep::small_disks::what_did_not_fit_makes_room_soon") else { return };
        let time = Time::new();
        let storage = open_at(&disk, &time).await;
        let repo = writer(&storage, "a");
        let mut upload = begin(&*repo, None).await;
        upload.write(bytes("some", 1_000_000)).await.unwrap();
        let token = upload.suspend().await.unwrap().unwrap();
        time.pass(HOUR);
        assert_eq!(storage.expire_uploads().await.unwrap().uploads, 0, "there is room");
        let mut upload = repo.resume(&token).await.unwrap().unwrap();
        let refused = loop {
            if let Err(error) = upload.write(bytes("more", 500_000)).await {
                break error;
            }
        };
        assert_eq!(refused.kind(), Kind::Full);
        assert_eq!(kind(repo.begin(no_mount(None)).await), Some(Kind::Full), "nor is anything begun");
        assert_eq!(storage.expire_uploads().await.unwrap().uploads, 0, "it is held");
        drop(upload);
        assert_eq!(storage.expire_uploads().await.unwrap().uploads, 1);
        push_blob(&*repo, &bytes("another", 1_000_000)).await;
    }
}
