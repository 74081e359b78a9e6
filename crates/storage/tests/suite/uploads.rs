//! Uploads: what they refuse and what they leave behind.

use std::fs;
use std::os::unix::fs::symlink;

use bytes::Bytes;
use ferry_oci::{Algorithm, Digest};
use ferry_store::{Kind, UploadToken};

use crate::fixtures::*;

#[tokio::test]
async fn texts_that_are_no_token() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let token = begin(&*repo, None).await.suspend().await.unwrap().unwrap();
    let good = token.expose();
    assert!(good.len() == 32 && good.bytes().all(|b| b.is_ascii_hexdigit()));
    for bad in [
        String::new(),
        "f".repeat(32),
        good[1..].to_owned(),
        format!("{good}0"),
        format!(" {good}"),
        format!("../uploads/{good}"),
        format!("{}/", &good[1..]),
        format!("{}\0", &good[1..]),
        format!("{}%", &good[1..]),
        "é".repeat(16),
        "' OR 1=1 --".to_owned(),
        "x".repeat(1 << 20),
    ] {
        assert!(repo.resume(&UploadToken::new(bad.clone())).await.unwrap().is_none(), "{:.40}", bad);
    }
    assert!(repo.resume(&token).await.unwrap().is_some());
}

#[tokio::test]
async fn a_wrong_digest_ends_the_upload() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let wrong = Digest::sha256(b"other");
    let mut upload = begin(&*repo, Some(wrong)).await;
    upload.write(Bytes::from_static(b"bytes")).await.unwrap();
    let token = upload.token().unwrap();
    let error = upload.commit(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DigestMismatch);
    assert!(error.detail().contains(&Digest::sha256(b"bytes").to_string()), "{error}");
    assert!(!error.to_string().contains(token.expose()), "a token is not printed");
    assert!(repo.resume(&token).await.unwrap().is_none());
    assert_eq!(repo.stat(&wrong).await.unwrap(), None);
    assert!(upload_files(directory.path()).is_empty());
    assert!(!content_file(directory.path(), &wrong).exists());
}

#[tokio::test]
async fn another_algorithm_than_expected() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let bytes = Bytes::from(vec![9; 300_000]);
    let long = Digest::of(Algorithm::Sha512, &bytes);
    for (expected, committed) in [(None, long), (Some(long), Digest::sha256(&bytes))] {
        let mut upload = begin(&*repo, expected).await;
        upload.write(bytes.clone()).await.unwrap();
        upload.commit(&committed).await.unwrap();
        assert_eq!(read_blob(&*repo, &committed).await, bytes);
    }
}

#[tokio::test]
async fn small_writes_and_a_drop_keep_every_byte() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let bytes: Bytes = (0..200_000u32).map(|i| (i * 7) as u8).collect();
    let mut upload = begin(&*repo, None).await;
    for chunk in bytes[..150_000].chunks(1009) {
        upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    let token = upload.token().unwrap();
    drop(upload);
    let mut upload = repo.resume(&token).await.unwrap().unwrap();
    assert_eq!(upload.durable_offset().await.unwrap(), 150_000);
    upload.write(bytes.slice(150_000..)).await.unwrap();
    let digest = Digest::sha256(&bytes);
    upload.commit(&digest).await.unwrap();
    assert_eq!(read_blob(&*repo, &digest).await, bytes);
}

#[tokio::test]
async fn whoever_waits_for_an_upload_gets_it_when_it_is_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let mut upload = begin(&*repo, None).await;
    upload.write(Bytes::from_static(b"first")).await.unwrap();
    let token = upload.token().unwrap();
    let waiting = tokio::spawn({
        let (repo, token) = (repo.clone(), token.clone());
        async move { repo.resume(&token).await.unwrap().unwrap().durable_offset().await.unwrap() }
    });
    tokio::task::yield_now().await;
    upload.suspend().await.unwrap();
    assert_eq!(waiting.await.unwrap(), 5);
    let held = repo.resume(&token).await.unwrap().unwrap();
    assert_eq!(kind(repo.resume(&token).await), Some(Kind::Unavailable), "still held");
    held.abort().await.unwrap();
    assert!(repo.resume(&token).await.unwrap().is_none());
}

/// A client that goes away in the middle of a write must not leave the upload to two writers.
#[tokio::test]
async fn a_cancelled_write_keeps_the_upload_whole() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let bytes = Bytes::from((0..8_000_000u32).map(|i| (i / 5) as u8).collect::<Vec<_>>());
    let mut upload = begin(&*repo, None).await;
    let token = upload.token().unwrap();
    // Polled once: the work has begun on another thread when the future is dropped.
    assert!(futures_util::FutureExt::now_or_never(upload.write(bytes.clone())).is_none());
    let interrupted = upload.write(Bytes::from_static(b"x")).await;
    assert_eq!(kind(interrupted), Some(Kind::Unavailable), "this handle does not know where it is");
    drop(upload);
    let mut upload = repo.resume(&token).await.unwrap().unwrap();
    let kept = upload.durable_offset().await.unwrap() as usize;
    assert_eq!(kept, bytes.len(), "the write was finished before anyone else got hold of the upload");
    upload.commit(&Digest::sha256(&bytes)).await.unwrap();
}

/// A file that takes no bytes stands for a full disk.
#[tokio::test]
async fn a_full_disk_leaves_the_upload_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let bytes = Bytes::from(vec![5; 200_000]);
    let digest = Digest::sha256(&bytes);
    let token = begin(&*repo, None).await.suspend().await.unwrap().unwrap();
    let path = directory.path().join("uploads").join(token.expose());

    fs::remove_file(&path).unwrap();
    symlink("/dev/full", &path).unwrap();
    let mut upload = repo.resume(&token).await.unwrap().unwrap();
    assert_eq!(kind(upload.write(bytes.clone()).await), Some(Kind::Full));
    assert_eq!(upload.durable_offset().await.unwrap(), 0);
    upload.write(bytes.slice(..10)).await.unwrap();
    assert_eq!(kind(upload.suspend().await), Some(Kind::Full), "found no later than when it must be durable");
    assert_eq!(repo.stat(&digest).await.unwrap(), None);

    fs::remove_file(&path).unwrap();
    fs::write(&path, "").unwrap();
    let mut upload = repo.resume(&token).await.unwrap().unwrap();
    assert_eq!(upload.durable_offset().await.unwrap(), 0);
    upload.write(bytes.clone()).await.unwrap();
    upload.commit(&digest).await.unwrap();
    assert_eq!(read_blob(&*repo, &digest).await, bytes);
}
