//! Partial blobs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ferry_oci::{Algorithm, Digest};
use ferry_storage::{FileStaging, StagingOptions};
use ferry_store::{Extents, Kind, Partial, Staging, UploadToken};

use crate::fixtures::kind;

async fn staging(directory: &Path) -> Arc<FileStaging> {
    FileStaging::open(directory, StagingOptions::new(SystemTime::now())).await.unwrap()
}

async fn limited(directory: &Path, limit: u64) -> Arc<FileStaging> {
    let options = StagingOptions { limit: Some(limit), now: SystemTime::now() };
    FileStaging::open(directory, options).await.unwrap()
}

fn sample() -> (Bytes, Digest) {
    let bytes = Bytes::from((0..4500u32).map(|i| (i * i / 7) as u8).collect::<Vec<_>>());
    let digest = Digest::sha256(&bytes);
    (bytes, digest)
}

async fn partial(staging: &FileStaging, digest: &Digest) -> Arc<dyn Partial> {
    staging.open(digest, 4500).await.unwrap().unwrap()
}

fn extents(ranges: &[(u64, u64)]) -> Extents {
    ranges.iter().map(|(start, end)| *start..*end).collect()
}

fn file(directory: &Path, digest: &Digest, suffix: &str) -> PathBuf {
    directory.join(format!("sha256-{}.{suffix}", digest.hex()))
}

/// Files beside the lock.
fn files(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "lock").count()
}

#[tokio::test]
async fn whatever_was_written_survives_a_drop() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    {
        let staging = staging(directory.path()).await;
        let partial = partial(&staging, &digest).await;
        partial.write_at(0, bytes.slice(..999)).await.unwrap();
        partial.write_at(2000, bytes.slice(2000..2100)).await.unwrap();
        partial.write_at(999, bytes.slice(999..1600)).await.unwrap();
    }
    let staging = staging(directory.path()).await;
    let partial = partial(&staging, &digest).await;
    assert_eq!(partial.extents(), extents(&[(0, 1600), (2000, 2100)]));
    assert_eq!(partial.read_at(1500, 500).await.unwrap(), bytes.slice(1500..1600));
    partial.write_at(1600, bytes.slice(1600..)).await.unwrap();
    partial.seal(&digest).await.unwrap();
    assert!(partial.is_sealed());
    assert_eq!(partial.read_at(0, 10_000).await.unwrap(), bytes);
    partial.discard().await.unwrap();
    assert_eq!(files(directory.path()), 0);
    assert_eq!(kind(partial.read_at(0, 1).await), Some(Kind::Invalid), "cannot be used any more");
}

#[tokio::test]
async fn a_line_that_a_kill_cut_off_costs_its_own_bytes_only() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    {
        let partial = partial(&*staging(directory.path()).await, &digest).await;
        partial.write_at(10, bytes.slice(10..20)).await.unwrap();
        partial.write_at(4400, bytes.slice(4400..4500)).await.unwrap();
    }
    let map = file(directory.path(), &digest, "map");
    let text = fs::read_to_string(&map).unwrap();
    fs::write(&map, &text[..text.len() - 2]).unwrap();
    let partial = partial(&*staging(directory.path()).await, &digest).await;
    assert_eq!(partial.extents(), extents(&[(10, 20)]));
    partial.write_at(0, bytes.clone()).await.unwrap();
    partial.seal(&digest).await.unwrap();
}

#[tokio::test]
async fn uploads_are_remembered_by_target() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    let token = UploadToken::new("https://r.example/uploads/1?_state=a");
    {
        let partial = partial(&*staging(directory.path()).await, &digest).await;
        partial.write_at(0, bytes.slice(..100)).await.unwrap();
        assert_eq!(partial.kept_upload("a").await.unwrap(), None);
        partial.keep_upload("a", Some(&token)).await.unwrap();
        partial.keep_upload("b", Some(&UploadToken::new("other"))).await.unwrap();
    }
    let partial = partial(&*staging(directory.path()).await, &digest).await;
    assert_eq!(partial.kept_upload("a").await.unwrap(), Some(token));
    let uploads = file(directory.path(), &digest, "uploads");
    assert_eq!(
        fs::metadata(&uploads).unwrap().permissions().mode() & 0o777,
        0o600,
        "whoever has it may write"
    );
    partial.keep_upload("a", None).await.unwrap();
    assert_eq!(partial.kept_upload("a").await.unwrap(), None);
    assert!(partial.kept_upload("b").await.unwrap().is_some());
    fs::write(&uploads, "garbled").unwrap();
    assert_eq!(partial.kept_upload("b").await.unwrap(), None);
    partial.discard().await.unwrap();
    assert_eq!(files(directory.path()), 0);
}

