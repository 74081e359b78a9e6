//! Blobs that arrive while they are read.

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{BlobBody, ByteRange, Kind};
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::fixtures::*;

const MIB: u64 = 1 << 20;
/// What the line brings at once.
const PIECE: u64 = 16 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_readers_fetch_a_blob_once() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(1, 4 << 20).await;
    let read_all = (0..100).map(|_| {
        let app = mirror.app();
        tokio::spawn(async move { read(&*app, &digest, ByteRange::ALL).await.unwrap() })
    });
    for read in join_all(read_all.collect::<Vec<_>>()).await {
        assert!(read.unwrap() == bytes);
    }
    let asked = mirror.upstream.take();
    assert_eq!((asked.blob, asked.stat, mirror.upstream.line.bytes()), (1, 0, bytes.len() as u64));
    mirror.settle().await;
    let warm = mirror.app().blob(&digest, ByteRange { start: 10, end: Some(20) }).await.unwrap();
    assert!(matches!(warm.body, BlobBody::File(_)), "from the disk");
    assert_eq!((warm.size, warm.into_bytes().await.unwrap()), (bytes.len() as u64, bytes.slice(10..20)));
    assert_eq!(mirror.app().stat(&digest).await.unwrap(), Some(bytes.len() as u64));
    let asked = mirror.upstream.take();
    assert_eq!((asked.blob, asked.stat), (0, 0), "nothing more");
    let figures = mirror.pull.figures();
    // Who came last may have found it in the cache.
    assert_eq!((figures.hits + figures.misses, figures.bytes_fetched), (102, bytes.len() as u64));
    assert!(figures.misses >= 1 && figures.hits >= 2, "{figures:?}");
    assert!(!mirror.stages(&digest).await, "moved, not copied");
}

/// The first byte does not wait for more of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_come_at_once() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(7, 1 << 20).await;
    mirror.upstream.line.open_to(1);
    let mut stream = mirror.app().blob(&digest, ByteRange::ALL).await.unwrap().into_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), bytes.slice(..PIECE as usize));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_as_they_arrive_and_the_last_ones_when_all_is_verified() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(2, 1 << 20).await;
    let size = bytes.len() as u64;
    mirror.upstream.line.open_to(0);
    let blob = mirror.app().blob(&digest, ByteRange::ALL).await.unwrap();
    assert_eq!((blob.size, blob.range.clone()), (size, 0..size), "before there is any byte");
    assert_eq!(mirror.app().stat(&digest).await.unwrap(), Some(size));
    let mut stream = blob.into_stream();
    let mut got = Vec::new();
    mirror.upstream.line.open_to(MIB / 2);
    while (got.len() as u64) < MIB / 4 {
        got.extend_from_slice(&stream.next().await.unwrap().unwrap());
    }
    // All but the last piece of the line has come, of which at most 64 KiB are not written yet.
    mirror.upstream.line.open_to((size - 1) / PIECE * PIECE);
    while (got.len() as u64) < size - 16 * 1024 - 64 * 1024 {
        got.extend_from_slice(&stream.next().await.unwrap().unwrap());
    }
    assert!(got.len() as u64 <= size - 16 * 1024);
    let flights = mirror.pull.figures().flights;
    assert_eq!((flights.len(), flights[0].readers, flights[0].size), (1, 1, Some(size)));
    mirror.upstream.line.open_to(u64::MAX);
    while let Some(more) = stream.next().await {
        got.extend_from_slice(&more.unwrap());
    }
    assert!(got == bytes);
    assert_eq!(mirror.upstream.take().stat, 0, "the flight knew the size");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_an_unfinished_blob() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(3, 1 << 20).await;
    let size = bytes.len() as u64;
    mirror.upstream.line.open_to(MIB / 2);
    let app = mirror.app();
    let range = |start, end| ByteRange { start, end };
    let front = read(&*app, &digest, range(1000, Some(200_000))).await.unwrap();
    assert!(front == bytes[1000..200_000], "though the rest is not there");
    let none = read(&*app, &digest, range(5, Some(5))).await.unwrap();
    assert!(none.is_empty());
    assert_eq!(kind(app.blob(&digest, range(size + 1, None)).await), Some(Kind::Invalid));
    let wanted = [
        (0, None),
        (size, None),
        (700_000, None),
        (size - 10, None),
        (size - 10, Some(size + 5)),
        (300_000, Some(900_000)),
    ];
    let readers = wanted.map(|(start, end)| {
        let app = mirror.app();
        tokio::spawn(async move { read(&*app, &digest, range(start, end)).await.unwrap() })
    });
    // Open-ended ranges that are closed early cost nothing.
    for start in [0, 100_000, 600_000] {
        drop(app.blob(&digest, ByteRange::from(start)).await.unwrap());
    }
    until(|| mirror.pull.figures().flights[0].readers == wanted.len()).await;
    mirror.upstream.line.open_to(u64::MAX);
    for ((start, end), read) in wanted.into_iter().zip(join_all(readers).await) {
        let end = end.unwrap_or(size).min(size);
        assert!(read.unwrap() == bytes[start as usize..end as usize], "{start}-{end}");
    }
    assert_eq!((mirror.upstream.take().blob, mirror.upstream.line.bytes()), (1, size));
}

