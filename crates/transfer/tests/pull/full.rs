//! Disks without room.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{
    BodyFault, ByteRange, Error, Extents, Kind, Operation, Partial, Result, Scope, Staging, Store,
    UploadToken,
};
use ferry_transfer::{PullOptions, PullThrough};
use futures_util::future::join_all;

use crate::fixtures::*;

/// Staging on a disk that is full from the byte `room` of each blob on.
struct Small {
    inner: Arc<dyn Staging>,
    room: Option<u64>,
}

#[async_trait]
impl Staging for Small {
    async fn open(&self, digest: &Digest, size: u64) -> Result<Option<Arc<dyn Partial>>> {
        let Some(room) = self.room else { return Ok(None) };
        let inner = self.inner.open(digest, size).await?;
        Ok(inner.map(|inner| Arc::new(SmallPartial { inner, room }) as Arc<dyn Partial>))
    }

    async fn staged(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.staged(digest).await
    }
}

struct SmallPartial {
    inner: Arc<dyn Partial>,
    room: u64,
}

#[async_trait]
impl Partial for SmallPartial {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn extents(&self) -> Extents {
        self.inner.extents()
    }

    async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<()> {
        if offset + bytes.len() as u64 > self.room {
            return Err(Error::new(Kind::Full, "stage blob", "blob", "no space left on device"));
        }
        self.inner.write_at(offset, bytes).await
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.inner.read_at(offset, length).await
    }

    async fn changed(&self, offset: u64) {
        self.inner.changed(offset).await;
    }

    async fn seal(&self, digest: &Digest) -> Result<()> {
        self.inner.seal(digest).await
    }

    fn is_sealed(&self) -> bool {
        self.inner.is_sealed()
    }

    async fn keep_upload(&self, target: &str, token: Option<&UploadToken>) -> Result<()> {
        self.inner.keep_upload(target, token).await
    }

    async fn kept_upload(&self, target: &str) -> Result<Option<UploadToken>> {
        self.inner.kept_upload(target).await
    }

    async fn move_to(&self, to: &Path) -> Result<bool> {
        self.inner.move_to(to).await
    }

    async fn discard(&self) -> Result<()> {
        self.inner.discard().await
    }
}

async fn with_room(room: Option<u64>) -> Mirror {
    Mirror::with(|mut options| {
        options.staging = Arc::new(Small { inner: options.staging, room });
        options
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_staging_bytes_pass_through() {
    let mirror = with_room(None).await;
    let (digest, bytes) = mirror.blob(1, 1 << 20).await;
    for n in 1..3 {
        assert!(read(&*mirror.app(), &digest, ByteRange::ALL).await.unwrap() == bytes);
        assert_eq!(mirror.upstream.line.bytes(), n * bytes.len() as u64);
    }
    assert_eq!(mirror.upstream.take().blob, 2, "one for each client, and none to find that out");
    let part = read(&*mirror.app(), &digest, ByteRange { start: 5, end: Some(500_000) }).await.unwrap();
    assert!(part == bytes[5..500_000]);
    assert_eq!(kind(mirror.app().blob(&digest, ByteRange::from(9 << 20)).await), Some(Kind::Invalid));
    assert!(!mirror.holds(&digest).await && !mirror.stages(&digest).await);
    mirror.upstream.line.cut(300_000, 1);
    assert!(read(&*mirror.app(), &digest, ByteRange::ALL).await.unwrap() == bytes, "gone on with");
}

/// Staging that has a limit, not a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn blobs_beyond_the_limit_pass_through_and_others_are_kept() {
    let mirror = Mirror::new().await;
    let staging = mirror.storage.staging(Some(200_000)).await.unwrap();
    let options = options(&mirror.storage, mirror.upstream.counting.clone(), &mirror.time).await;
    let pull = PullThrough::new(PullOptions { staging, ..options });
    let app = pull.repository(&Scope::Hosted, &name(APP));
    for (seed, size, kept) in [(5, 300_000, false), (6, 100_000, true), (7, 100_000, true)] {
        let (digest, bytes) = mirror.blob(seed, size).await;
        assert!(read(&*app, &digest, ByteRange::ALL).await.unwrap() == bytes);
        settled(&pull).await;
        assert_eq!(mirror.holds(&digest).await, kept, "{size}");
        assert_eq!(mirror.upstream.take().blob, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_through_is_verified() {
    let mirror = with_room(None).await;
    for size in [10, 1 << 20] {
        let (digest, _) = mirror.blob(2, size).await;
        mirror.upstream.faulty.spoil(1, BodyFault::CorruptAt(5));
        assert_eq!(kind(read(&*mirror.app(), &digest, ByteRange::ALL).await), Some(Kind::DigestMismatch));
    }
    assert!(mirror.upstream.faulty.is_spent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_gets_full_is_no_error_for_readers() {
    let mirror = with_room(Some(600_000)).await;
    let (digest, bytes) = mirror.blob(3, 1 << 20).await;
    let size = bytes.len() as u64;
    mirror.upstream.line.open_to(100_000);
    let ranges =
        [(0, None), (0, None), (0, Some(size)), (250_000, None), (800_000, None), (10, Some(size - 1))];
    let begun = join_all(ranges.map(|(start, end)| {
        let app = mirror.app();
        async move { app.blob(&digest, ByteRange { start, end }).await.unwrap() }
    }))
    .await;
    mirror.upstream.line.open_to(u64::MAX);
    let read = join_all(begun.into_iter().map(|blob| tokio::spawn(blob.into_bytes()))).await;
    for ((start, end), read) in ranges.into_iter().zip(read) {
        let wanted = &bytes[start as usize..end.unwrap_or(size) as usize];
        assert!(read.unwrap().unwrap() == wanted, "from {start}");
    }
    assert!(!mirror.holds(&digest).await);
    mirror.settle().await;
    for _ in 0..500 {
        if !mirror.stages(&digest).await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the room is not given back");
}

/// Bytes that were staged and bytes that came past it are verified together.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_found_though_the_disk_got_full() {
    let mirror = with_room(Some(600_000)).await;
    let (digest, _) = mirror.blob(4, 1 << 20).await;
    mirror.upstream.faulty.spoil(1, BodyFault::CorruptAt(1000));
    assert_eq!(kind(read(&*mirror.app(), &digest, ByteRange::ALL).await), Some(Kind::DigestMismatch));
    assert!(mirror.upstream.faulty.is_spent());
}

/// A cache that can be read but not written answers all the same.
#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_cannot_be_kept_are_passed_on() {
    let mirror = Mirror::new().await;
    let image = mirror.image(10, "v1").await;
    let blobs = mirror.directory.path().join("blobs");
    std::fs::rename(&blobs, mirror.directory.path().join("away")).unwrap();
    std::fs::write(&blobs, "in the way").unwrap();
    let found = mirror.app().manifest(&by_tag("v1")).await.unwrap();
    assert_eq!(found.bytes(), image.root.bytes());
    let digest = image.root.digest();
    assert_eq!(mirror.app().resolve(&by_tag("v1")).await.unwrap().descriptor.digest, digest);
    mirror.upstream.fail(Operation::Manifest, Kind::Unavailable);
    assert_eq!(kind(mirror.app().resolve(&by_tag("v1")).await), Some(Kind::Unavailable), "nothing was kept");
}
