//! Uploads: cut short, gone on with, given up, several at once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::Digest;

use super::Subject;
use super::fixtures::{assert_no_blob, begin, content, kind, opened, push_blob, read, repository, write};
use crate::{ByteRange, Expect, Kind, Mount, RepositoryMut, Scope, Upload, UploadToken};

/// A store may take a moment to notice that the writer before has gone.
async fn resume(repo: &dyn RepositoryMut, token: &UploadToken) -> Option<Box<dyn Upload>> {
    for _ in 0..200 {
        match repo.resume(token).await {
            Err(error) if error.kind() == Kind::Unavailable => {
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            other => return other.unwrap(),
        }
    }
    panic!("the upload is not let go of");
}

/// Sends what is missing of `bytes`, commits, and reads it all again.
async fn finish(subject: &Subject, name: &str, mut upload: Box<dyn Upload>, bytes: &Bytes) {
    let offset = upload.durable_offset().await.unwrap() as usize;
    write(&mut *upload, &bytes.slice(offset..)).await;
    let digest = Digest::sha256(bytes);
    upload.commit(&digest).await.unwrap();
    assert!(read(&*subject.reader(name), &digest, ByteRange::ALL).await == *bytes);
}

/// Neither digest nor size need be known before the last byte.
pub async fn digest_known_only_at_commit(subject: Subject) {
    let bytes = content("late", 400_000);
    let repo = subject.writer("late-digest");
    let nothing = Expect { digest: None, size: None, mount: Mount::No };
    let mut upload = opened(repo.begin(nothing).await.unwrap());
    write(&mut *upload, &bytes).await;
    upload.commit(&Digest::sha256(&bytes)).await.unwrap();
    let reader = subject.reader("late-digest");
    assert!(read(&*reader, &Digest::sha256(&bytes), ByteRange::ALL).await == bytes);
}

/// A suspended upload has kept every byte, again and again, and goes on exactly there.
pub async fn suspended_upload(subject: Subject) {
    let bytes = content("suspended", 1_500_000);
    let repo = subject.writer("suspended");
    let mut upload = begin(&*repo, &bytes).await;
    for cut in [700_001, 700_002, 1_200_000] {
        let kept = upload.durable_offset().await.unwrap() as usize;
        write(&mut *upload, &bytes.slice(kept..cut)).await;
        let durable = upload.durable_offset().await.unwrap();
        assert!(durable <= cut as u64, "{durable} bytes are more than were written");
        let token = upload.suspend().await.unwrap();
        assert_eq!(token.is_some(), subject.can.resumes_uploads);
        assert_no_blob(&*subject.reader("suspended"), &Digest::sha256(&bytes)).await;
        let Some(token) = token else {
            let made_up = UploadToken::new("made-up");
            assert!(repo.resume(&made_up).await.unwrap().is_none());
            return;
        };
        upload = resume(&*repo, &token).await.unwrap();
        assert_eq!(upload.durable_offset().await.unwrap(), cut as u64);
    }
    finish(&subject, "suspended", upload, &bytes).await;
}

/// An upload that was dropped goes on where the store says, or is over.
pub async fn dropped_upload(subject: Subject) {
    let bytes = content("dropped", 900_000);
    let repo = subject.writer("dropped");
    let mut upload = begin(&*repo, &bytes).await;
    let token = upload.token();
    assert_eq!(token.is_some(), subject.can.resumes_uploads);
    write(&mut *upload, &bytes.slice(..600_000)).await;
    // What the store made durable counts even without a proper end.
    let durable = upload.durable_offset().await.unwrap();
    let token = upload.token().or(token);
    drop(upload);
    assert_no_blob(&*subject.reader("dropped"), &Digest::sha256(&bytes)).await;
    let Some(token) = token else { return };
    let mut upload = resume(&*repo, &token).await.unwrap();
    let kept = upload.durable_offset().await.unwrap();
    assert!(durable <= kept && kept <= 600_000, "{kept} of at least {durable}");
    finish(&subject, "dropped", upload, &bytes).await;
}

/// A token that the store never gave out names nothing.
pub async fn unknown_token(subject: Subject) {
    push_blob(&*subject.writer("unknown-token"), &content("unknown-token", 10)).await;
    for text in ["", "never-given-out", "../../etc/passwd", "00000000-0000-0000-0000-000000000000"] {
        let repo = subject.writer("unknown-token");
        assert!(repo.resume(&UploadToken::new(text)).await.unwrap().is_none(), "{text:?}");
    }
}

/// An upload belongs to its repository and scope; asking elsewhere for it does not disturb it.
pub async fn foreign_token(subject: Subject) {
    let bytes = content("foreign", 200_000);
    let mut upload = begin(&*subject.writer("foreign/a"), &bytes).await;
    write(&mut *upload, &bytes.slice(..100_000)).await;
    let token = upload.suspend().await.unwrap();
    assert_eq!(token.is_some(), subject.can.resumes_uploads);
    let Some(token) = token else { return };
    if subject.can.separate_repositories {
        assert!(subject.writer("foreign/b").resume(&token).await.unwrap().is_none());
    }
    if subject.can.scopes {
        let scope = Scope::Upstream { host: "upstream.example".to_owned(), account: None };
        if let Some(other) = subject.store.writable(&scope, &repository("foreign/a")) {
            assert!(other.resume(&token).await.unwrap().is_none());
        }
    }
    let upload = resume(&*subject.writer("foreign/a"), &token).await.unwrap();
    finish(&subject, "foreign/a", upload, &bytes).await;
}

/// After its commit there is nothing to resume.
pub async fn finished_upload(subject: Subject) {
    let bytes = content("finished", 1000);
    let repo = subject.writer("finished");
    let mut upload = begin(&*repo, &bytes).await;
    write(&mut *upload, &bytes).await;
    let token = upload.token();
    assert_eq!(token.is_some(), subject.can.resumes_uploads);
    upload.commit(&Digest::sha256(&bytes)).await.unwrap();
    if let Some(token) = token {
        assert!(repo.resume(&token).await.unwrap().is_none());
    }
}

/// An aborted upload leaves neither a blob nor an upload, and the blob can be pushed all the same.
pub async fn aborted_upload(subject: Subject) {
    let bytes = content("aborted", 1000);
    let repo = subject.writer("aborted");
    let mut upload = begin(&*repo, &bytes).await;
    write(&mut *upload, &bytes).await;
    let token = upload.token();
    upload.abort().await.unwrap();
    assert_no_blob(&*subject.reader("aborted"), &Digest::sha256(&bytes)).await;
    if let Some(token) = token {
        assert!(repo.resume(&token).await.unwrap().is_none());
    }
    let upload = begin(&*repo, &bytes).await;
    finish(&subject, "aborted", upload, &bytes).await;
}

/// Two clients that push the same blob at once both succeed.
pub async fn two_uploads_of_one_blob(subject: Subject) {
    let bytes = content("twice", 500_000);
    let digest = Digest::sha256(&bytes);
    let repo = subject.writer("twice");
    let mut first = begin(&*repo, &bytes).await;
    let mut second = begin(&*repo, &bytes).await;
    write(&mut *first, &bytes.slice(..250_000)).await;
    write(&mut *second, &bytes).await;
    second.commit(&digest).await.unwrap();
    write(&mut *first, &bytes.slice(250_000..)).await;
    first.commit(&digest).await.unwrap();
    assert!(read(&*subject.reader("twice"), &digest, ByteRange::ALL).await == bytes);
}

/// While an upload is being written nobody else gets hold of it: who asks waits or is told to come again.
pub async fn one_writer_per_upload(subject: Subject) {
    let bytes = content("one-writer", 20_000);
    let repo: Arc<dyn RepositoryMut> = subject.writer("one-writer");
    let mut upload = begin(&*repo, &bytes).await;
    write(&mut *upload, &bytes.slice(..10_000)).await;
    if let Some(token) = upload.token().filter(|_| subject.can.exclusive_uploads) {
        match tokio::time::timeout(Duration::from_millis(100), repo.resume(&token)).await {
            Err(_still_waiting) => {}
            Ok(answer) => assert_eq!(kind(answer), Some(Kind::Unavailable), "not a second writer"),
        }
    }
    write(&mut *upload, &bytes.slice(10_000..)).await;
    upload.commit(&Digest::sha256(&bytes)).await.unwrap();
    assert!(read(&*subject.reader("one-writer"), &Digest::sha256(&bytes), ByteRange::ALL).await == bytes);
}