/// Who asks for bytes far ahead does not wait for all that is in front of them, and nothing is fetched twice for it.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_far_ahead_come_first() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(8, 16 << 20).await;
    let size = bytes.len() as u64;
    mirror.upstream.line.open_to(MIB);
    let whole = mirror.app().blob(&digest, ByteRange::ALL).await.unwrap();
    until(|| mirror.pull.figures().flights[0].present > MIB / 2).await;
    let ahead = size - 3 * MIB;
    let mut stream = mirror.app().blob(&digest, ByteRange::from(ahead)).await.unwrap().into_stream();
    let reading = tokio::spawn(async move {
        let first = stream.next().await.unwrap().unwrap();
        (first, stream)
    });
    until(|| mirror.upstream.counting.counts().blob == 2).await;
    // Which of the two connections gets how much of what passes is open.
    let mut open = 2 * MIB;
    while !reading.is_finished() {
        open += MIB / 8;
        mirror.upstream.line.open_to(open);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let (first, stream) = reading.await.unwrap();
    assert!(first == bytes[ahead as usize..ahead as usize + first.len()]);
    assert!(mirror.upstream.line.bytes() < ahead, "not all that is in front is there");
    mirror.upstream.line.open_to(u64::MAX);
    let rest: usize = stream.map(|bytes| bytes.unwrap().len()).collect::<Vec<_>>().await.into_iter().sum();
    assert_eq!((first.len() + rest) as u64, 3 * MIB);
    assert!(whole.into_bytes().await.unwrap() == bytes);
    mirror.settle().await;
    assert!(mirror.holds(&digest).await);
    let fetched = mirror.upstream.line.bytes();
    assert!(fetched <= size + 2 * PIECE, "{fetched} of {size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_that_began_may_leave() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(4, 1 << 20).await;
    mirror.upstream.line.open_to(MIB / 4);
    let mut stream = mirror.app().blob(&digest, ByteRange::ALL).await.unwrap().into_stream();
    stream.next().await.unwrap().unwrap();
    let other = tokio::spawn({
        let app = mirror.app();
        async move { read(&*app, &digest, ByteRange::ALL).await }
    });
    drop(stream);
    // A request that goes away before it was answered, too.
    let app = mirror.app();
    let asking = tokio::spawn(async move { app.blob(&digest, ByteRange::ALL).await.map(drop) });
    asking.abort();
    mirror.upstream.line.open_to(u64::MAX);
    assert!(other.await.unwrap().unwrap() == bytes);
    mirror.settle().await;
    assert!(mirror.holds(&digest).await);
    assert_eq!((mirror.upstream.take().blob, mirror.upstream.line.bytes()), (1, bytes.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_need_wait_for_it_to_be_kept() {
    let mirror = Mirror::new().await;
    let (digest, _) = mirror.blob(5, 300_000).await;
    drop(mirror.app().blob(&digest, ByteRange::ALL).await.unwrap());
    mirror.settle().await;
    assert!(mirror.holds(&digest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_and_empty_blobs() {
    let mirror = Mirror::new().await;
    for size in [0, 1, 2, 16 * 1024, 16 * 1024 + 1] {
        let bytes = Bytes::from(vec![7; size]);
        let digest = mirror.upstream.push(APP, &bytes).await;
        for _ in 0..2 {
            assert_eq!(read(&*mirror.app(), &digest, ByteRange::ALL).await.unwrap(), bytes);
            mirror.settle().await;
        }
        assert_eq!(mirror.upstream.take().blob, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_blobs_are_remembered_for_a_time() {
    let mirror = Mirror::new().await;
    mirror.blob(6, 1000).await;
    let digest = Digest::sha256(b"absent");
    for _ in 0..3 {
        assert_eq!(kind(mirror.app().blob(&digest, ByteRange::ALL).await), Some(Kind::NotFound));
        assert_eq!(mirror.app().stat(&digest).await.unwrap(), None);
    }
    let asked = mirror.upstream.take();
    assert_eq!((asked.blob, asked.stat), (1, 0));
    mirror.time.pass(5);
    for _ in 0..3 {
        assert_eq!(mirror.app().stat(&digest).await.unwrap(), None);
        assert_eq!(kind(mirror.app().blob(&digest, ByteRange::ALL).await), Some(Kind::NotFound));
    }
    let asked = mirror.upstream.take();
    assert_eq!((asked.blob, asked.stat), (0, 1));
}