#[tokio::test]
async fn all_processes_together_keep_to_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    let (ours, theirs) = (limited(directory.path(), 10_000).await, limited(directory.path(), 10_000).await);
    let first = partial(&ours, &digest).await;
    let second = theirs.open(&Digest::sha256(b"second"), 5500).await.unwrap().unwrap();
    for staging in [&ours, &theirs] {
        assert!(staging.open(&Digest::sha256(b"third"), 1).await.unwrap().is_none(), "no room");
    }
    second.discard().await.unwrap();
    assert!(theirs.open(&Digest::sha256(b"third"), 5501).await.unwrap().is_none(), "one byte too much");
    assert!(theirs.open(&Digest::sha256(b"third"), 5500).await.unwrap().is_some());
    // What has its room goes on, however little is left.
    first.write_at(0, bytes.slice(..100)).await.unwrap();
    drop((first, ours));
    let tight = limited(directory.path(), 1).await;
    assert_eq!(partial(&tight, &digest).await.extents(), extents(&[(0, 100)]));
}

#[tokio::test]
async fn out_of_order_and_overlapping() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    let partial = partial(&*staging(directory.path()).await, &digest).await;
    for (start, end) in [(3000, 4500), (0, 500), (2000, 2500), (1900, 3100), (500, 700), (400, 2000)] {
        partial.write_at(start, bytes.slice(start as usize..end)).await.unwrap();
    }
    // Bytes that are there stay what they are.
    partial.write_at(100, Bytes::from(vec![0xff; 3000])).await.unwrap();
    assert_eq!(partial.extents(), extents(&[(0, 4500)]));
    partial.seal(&digest).await.unwrap();
    assert_eq!(partial.read_at(0, 4500).await.unwrap(), bytes);
}

#[tokio::test]
async fn wrong_bytes_are_discarded() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    let staging = staging(directory.path()).await;
    for in_order in [true, false] {
        let first = partial(&staging, &digest).await;
        assert!(first.extents().is_empty());
        let mut wrong = bytes.to_vec();
        wrong[4321] ^= 1;
        let (head, tail) = (Bytes::copy_from_slice(&wrong[..2000]), Bytes::copy_from_slice(&wrong[2000..]));
        if in_order {
            first.write_at(0, head).await.unwrap();
            first.write_at(2000, tail).await.unwrap();
        } else {
            first.write_at(2000, tail).await.unwrap();
            first.write_at(0, head).await.unwrap();
        }
        assert_eq!(kind(first.seal(&digest).await), Some(Kind::DigestMismatch));
        assert!(!first.is_sealed());
        assert_eq!(files(directory.path()), 0);
        assert_eq!(kind(first.write_at(0, bytes.clone()).await), Some(Kind::Invalid));
        // Another attempt begins anew, while the first is still held; discarding that one does not touch it.
        let second = partial(&staging, &digest).await;
        second.write_at(0, bytes.clone()).await.unwrap();
        first.discard().await.unwrap();
        second.seal(&digest).await.unwrap();
        second.discard().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_not_whole_is_not_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    let partial = partial(&*staging(directory.path()).await, &digest).await;
    partial.write_at(0, bytes.slice(..4499)).await.unwrap();
    assert_eq!(kind(partial.seal(&digest).await), Some(Kind::Invalid));
    assert_eq!(kind(partial.write_at(4499, Bytes::from_static(b"xx")).await), Some(Kind::Invalid));
    assert_eq!(kind(partial.write_at(u64::MAX, Bytes::from_static(b"x")).await), Some(Kind::Invalid));
    assert_eq!(kind(partial.read_at(4499, 1).await), Some(Kind::Invalid));
    partial.write_at(4499, bytes.slice(4499..)).await.unwrap();
    partial.seal(&digest).await.unwrap();
    assert!(partial.read_at(4500, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_name_need_not_be_that_of_the_algorithm_sealed_under() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, _) = sample();
    let long = Digest::of(Algorithm::Sha512, &bytes);
    let partial = partial(&*staging(directory.path()).await, &long).await;
    partial.write_at(0, bytes.clone()).await.unwrap();
    partial.seal(&Digest::sha256(&bytes)).await.unwrap();
}

#[tokio::test]
async fn a_map_that_cannot_be_right_is_ignored() {
    let (bytes, digest) = sample();
    for map in [
        "",
        "\0\0\0\0\0\0\0\0",
        "ferry-partial 1\nsize 4501\n0-4500\n",
        "ferry-partial 1\nsize 4500",
        "ferry-partial 1\nsize 4500\n0-4501\n",
    ] {
        let directory = tempfile::tempdir().unwrap();
        {
            let partial = partial(&*staging(directory.path()).await, &digest).await;
            partial.write_at(0, bytes.slice(..4000)).await.unwrap();
        }
        fs::write(file(directory.path(), &digest, "map"), map).unwrap();
        let partial = partial(&*staging(directory.path()).await, &digest).await;
        assert!(partial.extents().is_empty(), "{map:?}");
        partial.write_at(0, bytes.clone()).await.unwrap();
        partial.seal(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_shorter_than_its_map_and_a_garbled_one() {
    let (bytes, digest) = sample();
    let directory = tempfile::tempdir().unwrap();
    let part = file(directory.path(), &digest, "part");
    {
        let partial = partial(&*staging(directory.path()).await, &digest).await;
        partial.write_at(0, bytes.slice(..4000)).await.unwrap();
    }
    fs::File::options().write(true).open(&part).unwrap().set_len(3999).unwrap();
    {
        let partial = partial(&*staging(directory.path()).await, &digest).await;
        assert!(partial.extents().is_empty());
        partial.write_at(0, bytes.slice(..4000)).await.unwrap();
    }
    // What a power cut can do: the map is there, the bytes are not.
    fs::write(&part, vec![0; 4000]).unwrap();
    let partial = partial(&*staging(directory.path()).await, &digest).await;
    assert_eq!(partial.extents(), extents(&[(0, 4000)]));
    partial.write_at(4000, bytes.slice(4000..)).await.unwrap();
    assert_eq!(kind(partial.seal(&digest).await), Some(Kind::DigestMismatch));
}

#[tokio::test]
async fn one_filler_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    let (ours, theirs) = (staging(directory.path()).await, staging(directory.path()).await);
    let first = partial(&ours, &digest).await;
    let second = partial(&ours, &digest).await;
    first.write_at(0, bytes.slice(..100)).await.unwrap();
    assert_eq!(second.extents(), extents(&[(0, 100)]), "the same one within a process");
    assert!(ours.open(&digest, 4501).await.unwrap().is_none(), "of another size");
    assert!(theirs.open(&digest, 4500).await.unwrap().is_none(), "held elsewhere");
    drop(first);
    assert!(theirs.open(&digest, 4500).await.unwrap().is_none(), "still held");
    drop(second);
    assert_eq!(partial(&theirs, &digest).await.extents(), extents(&[(0, 100)]));
}

#[tokio::test]
async fn readers_are_woken() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    let filler = partial(&*staging(directory.path()).await, &digest).await;
    let reader = tokio::spawn({
        let (partial, bytes) = (filler.clone(), bytes.clone());
        async move {
            let mut seen = 0;
            while seen < 4500 {
                partial.changed(seen).await;
                let prefix = partial.extents().prefix();
                assert!(prefix > seen);
                let part = partial.read_at(seen, (prefix - seen) as usize).await.unwrap();
                assert_eq!(part, bytes.slice(seen as usize..prefix as usize));
                seen = prefix;
            }
            partial.changed(seen).await;
            assert!(partial.is_sealed());
        }
    });
    for start in (0..4500usize).step_by(50).collect::<Vec<_>>().chunks(3).flat_map(|three| three.iter().rev())
    {
        filler.write_at(*start as u64, bytes.slice(*start..*start + 50)).await.unwrap();
    }
    filler.seal(&digest).await.unwrap();
    reader.await.unwrap();
    let other = partial(&*staging(directory.path()).await, &Digest::sha256(b"x")).await;
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { other.changed(0).await }
    });
    tokio::task::yield_now().await;
    other.discard().await.unwrap();
    waiting.await.unwrap();
}

