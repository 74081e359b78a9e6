//! SIGKILL of a mirror at random points while clients pull through it.

use std::collections::BTreeSet;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_testkit::images::{NamedImage, SetSpec, image_set};
use ferry_testkit::link::{Link, LinkOptions};
use rand::Rng;
use tokio::task::JoinSet;

use crate::harness::{Ferry, check, push};
use crate::kill::{OVERHEAD, content, dice, staged};
use crate::mirror_harness::{config, http, start};

const KILLS: usize = 50;

/// Blobs that take a while, and are fetched over several connections.
const IMAGES: SetSpec = SetSpec { images: 2, seed: 7, base_size: 3 << 20, own_size: 200_000 };

/// What may be fetched again: one piece that was not written yet, and the heads of answers.
const AGAIN: u64 = (1 << 20) + OVERHEAD;

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
                    tokio::time::sleep(Duration::from_millis(50)).await;
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

/// A mirror that is killed again and again, what it asks, and what it is to bring.
struct Scene {
    ferry: Ferry,
    link: Link,
    images: Vec<NamedImage>,
    config: String,
    total: u64,
}

impl Scene {
    /// Pulls until so many bytes came, and kills the mirror; how much is on the disk then.
    async fn kill_after(&self, bytes: u64) -> u64 {
        let mirror = start(&self.ferry, "cache", &self.config).await;
        self.link.reset_stats();
        let clients = clients(&self.images, &mirror.host());
        until_fetched(&self.link, bytes).await;
        mirror.kill().await;
        end(clients).await;
        self.link.kill_connections();
        kept(&self.ferry, &self.images)
    }

    /// Lets the next one finish: everything is right, and only what was missing comes.
    async fn finish(&self, kept: u64) {
        let mirror = start(&self.ferry, "cache", &self.config).await;
        self.link.reset_stats();
        check(&self.images, &mirror.host(), "").await;
        let (fetched, missing) = (self.link.stats().bytes_down, self.total - kept);
        assert!(fetched <= missing + AGAIN, "{fetched} bytes fetched where {missing} were missing");
        assert_eq!(mirror.stop().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mirror_goes_on_and_fetches_nothing_twice() {
    let ferry = Ferry::new();
    let source = ferry.serve(&ferry.path("source"), 0).await;
    let images = image_set(&IMAGES);
    push(&images, &source.host()).await;
    let total = content(&check(&images, &source.host(), "").await);
    let options = LinkOptions { total_rate: Some(20_000_000), ..LinkOptions::default() };
    let link = Link::start(source.address, options).await.unwrap();
    let config = config(link.host().as_str(), "");
    let scene = Scene { ferry, link, images, config, total };
    let (mut dice, mut kills) = (dice(), 0);
    while kills < KILLS {
        let mut kept = 0;
        for _ in 0..dice.random_range(1..=4) {
            let left = total - kept;
            if left < total / 8 {
                break;
            }
            let now = scene.kill_after(dice.random_range(1..left * 9 / 10)).await;
            assert!(now >= kept, "after {kills} kills: {now} bytes are there of {kept}");
            (kept, kills) = (now, kills + 1);
        }
        scene.finish(kept).await;
        std::fs::remove_dir_all(scene.ferry.path("cache")).unwrap();
    }
}
