//! Ten thousand random operations, while everything that removes content runs beside them, against a model of what must
//! be readable.
//!
//! Four clients push, mount, tag, delete and pull, each in repositories of its own that share their blobs; one
//! repository of each is hosted, one an upstream's. The seed is printed; `FERRY_TEST_SEED` chooses another one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "here a panic is a failed test")]

mod client;
#[expect(dead_code, reason = "the other test program uses the rest")]
#[path = "../suite/fixtures.rs"]
mod fixtures;
mod model;
#[expect(dead_code, reason = "the other test program uses the rest")]
#[path = "../suite/upkeep_fixtures.rs"]
mod upkeep_fixtures;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_storage::{CheckOptions, CollectOptions, Depth, Finding, Storage, StorageOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::{Connection, Row};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use client::Client;
use model::{GRACE, IN_USE, UNTAGGED};
use upkeep_fixtures::*;

const OPERATIONS: usize = 10_000;
const CLIENTS: usize = 4;

fn seed() -> u64 {
    let seed = std::env::var("FERRY_TEST_SEED").ok().map(|text| text.parse().unwrap());
    let seed = seed.unwrap_or_else(rand::random);
    println!("FERRY_TEST_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_and_nothing_is_left() {
    let (directory, time, seed) = (tempfile::tempdir().unwrap(), Time::new(), seed());
    let options = StorageOptions {
        grace: Duration::from_secs(GRACE),
        in_use: Duration::from_secs(IN_USE),
        use_resolution: Duration::from_secs(IN_USE.max(GRACE)),
        upload_expiry: Duration::from_secs(2_000),
        ..time.options()
    };
    let storage = Storage::open_with(directory.path(), options).await.unwrap();
    let stop = CancellationToken::new();
    let removing = removers(&storage, &stop, seed);
    let mut working = JoinSet::new();
    for n in 0..CLIENTS {
        let mut client = Client::new(&storage, &time, n, seed);
        working.spawn(async move {
            for _ in 0..OPERATIONS / CLIENTS {
                client.step().await;
            }
            client
        });
    }
    let clients = working.join_all().await;
    stop.cancel();
    let removed = removing.join_all().await.into_iter().sum::<u64>();
    assert!(removed > 100, "the removers had something to do: {removed}");

    assert_nothing_is_wrong(&storage, false).await;
    let mut expected = BTreeSet::new();
    for client in &clients {
        expected.extend(client.assert_all().await);
    }
    drop(clients);
    assert_nothing_is_left(&storage, directory.path(), &time, &expected).await;
}

/// Tasks that remove whatever may go, over and over, and are dropped on the way now and then; each returns how much that
/// was.
fn removers(storage: &Arc<Storage>, stop: &CancellationToken, seed: u64) -> JoinSet<u64> {
    let mut removing = JoinSet::new();
    for n in 0..4 {
        let (storage, stop) = (storage.clone(), stop.clone());
        let mut random = StdRng::seed_from_u64(seed ^ ((n + 1) << 32));
        removing.spawn(async move {
            let mut sum = 0;
            while !stop.is_cancelled() {
                let patience = if random.random_bool(0.2) { random.random_range(0..10) } else { 10_000 };
                let work = remove(&storage, n, &mut random);
                sum += tokio::time::timeout(Duration::from_millis(patience), work).await.unwrap_or(0);
                // A check reads everything.
                let rest = if n == 3 { 400 } else { 20 };
                tokio::time::sleep(Duration::from_millis(random.random_range(0..rest))).await;
            }
            sum
        });
    }
    removing
}

async fn remove(storage: &Storage, n: u64, random: &mut StdRng) -> u64 {
    match n {
        0 => {
            let untagged_older_than = random.random_bool(0.5).then_some(Duration::from_secs(UNTAGGED));
            let orphans = random.random_bool(0.3);
            let options = CollectOptions { grace: None, untagged_older_than, orphans };
            storage.collect(&options, &never()).await.unwrap().blobs
        }
        1 => {
            let all = storage.statistics().await.unwrap().bytes;
            let limit = random.random_range(all / 3..=all);
            storage.evict_to(limit, &never()).await.unwrap().manifests
        }
        2 => storage.expire_uploads().await.unwrap().uploads,
        _ => {
            assert_nothing_is_wrong(storage, true).await;
            0
        }
    }
}

/// A check that repairs would lose something if it were wrong.
async fn assert_nothing_is_wrong(storage: &Storage, repair: bool) -> ferry_storage::Checked {
    let mut findings: Vec<Finding> = Vec::new();
    let options = CheckOptions { depth: Depth::Digests, repair };
    let observe = &mut |event: ferry_storage::CheckEvent<'_>| {
        if let ferry_storage::CheckEvent::Found(finding) = event {
            findings.push(finding.clone());
        }
    };
    let checked = storage.check(options, &never(), observe).await.unwrap();
    assert_eq!(findings, []);
    checked
}

/// After a last collection without grace the files are those that manifests name, and the sums are right.
async fn assert_nothing_is_left(
    storage: &Storage,
    directory: &Path,
    time: &Time,
    expected: &BTreeSet<Digest>,
) {
    time.pass(1_000_000);
    storage.expire_uploads().await.unwrap();
    assert!(fixtures::upload_files(directory).is_empty());
    let at_once = CollectOptions { grace: Some(Duration::ZERO), ..CollectOptions::default() };
    storage.collect(&at_once, &never()).await.unwrap();
    assert_eq!(&content_files(directory), expected);
    let checked = assert_nothing_is_wrong(storage, false).await;
    assert_eq!((checked.contents, checked.orphans), (expected.len() as u64, 0));
    let bytes: u64 = expected
        .iter()
        .map(|digest| std::fs::metadata(fixtures::content_file(directory, digest)).unwrap().len())
        .sum();
    let counted = storage.statistics().await.unwrap();
    assert_eq!((counted.blobs, counted.bytes, counted.bytes_unneeded), (expected.len() as u64, bytes, 0));
    assert_sums(directory).await;
}

/// What the catalog counts as it changes is what is there.
async fn assert_sums(directory: &Path) {
    let path = format!("sqlite://{}?mode=ro", directory.join("catalog.sqlite").display());
    let mut catalog = sqlx::SqliteConnection::connect(&path).await.unwrap();
    let row = sqlx::query(
        "SELECT repositories = (SELECT COUNT(*) FROM repositories)
            AND tags = (SELECT COUNT(*) FROM tags)
            AND manifests = (SELECT COUNT(*) FROM manifests)
            AND links = (SELECT COUNT(*) FROM links)
            AND bytes_linked = (SELECT SUM(size) FROM links)
            AND contents = (SELECT COUNT(*) FROM contents)
            AND bytes = (SELECT SUM(size) FROM contents),
          (SELECT COUNT(*) FROM contents AS c
           WHERE c.links <> (SELECT COUNT(*) FROM links AS l WHERE l.digest = c.digest)
              OR c.manifests <> (SELECT COUNT(*) FROM manifests AS m WHERE m.digest = c.digest)
              OR (c.manifests > 0 AND c.listed = 0)),
          (SELECT COUNT(*) FROM edges WHERE manifest NOT IN (SELECT digest FROM contents))
         FROM totals",
    )
    .fetch_one(&mut catalog)
    .await
    .unwrap();
    assert_eq!((row.get::<bool, _>(0), row.get::<i64, _>(1), row.get::<i64, _>(2)), (true, 0, 0));
}