/// Whoever reads from the middle need not wait for what is in front.
#[tokio::test]
async fn readers_wait_for_their_own_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (bytes, digest) = sample();
    let filler = partial(&*staging(directory.path()).await, &digest).await;
    let wait = |offset| {
        let partial = filler.clone();
        tokio::spawn(async move { partial.changed(offset).await })
    };
    let (middle, front) = (wait(2000), wait(0));
    filler.write_at(2000, bytes.slice(2000..2100)).await.unwrap();
    middle.await.unwrap();
    assert!(!front.is_finished());
    filler.write_at(0, bytes.slice(..1)).await.unwrap();
    front.await.unwrap();
}

#[tokio::test]
async fn stale_partials_are_removed_unless_held() {
    let directory = tempfile::tempdir().unwrap();
    let digests = [Digest::sha256(b"old"), Digest::sha256(b"old and held"), Digest::sha256(b"young")];
    let ours = staging(directory.path()).await;
    let mut held = Vec::new();
    for digest in &digests {
        let partial = partial(&ours, digest).await;
        partial.write_at(0, Bytes::from(vec![1; 1000])).await.unwrap();
        if *digest == digests[1] {
            held.push(partial);
        }
    }
    let eight_days = SystemTime::now() - Duration::from_secs(8 * 24 * 60 * 60);
    for digest in &digests[..2] {
        let part = fs::File::options().write(true).open(file(directory.path(), digest, "part")).unwrap();
        part.set_modified(eight_days).unwrap();
    }
    fs::write(directory.path().join("sha256-short.part"), "not ours").unwrap();
    staging(directory.path()).await;
    let there: Vec<bool> =
        digests.iter().map(|digest| file(directory.path(), digest, "part").exists()).collect();
    assert_eq!(there, [false, true, true]);
    assert!(!file(directory.path(), &digests[0], "map").exists());
    assert!(directory.path().join("sha256-short.part").exists());
}

#[tokio::test]
async fn a_blob_without_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(b"");
    let partial = staging(directory.path()).await.open(&digest, 0).await.unwrap().unwrap();
    partial.write_at(0, Bytes::new()).await.unwrap();
    partial.seal(&digest).await.unwrap();
    assert!(partial.read_at(0, 1).await.unwrap().is_empty());
}
