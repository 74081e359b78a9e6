//! Whole blobs and parts of them.

use ferry_oci::{Algorithm, Digest};

use super::Subject;
use super::fixtures::{
    Image, assert_is, assert_no_blob, begin, content, expect, kind, opened, push_blob, read, write,
};
use crate::{ByteRange, Expect, Kind, Mount};

async fn round_trip(subject: &Subject, name: &str, length: usize) {
    let bytes = content(name, length);
    let digest = push_blob(&*subject.writer(name), &bytes).await;
    let repo = subject.reader(name);
    assert_eq!(repo.stat(&digest).await.unwrap(), Some(length as u64));
    assert_eq!(read(&*repo, &digest, ByteRange::ALL).await, bytes);
}

/// A blob of no bytes at all is a blob.
pub async fn empty_blob(subject: Subject) {
    round_trip(&subject, "empty-blob", 0).await;
}

/// A blob of one byte: off-by-one errors of inclusive ranges show.
pub async fn one_byte_blob(subject: Subject) {
    round_trip(&subject, "one-byte-blob", 1).await;
}

/// A blob larger than the usual buffers, of an odd size.
pub async fn large_blob(subject: Subject) {
    round_trip(&subject, "large-blob", (5 << 20) + 3).await;
}

/// From the middle, a part, the whole, beyond the end cut to it, and nothing at the very end.
pub async fn blob_ranges(subject: Subject) {
    let bytes = content("ranges", 700_000);
    let digest = push_blob(&*subject.writer("ranges"), &bytes).await;
    let repo = subject.reader("ranges");
    let size = bytes.len() as u64;
    for (start, end) in [
        (0, None),
        (1, None),
        (size - 1, None),
        (size, None),
        (0, Some(1)),
        (0, Some(size)),
        (3, Some(4)),
        (1000, Some(600_001)),
        (699_000, Some(size + 5)),
    ] {
        let range = ByteRange { start, end };
        let expected = bytes.slice(start as usize..end.unwrap_or(size).min(size) as usize);
        assert!(read(&*repo, &digest, range).await == expected, "{range:?}");
    }
}

/// A range that begins beyond the end is an error, not an empty answer.
pub async fn blob_range_beyond_the_end(subject: Subject) {
    let bytes = content("beyond", 10);
    let digest = push_blob(&*subject.writer("beyond"), &bytes).await;
    let answer = subject.reader("beyond").blob(&digest, ByteRange::from(11)).await;
    assert_eq!(kind(answer), Some(Kind::Invalid));
}

/// A blob that was never pushed: `None` for its size, `NotFound` for its bytes, in a repository or none.
pub async fn absent_blob(subject: Subject) {
    push_blob(&*subject.writer("absent-blob"), &content("present", 10)).await;
    let absent = Digest::sha256(b"never pushed");
    assert_no_blob(&*subject.reader("absent-blob"), &absent).await;
    assert_no_blob(&*subject.reader("absent-blob/no-such-repository"), &absent).await;
}

/// Bytes that are not those of the digest never become a blob, under either name, and are gone.
pub async fn wrong_digest(subject: Subject) {
    let (bytes, claimed) = (content("wrong", 5000), Digest::sha256(b"something else"));
    let repo = subject.writer("wrong-digest");
    let promise = Expect { digest: Some(claimed), size: Some(5000), mount: Mount::No };
    let mut upload = opened(repo.begin(promise).await.unwrap());
    let token = upload.token();
    write(&mut *upload, &bytes).await;
    assert_eq!(kind(upload.commit(&claimed).await), Some(Kind::DigestMismatch));
    assert_no_blob(&*subject.reader("wrong-digest"), &claimed).await;
    assert_no_blob(&*subject.reader("wrong-digest"), &Digest::sha256(&bytes)).await;
    if let Some(token) = token {
        assert!(repo.resume(&token).await.unwrap().is_none(), "the upload is gone");
    }
}

/// A blob named by SHA-512.
pub async fn sha512_blob(subject: Subject) {
    let bytes = content("sha512", 3000);
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    let repo = subject.writer("sha512-blob");
    let promise = Expect { digest: Some(digest), ..expect(&bytes, Mount::No) };
    let begun = match repo.begin(promise).await {
        Ok(begun) => begun,
        Err(error) => {
            assert!(!subject.can.sha512 && !error.kind().is_transient(), "{error}");
            return;
        }
    };
    let mut upload = opened(begun);
    write(&mut *upload, &bytes).await;
    let committed = upload.commit(&digest).await;
    let reader = subject.reader("sha512-blob");
    if subject.can.sha512 {
        committed.unwrap();
        assert_eq!(reader.stat(&digest).await.unwrap(), Some(3000));
        assert_eq!(read(&*reader, &digest, ByteRange::ALL).await, bytes);
    } else {
        assert!(!committed.unwrap_err().kind().is_transient());
        assert_no_blob(&*reader, &digest).await;
    }
}

/// Whoever writes to a repository reads the same from it, and may hand it on for reading only.
pub async fn writer_reads(subject: Subject) {
    let repo = subject.writer("writer-reads");
    let image = Image::new("writer-reads");
    image.push(&*repo, Some("v1")).await;
    assert_is(&*repo, &image.reference(), &image.manifest).await;
    let digest = Digest::sha256(&image.blobs[1]);
    assert_eq!(read(&*repo, &digest, ByteRange::from(10)).await, image.blobs[1].slice(10..));
    let unfinished = content("unfinished", 10);
    let mut upload = begin(&*repo, &unfinished).await;
    write(&mut *upload, &unfinished).await;
    assert_no_blob(&*repo, &Digest::sha256(&unfinished)).await;
    upload.abort().await.unwrap();
    let reader = repo.reader();
    assert_is(&*reader, &image.reference(), &image.manifest).await;
    assert_eq!(reader.stat(&digest).await.unwrap(), Some(image.blobs[1].len() as u64));
}
