//! Upstreams that break, lie or are silent, and mirrors that are killed.

use std::fs::{DirEntry, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ferry_oci::{Digest, Reference};
use ferry_storage::Storage;
use ferry_store::{BodyFault, ByteRange, Kind, Operation, Scope, Store};
use ferry_transfer::PullThrough;
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::fixtures::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_twenty_times_is_no_error() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(1, 5 << 20).await;
    mirror.upstream.line.cut(200_000, 20);
    let readers = (0..5).map(|_| {
        let app = mirror.app();
        tokio::spawn(async move { read(&*app, &digest, ByteRange::ALL).await.unwrap() })
    });
    for read in join_all(readers.collect::<Vec<_>>()).await {
        assert!(read.unwrap() == bytes);
    }
    assert_eq!(mirror.upstream.line.cuts_left(), 0, "they happened");
    let again = mirror.upstream.line.bytes() - bytes.len() as u64;
    assert_eq!(again, 0, "nothing is fetched twice");
    assert_eq!(mirror.upstream.take().blob, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_nobodys_and_the_next_who_asks_gets_the_right_ones() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(2, 1 << 20).await;
    mirror.upstream.faulty.spoil(1, BodyFault::CorruptAt(500_000));
    mirror.upstream.line.open_to(100_000);
    let begun: Vec<_> = join_all((0..10).map(|n| {
        let app = mirror.app();
        async move { app.blob(&digest, ByteRange::from(n * 1000)).await.unwrap() }
    }))
    .await;
    mirror.upstream.line.open_to(u64::MAX);
    for blob in begun {
        let (size, start) = (blob.size, blob.range.start);
        let (mut stream, mut got) = (blob.into_stream(), 0);
        let error = loop {
            match stream.next().await.unwrap() {
                Ok(bytes) => got += bytes.len() as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::DigestMismatch, "{error}");
        assert!(start + got <= size - 16 * 1024, "the end was held back");
    }
    assert!(mirror.upstream.faulty.is_spent());
    mirror.settle().await;
    assert!(!mirror.holds(&digest).await && !mirror.stages(&digest).await, "nothing is kept");
    assert!(read(&*mirror.app(), &digest, ByteRange::ALL).await.unwrap() == bytes);
    mirror.settle().await;
    assert!(mirror.holds(&digest).await);
    assert_eq!(mirror.upstream.take().blob, 2);
}

/// What came before an upstream was given up is not fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_goes_on_from_what_is_staged() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(3, 1 << 20).await;
    mirror.upstream.faulty.spoil(1, BodyFault::TruncateAfter(400_000));
    for nth in 2..4 {
        mirror.upstream.faulty.fail(Operation::Blob, nth, Kind::Unavailable);
    }
    let failed = read(&*mirror.app(), &digest, ByteRange::ALL).await;
    assert_eq!(kind(failed), Some(Kind::Unavailable));
    assert!(mirror.upstream.faulty.is_spent());
    mirror.settle().await;
    assert!(!mirror.holds(&digest).await && mirror.stages(&digest).await);
    mirror.upstream.take();
    assert!(read(&*mirror.app(), &digest, ByteRange::ALL).await.unwrap() == bytes);
    assert_eq!(mirror.upstream.line.bytes(), bytes.len() as u64);
    let asked = mirror.upstream.take();
    assert_eq!((asked.stat, asked.blob), (1, 1), "whether it is still there, and the rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_and_not_remembered() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(4, 1000).await;
    let limited = Kind::RateLimited { after: None };
    for failure in [Kind::Unavailable, Kind::Stalled, limited, Kind::Unauthorized, Kind::Denied] {
        mirror.upstream.fail(Operation::Blob, failure);
        assert_eq!(kind(mirror.app().blob(&digest, ByteRange::ALL).await), Some(failure));
        mirror.upstream.fail(Operation::Stat, failure);
        assert_eq!(kind(mirror.app().stat(&digest).await), Some(failure));
        mirror.upstream.fail(Operation::Manifest, failure);
        assert_eq!(kind(mirror.app().manifest(&Reference::Digest(digest)).await), Some(failure));
    }
    assert_eq!(read(&*mirror.app(), &digest, ByteRange::ALL).await.unwrap(), bytes);
}

/// Opens the storage once nothing that was being written holds it or a partial blob any more, as after a kill.
async fn reopened(directory: &Path) -> Arc<Storage> {
    let storage = loop {
        match Storage::open(directory).await {
            Ok(storage) => break storage,
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let parts = || std::fs::read_dir(directory.join("staging")).into_iter().flatten();
    let is_free = |entry: std::io::Result<DirEntry>| {
        File::open(entry.unwrap().path()).map_or(true, |file| file.try_lock().is_ok())
    };
    until(|| parts().all(is_free)).await;
    storage
}

/// As after a kill: nothing of the first mirror is left but the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_fetches_only_what_is_missing() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(5, 2 << 20).await;
    mirror.upstream.line.open_to(1 << 20);
    let mut stream = mirror.app().blob(&digest, ByteRange::ALL).await.unwrap().into_stream();
    until(|| mirror.pull.figures().flights[0].present >= 900_000).await;
    mirror.pull.stop().await;
    let end = loop {
        match stream.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(end.kind(), Kind::Unavailable, "{end}");
    assert_eq!(kind(mirror.app().blob(&digest, ByteRange::ALL).await), Some(Kind::Unavailable), "stopped");
    let present = mirror.upstream.line.bytes();
    let Mirror { directory, storage, upstream, pull, time } = mirror;
    drop((stream, pull));
    drop(storage);
    upstream.take();
    upstream.line.open_to(u64::MAX);
    let storage = reopened(directory.path()).await;
    let pull = PullThrough::new(options(&storage, upstream.counting.clone(), &time).await);
    let app = pull.repository(&Scope::Hosted, &name(APP));
    assert!(read(&*app, &digest, ByteRange::ALL).await.unwrap() == bytes);
    let again = upstream.line.bytes() - bytes.len() as u64;
    assert!(again <= 300_000, "{again} of {present} bytes were not on the disk");
    let asked = upstream.take();
    assert_eq!((asked.stat, asked.blob), (1, 1));
    settled(&pull).await;
    assert!(read(&*app, &digest, ByteRange::ALL).await.unwrap() == bytes);
    assert_eq!(upstream.take().blob, 0);
}

/// Killed again and again, wherever it is: what is on the disk by then counts.
#[tokio::test(flavor = "multi_thread")]
async fn many_processes_together_fetch_a_blob_hardly_more_than_once() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(7, 3 << 20).await;
    let Mirror { directory, storage, upstream, pull, time } = mirror;
    drop((storage, pull));
    let mut ended = 0;
    for n in 1..=20 {
        upstream.line.open_to(n * 200_000);
        let storage = reopened(directory.path()).await;
        let pull = PullThrough::new(options(&storage, upstream.counting.clone(), &time).await);
        let app = pull.repository(&Scope::Hosted, &name(APP));
        let blob = app.blob(&digest, ByteRange::from(n * 1000)).await.unwrap();
        let reading = tokio::spawn(blob.into_bytes());
        let near = || upstream.line.bytes() >= n * 200_000 || pull.figures().flights.is_empty();
        until(near).await;
        pull.stop().await;
        if let Ok(read) = reading.await.unwrap() {
            assert!(read == bytes[n as usize * 1000..]);
            ended += 1;
        }
    }
    assert!((1..20).contains(&ended), "{ended}");
    let again = upstream.line.bytes() - bytes.len() as u64;
    assert!(again <= (20 - ended) * 300_000, "{again} bytes came in vain");
    let storage = reopened(directory.path()).await;
    let pull = PullThrough::new(options(&storage, upstream.counting.clone(), &time).await);
    let app = pull.repository(&Scope::Hosted, &name(APP));
    upstream.line.open_to(u64::MAX);
    assert!(read(&*app, &digest, ByteRange::ALL).await.unwrap() == bytes);
}

/// A blob that was whole but not yet kept when the process ended needs no bytes at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_blob_in_staging_is_kept_once_it_is_confirmed() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(6, 500_000).await;
    {
        use ferry_store::Staging;
        let staging = mirror.storage.staging(None).await.unwrap();
        let partial = staging.open(&digest, bytes.len() as u64).await.unwrap().unwrap();
        partial.write_at(0, bytes.clone()).await.unwrap();
    }
    let stranger = mirror.repository("team/other");
    assert_eq!(kind(stranger.blob(&digest, ByteRange::ALL).await), Some(Kind::NotFound), "of another one");
    assert!(read(&*mirror.app(), &digest, ByteRange::ALL).await.unwrap() == bytes);
    mirror.settle().await;
    assert!(mirror.holds(&digest).await);
    assert_eq!((mirror.upstream.take().blob, mirror.upstream.line.bytes()), (0, 0));
    let absent = Digest::sha256(b"absent");
    assert!(!mirror.holds(&absent).await);
}
