//! What a kill or a power cut can leave behind.

use std::fs;

use bytes::Bytes;
use ferry_oci::{Digest, Reference};
use ferry_storage::CollectOptions;
use ferry_store::{Begun, ByteRange, Expect, Kind, Mount, UploadToken};
use tokio_util::sync::CancellationToken;

use crate::fixtures::*;

#[tokio::test]
async fn an_upload_file_without_row_goes_and_strange_files_stay() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).await);
    let id = "0123456789abcdef0123456789abcdef";
    let uploads = directory.path().join("uploads");
    fs::write(uploads.join(id), "left").unwrap();
    fs::write(uploads.join("notes.txt"), "keep").unwrap();
    fs::create_dir(uploads.join("fedcba9876543210fedcba9876543210")).unwrap();
    fs::write(directory.path().join("README"), "keep").unwrap();
    let storage = open(directory.path()).await;
    assert!(writer(&storage, "a").resume(&UploadToken::new(id)).await.unwrap().is_none());
    assert!(!uploads.join(id).exists());
    assert!(uploads.join("notes.txt").exists() && directory.path().join("README").exists());
    assert!(uploads.join("fedcba9876543210fedcba9876543210").is_dir());
}

#[tokio::test]
async fn an_upload_row_without_file_goes() {
    let directory = tempfile::tempdir().unwrap();
    let token = {
        let storage = open(directory.path()).await;
        begin(&*writer(&storage, "a"), None).await.suspend().await.unwrap().unwrap()
    };
    let path = directory.path().join("uploads").join(token.expose());
    fs::remove_file(&path).unwrap();
    {
        let storage = open(directory.path()).await;
        assert!(writer(&storage, "a").resume(&token).await.unwrap().is_none());
    }
    // The row is gone with it: the file coming back does not revive the upload.
    fs::write(&path, "again").unwrap();
    let storage = open(directory.path()).await;
    assert!(writer(&storage, "a").resume(&token).await.unwrap().is_none());
    assert!(!path.exists());
}

/// As `find -type d -empty -delete` does it.
#[tokio::test]
async fn empty_directories_that_somebody_tidies_up_are_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let (repo, blob) = (writer(&storage, "a"), Bytes::from_static(b"content"));
    let digest = push_blob(&*repo, &blob).await;
    let file = content_file(directory.path(), &digest);
    fs::remove_file(&file).unwrap();
    fs::remove_dir(file.parent().unwrap()).unwrap();
    fs::remove_dir_all(directory.path().join("blobs/sha512")).unwrap();
    fs::remove_dir(directory.path().join("uploads")).unwrap();
    storage.expire_uploads().await.unwrap();
    storage.collect(&CollectOptions::default(), &CancellationToken::new()).await.unwrap();
    push_blob(&*repo, &blob).await;
    assert_eq!(read_blob(&*repo, &digest).await, blob);
    repo.put_manifest(&image(&[blob]), Some(&tag("v1"))).await.unwrap();
}

#[tokio::test]
async fn a_content_file_without_link_is_invisible_and_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = Bytes::from_static(b"in place, then killed");
    let digest = Digest::sha256(&bytes);
    let path = content_file(directory.path(), &digest);
    for leftover in [&bytes[..], b"cut"] {
        let storage = open(directory.path()).await;
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, leftover).unwrap();
        let repo = writer(&storage, "a");
        assert_eq!(repo.stat(&digest).await.unwrap(), None);
        assert_eq!(kind(repo.blob(&digest, ByteRange::ALL).await), Some(Kind::NotFound));
        push_blob(&*repo, &bytes).await;
        assert_eq!(read_blob(&*repo, &digest).await, bytes);
        repo.delete_blob(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_blob_is_not_held_until_it_is_pushed_again() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let blobs = [Bytes::from_static(b"{}"), Bytes::from(vec![1; 5000])];
    let digests = [push_blob(&*repo, &blobs[0]).await, push_blob(&*repo, &blobs[1]).await];
    let image = image(&blobs);
    repo.put_manifest(&image, Some(&tag("v1"))).await.unwrap();
    let path = content_file(directory.path(), &digests[1]);
    let damage: [fn(&std::path::Path); 2] = [
        |path| fs::File::options().write(true).open(path).unwrap().set_len(4999).unwrap(),
        |path| fs::remove_file(path).unwrap(),
    ];
    for damage in damage {
        damage(&path);
        assert_eq!(repo.stat(&digests[1]).await.unwrap(), None);
        assert_eq!(kind(repo.blob(&digests[1], ByteRange::ALL).await), Some(Kind::NotFound));
        let error = repo.put_manifest(&image, Some(&tag("v2"))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Incomplete);
        assert!(error.detail().contains(&digests[1].to_string()), "names what is missing: {error}");
        assert_eq!(kind(repo.resolve(&by_tag("v2")).await), Some(Kind::NotFound));
        for mount in [Mount::Anywhere, Mount::From(vec!["a".parse().unwrap()])] {
            let begun = writer(&storage, "b").begin(Expect { mount, ..no_mount(Some(digests[1])) }).await;
            assert!(matches!(begun.unwrap(), Begun::Upload(_)), "nothing to mount");
        }
        push_blob(&*repo, &blobs[1]).await;
        assert_eq!(read_blob(&*repo, &digests[1]).await, blobs[1]);
        repo.put_manifest(&image, None).await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_manifest_is_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "a");
    let blobs = [Bytes::from_static(b"{}")];
    push_blob(&*repo, &blobs[0]).await;
    let image = image(&blobs);
    repo.put_manifest(&image, Some(&tag("v1"))).await.unwrap();
    let path = content_file(directory.path(), &image.digest());

    let other = String::from_utf8(image.bytes().to_vec())
        .unwrap()
        .replace("\"schemaVersion\":2", "\"schemaVersion\":3");
    assert_eq!(other.len(), image.bytes().len());
    fs::write(&path, other).unwrap();
    assert_eq!(kind(repo.manifest(&by_tag("v1")).await), Some(Kind::DigestMismatch));

    fs::write(&path, &image.bytes()[1..]).unwrap();
    for reference in [by_tag("v1"), Reference::Digest(image.digest())] {
        assert_eq!(kind(repo.manifest(&reference).await), Some(Kind::NotFound));
        assert_eq!(kind(repo.resolve(&reference).await), Some(Kind::NotFound));
    }
    repo.put_manifest(&image, None).await.unwrap();
    assert_eq!(repo.manifest(&by_tag("v1")).await.unwrap().bytes(), image.bytes());
}
