//! A storage with a great many blobs. In a test program of its own, because it counts what the process reads.

#![expect(clippy::unwrap_used, reason = "here a panic is a failed test")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use ferry_oci::Digest;
use ferry_storage::{CollectOptions, Storage};
use ferry_store::{Scope, Store};
use sqlx::{Connection, SqliteConnection};
use tokio_util::sync::CancellationToken;

/// What a start and a look at the sums may read, in bytes: some pages, however many rows there are.
const FEW: u64 = 1 << 20;

fn rows() -> u64 {
    std::env::var("FERRY_TEST_ROWS").ok().map_or(200_000, |text| text.parse().unwrap())
}

/// Bytes that this process has read by system calls so far.
fn bytes_read() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

async fn measured<T>(what: &str, work: impl Future<Output = T>) -> (T, u64) {
    let (before, began) = (bytes_read(), Instant::now());
    let done = work.await;
    let read = bytes_read() - before;
    println!("{what}: {} ms, {read} bytes read", began.elapsed().as_millis());
    (done, read)
}

/// Fills the catalog with images of ten layers each, one in twenty of which is shared by all.
async fn fill(directory: &Path, rows: u64) {
    let path = format!("sqlite://{}", directory.join("catalog.sqlite").display());
    let mut catalog = SqliteConnection::connect(&path).await.unwrap();
    let sql = format!(
        "PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN;
         CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {rows})
             SELECT i, i / 10 AS image, '[\"hosted\"]' AS scope, printf('team/app-%05d', i / 1000) AS name,
                    'sha256:' || substr(printf('%016x', i * 7046029254386353131), 1, 16) || printf('%048x', i) AS digest
             FROM n;
         INSERT INTO repositories SELECT DISTINCT scope, name FROM n;
         INSERT INTO links SELECT scope, name, digest, 1000 + i FROM n ORDER BY name, digest;
         CREATE TEMP TABLE m AS SELECT scope, name, image, 'sha256:1' || substr(digest, 9) AS digest FROM n
             WHERE i % 10 = 0;
         INSERT INTO manifests (scope, name, digest, media_type, size)
             SELECT scope, name, digest, 'application/vnd.oci.image.manifest.v1+json', 1234 FROM m;
         INSERT INTO tags (scope, name, tag, digest) SELECT scope, name, 'v' || image, digest FROM m;
         INSERT INTO edges SELECT m.digest, n.digest FROM m JOIN n ON n.i / 10 = m.image
             WHERE n.i % 10 < 10;
         UPDATE contents SET used = 1700000000 + size, placed = 1700000000, listed = 1;
         COMMIT; DROP TABLE n; DROP TABLE m; PRAGMA wal_checkpoint(TRUNCATE);"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut catalog).await.unwrap();
    catalog.close().await.unwrap();
}

#[tokio::test]
async fn a_start_reads_no_more_than_with_an_empty_one() {
    let (directory, rows) = (tempfile::tempdir().unwrap(), rows());
    drop(Storage::open(directory.path()).await.unwrap());
    let began = Instant::now();
    fill(directory.path(), rows).await;
    let size = fs::metadata(directory.path().join("catalog.sqlite")).unwrap().len();
    println!("{rows} links, a catalog of {size} bytes, filled in {} ms", began.elapsed().as_millis());
    assert!(size > 50 * FEW, "large enough to tell the difference");

    let (storage, read) = measured("open", Storage::open(directory.path())).await;
    let storage = storage.unwrap();
    assert!(read < FEW, "a start read {read} bytes");
    let (counted, read) = measured("statistics", storage.statistics()).await;
    assert!(read < FEW, "statistics read {read} bytes");
    let counted = counted.unwrap();
    assert_eq!((counted.links, counted.manifests, counted.tags), (rows, rows / 10, rows / 10));
    assert_eq!(counted.blobs, rows + rows / 10);
    let never = CancellationToken::new();
    let (evicted, read) = measured("evict within the limit", storage.evict_to(u64::MAX, &never)).await;
    assert!(read < FEW && evicted.unwrap().manifests == 0, "an eviction without need read {read} bytes");
    let repo = storage.repository(&Scope::Hosted, &"team/app-00000".parse().unwrap());
    let (found, read) = measured("stat", repo.stat(&Digest::sha256(b"unknown"))).await;
    assert!(read < FEW && found.unwrap().is_none());

    let options = CollectOptions { orphans: false, ..CollectOptions::default() };
    let collecting = storage.collect(&options, &never);
    let (collected, _) = measured("collect, with nothing to remove", collecting).await;
    let collected = collected.unwrap();
    assert_eq!((collected.links, collected.blobs), (0, 0), "{collected:?}");
}
