//! Content in a bucket of an S3 server that nobody here wrote.

mod faults;
mod fixtures;
mod links;
mod owner;
mod settled;
mod upkeep;

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{BlobBody, ByteRange, Kind};

use crate::fixtures::*;
use crate::peers_s3::fixtures::*;
use crate::upkeep_fixtures::{Time, push_image};

/// The suites, with content on its way to the bucket while it is read.
mod contract {
    use ferry_store::contract::{Capabilities, Subject};

    use super::fixtures::S3;

    async fn subject() -> Subject {
        let s3 = S3::start().await;
        let store = s3.open().await;
        Subject { store, can: Capabilities::default(), guard: Box::new(s3) }
    }

    ferry_store::contract_tests!(subject);
}

/// The suites, with everything in the bucket before it is read.
mod settled_contract {
    use std::sync::Arc;

    use ferry_store::contract::{Capabilities, Subject};

    use super::fixtures::S3;
    use super::settled::Settled;

    async fn subject() -> Subject {
        let s3 = S3::start().await;
        let store = Arc::new(Settled(s3.open().await));
        Subject { store, can: Capabilities::default(), guard: Box::new(s3) }
    }

    ferry_store::contract_tests!(subject);
}

mod cache_contract {
    use ferry_store::contract::caches::CacheSubject;

    use super::fixtures::S3;

    async fn subject() -> CacheSubject {
        let s3 = S3::start().await;
        let cache = s3.open().await;
        let staging = cache.staging(None).await.unwrap();
        CacheSubject { cache, staging, guard: Box::new(s3) }
    }

    ferry_store::cache_tests!(subject);
}

/// What is in the bucket is not in files, is read in any range, and is found again.
#[tokio::test(flavor = "multi_thread")]
async fn content_goes_to_the_bucket() {
    let s3 = S3::start().await;
    let large = Bytes::from((0..20_000_000u32).map(|i| (i / 7) as u8).collect::<Vec<_>>());
    let (digest, root) = {
        let storage = s3.open().await;
        let repo = writer(&storage, "team/app");
        let root = push_image(&*repo, &[Bytes::from_static(b"{}"), large.clone()], Some("v1")).await;
        uploaded(&storage).await;
        storage.close().await;
        (Digest::sha256(&large), root.digest())
    };
    assert!(s3.files().is_empty(), "nothing is left here");
    let hex = digest.hex();
    assert!(s3.server.objects().unwrap().contains(&format!("p/q/blobs/sha256/{}/{hex}", &hex[..2])));
    let storage = s3.open().await;
    let repo = writer(&storage, "team/app");
    assert_eq!(repo.manifest(&by_tag("v1")).await.unwrap().digest(), root);
    assert_eq!(repo.stat(&digest).await.unwrap(), Some(20_000_000));
    for (start, end) in
        [(0, None), (19_999_999, None), (8_388_600, Some(8_388_700)), (20_000_000, None), (5, Some(5))]
    {
        let blob = repo.blob(&digest, ByteRange { start, end }).await.unwrap();
        assert!(matches!(blob.body, BlobBody::Stream(_)), "from the bucket");
        let expected = large.slice(start as usize..end.unwrap_or(20_000_000) as usize);
        assert!(blob.into_bytes().await.unwrap() == expected, "{start}-{end:?}");
    }
    assert_eq!(kind(repo.blob(&digest, ByteRange::from(20_000_001)).await), Some(Kind::Invalid));
}

/// Files that were there before there was a bucket go there, too; the way back is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_storage_moves_to_a_bucket_and_not_back() {
    let s3 = S3::start().await;
    let blob = Bytes::from_static(b"from before");
    let digest = {
        let storage = open(s3.directory()).await;
        push_blob(&*writer(&storage, "a"), &blob).await
    };
    {
        let storage = s3.open().await;
        uploaded(&storage).await;
        assert_eq!(read_blob(&*writer(&storage, "a"), &digest).await, blob);
        storage.close().await;
    }
    assert!(s3.files().is_empty());
    let error = ferry_storage::Storage::open(s3.directory()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.detail().contains("s3://images/p/q"), "{error}");
    let mut elsewhere = s3.options(&Time::new());
    elsewhere.bucket.as_mut().unwrap().prefix = "r".to_owned();
    let refused = ferry_storage::Storage::open_with(s3.directory(), elsewhere).await;
    assert_eq!(kind(refused), Some(Kind::Invalid));
}

/// What a process leaves that ends in the middle of an upload is gone on with by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_pending_is_found_again() {
    let s3 = S3::start().await;
    s3.link.cut(true);
    let blobs = ["one", "two", "three"].map(|text| crate::upkeep_fixtures::bytes(text, 100_000));
    {
        let storage = s3.open().await;
        for blob in &blobs {
            push_blob(&*writer(&storage, "a"), blob).await;
        }
        assert_eq!(storage.statistics().await.unwrap().pending, 3);
    }
    assert_eq!(s3.files().len(), 3);
    s3.link.cut(false);
    let storage = s3.open().await;
    uploaded(&storage).await;
    assert!(s3.files().is_empty());
    for blob in &blobs {
        assert_eq!(read_blob(&*writer(&storage, "a"), &Digest::sha256(blob)).await, blob);
    }
}
