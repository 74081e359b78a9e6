//! SIGKILL of a mirror at random points while clients pull through it.

use std::collections::BTreeSet;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_testkit::images::{NamedImage, image_set};
use ferry_testkit::link::{Link, LinkOptions};
use rand::Rng;
use tokio::task::JoinSet;

use crate::harness::{Ferry, Served, check, push};
use crate::kill::{IMAGES, OVERHEAD, content, dice, staged};
use crate::mirror_harness::{config, http, start};

const ROUNDS: usize = 50;

/// A kill may lose one piece of each connection, and the bytes that were under way.
const LOST: u64 = 8 * (1 << 20) + OVERHEAD;

/// Clients that pull everything, over and over. What they get whole is right; what breaks off says so.
fn clients(images: &[NamedImage], host: &str) -> JoinSet<()> {
    let (mut clients, http) = (JoinSet::new(), http());
    for named in images {
        for digest in named.image.blobs.keys() {
            let (url, digest) = (format!("http://{host}/v2/{}/blobs/{digest}", named.repository), *digest);
            let http = http.clone();
            clients.spawn(async move {
                loop {
                    if let Ok(response) = http.get(&url).send().await
                        && response.status().is_success()
                        && let Ok(body) = response.bytes().await
                    {
                        assert_eq!(Digest::sha256(&body), digest, "a whole answer is right");
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
    }
    clients
}

async fn end(mut clients: JoinSet<()>) {
    clients.abort_all();
    while let Some(ended) = clients.join_next().await {
        assert!(ended.is_err_and(|error| error.is_cancelled()), "a client was not content");
    }
}

/// Bytes of blobs that a killed mirror need not fetch any more: those that are content, and the pieces in staging.
fn kept(ferry: &Ferry, images: &[NamedImage]) -> u64 {
    let (mut bytes, mut there) = (0, BTreeSet::new());
    for named in images {
        for (digest, blob) in &named.image.blobs {
            if ferry.path(&format!("cache/blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex())).exists()
                && there.insert(*digest)
            {
                bytes += blob.len() as u64;
            }
        }
    }
    bytes + staged(&ferry.path("cache/staging"), &there)
}

async fn until_fetched(link: &Link, bytes: u64) {
    while link.stats().bytes_down < bytes {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Every kill happens while blobs come. The next process serves what is right and fetches nothing that was on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mirror_goes_on_and_fetches_nothing_twice() {
    let ferry = Ferry::new();
    let source = ferry.serve(&ferry.path("source"), 0).await;
    let images = image_set(&IMAGES);
    push(&images, &source.host()).await;
    let expected = check(&images, &source.host(), "").await;
    let total = content(&expected);
    let options = LinkOptions { total_rate: Some(60_000_000), ..LinkOptions::default() };
    let link = Link::start(source.address, options).await.unwrap();
    let config = config(link.host().as_str(), "");
    let (mut dice, mut round) = (dice(), 0);
    while round < ROUNDS {
        // So that there is something left to fetch in each round.
        let _ = std::fs::remove_dir_all(ferry.path("cache"));
        let mut before = 0;
        loop {
            let mirror = start(&ferry, "cache", &config).await;
            let clients = clients(&images, &mirror.host());
            link.reset_stats();
            let left = total.saturating_sub(before);
            if left < total / 10 || round == ROUNDS {
                end(clients).await;
                finish(&link, &images, mirror, left).await;
                break;
            }
            until_fetched(&link, dice.random_range(1..left * 9 / 10)).await;
            mirror.kill().await;
            end(clients).await;
            link.kill_connections();
            let fetched = link.stats().bytes_down;
            let now = kept(&ferry, &images);
            assert!(
                now + LOST >= before + fetched,
                "round {round}: {fetched} bytes came, and {now} are there after {before}"
            );
            (before, round) = (now, round + 1);
        }
    }
}

/// The last process: everything is right, and only what was missing came.
async fn finish(link: &Link, images: &[NamedImage], mirror: Served, left: u64) {
    check(images, &mirror.host(), "").await;
    let fetched = link.stats().bytes_down;
    assert!(fetched <= left + LOST, "{fetched} bytes fetched where {left} were missing");
    assert_eq!(mirror.stop().await, Some(0));
}
