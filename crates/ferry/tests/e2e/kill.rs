//! SIGKILL at random points, of the copy and of the registry that it copies to.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_testkit::images::{Inventory, NamedImage, SetSpec, image_set};
use ferry_testkit::link::{Link, LinkOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::process::Child;

use crate::harness::{Ferry, Served, check, push, reader};

const ROUNDS: usize = 50;

/// Those of the registry.
const REGISTRY_ROUNDS: usize = 20;

/// Two images whose base layers are large enough to be staged, and fetched in parts.
pub const IMAGES: SetSpec = SetSpec { images: 2, seed: 7, base_size: 10 << 20, own_size: 200_000 };

/// What may be fetched again beside unfinished pieces: manifests and the heads of answers.
pub const OVERHEAD: u64 = 256 * 1024;

/// Random points that can be had again: the seed is printed and may be given.
pub fn dice() -> StdRng {
    let seed =
        std::env::var("FERRY_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("FERRY_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Waits until so many bytes have come.
pub async fn until_moved(link: &Link, bytes: u64, copy: &mut Child) {
    while link.stats().bytes_down < bytes {
        assert!(copy.try_wait().unwrap().is_none(), "the copy ended before the kill");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Bytes of blobs that need not be fetched any more: those at the target, and the pieces in staging.
pub async fn finished(images: &[NamedImage], target: &Served, prefix: &str, staging: &Path) -> u64 {
    let mut at_target: BTreeSet<Digest> = BTreeSet::new();
    let mut bytes = 0;
    for named in images {
        let repository = reader(&target.host(), &format!("{prefix}{}", named.repository));
        for digest in named.image.blobs.keys() {
            if let Some(size) = repository.stat(digest).await.unwrap()
                && at_target.insert(*digest)
            {
                bytes += size;
            }
        }
    }
    bytes + staged(staging, &at_target)
}

/// Bytes of the pieces in staging, without those of blobs that are `there` already.
pub fn staged(staging: &Path, there: &BTreeSet<Digest>) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(staging).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "map") && !is_one_of(&path, there) {
            bytes += staged_bytes(&std::fs::read_to_string(&path).unwrap());
        }
    }
    bytes
}

fn is_one_of(path: &Path, digests: &BTreeSet<Digest>) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    digests.iter().any(|digest| name.contains(&digest.hex()))
}

/// The extents of a map: lines of START-END after two lines of heading. The last one may be cut off.
fn staged_bytes(map: &str) -> u64 {
    let map = &map[..=map.rfind('\n').unwrap()];
    let length = |line: &str| {
        let (start, end) = line.split_once('-').unwrap();
        end.parse::<u64>().unwrap() - start.parse::<u64>().unwrap()
    };
    map.lines().skip(2).map(length).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_copy_goes_on_where_it_stopped() {
    let ferry = Ferry::new();
    let source = ferry.serve(&ferry.path("source"), 0).await;
    let target = ferry.serve(&ferry.path("target"), 0).await;
    let images = image_set(&IMAGES);
    push(&images, &source.host()).await;
    let expected = check(&images, &source.host(), "").await;
    let options = LinkOptions { total_rate: Some(35_000_000), ..LinkOptions::default() };
    let link = Link::start(source.address, options).await.unwrap();
    let mut dice = dice();
    for round in 0..ROUNDS {
        let prefix = format!("round{round}/");
        let list = ferry.list(&images, &link.host().to_string(), &target.host(), &prefix);
        // A state of its own, or what was seen in earlier rounds would be mounted.
        let state = format!("state{round}");
        let arguments = ["copy", "--state-dir", &state, "--from-file", list.to_str().unwrap()];
        link.reset_stats();
        let mut killed = ferry.command(&arguments).spawn().unwrap();
        until_moved(&link, dice.random_range(1..expected.bytes() * 9 / 10), &mut killed).await;
        killed.kill().await.unwrap();
        link.kill_connections();
        let finished = finished(&images, &target, &prefix, &ferry.path(&state).join("staging")).await;
        link.reset_stats();
        // One connection: where others take over, what is under way on the first is delivered for nothing.
        ferry.run(&[&arguments[..], &["--jobs", "1"]].concat()).await.ok();
        let fetched = link.stats().bytes_down;
        let missing = content(&expected) - finished;
        assert!(
            fetched <= missing + OVERHEAD,
            "round {round}: {fetched} bytes fetched where {missing} were missing"
        );
        assert_eq!(check(&images, &target.host(), &prefix).await, expected, "round {round}");
    }
}

/// Bytes of blobs.
pub fn content(inventory: &Inventory) -> u64 {
    inventory.blobs.values().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_registry_keeps_what_it_has_confirmed() {
    let ferry = Ferry::new();
    let source = ferry.serve(&ferry.path("source"), 0).await;
    let images = image_set(&IMAGES);
    push(&images, &source.host()).await;
    let expected = check(&images, &source.host(), "").await;
    let options = LinkOptions { total_rate: Some(35_000_000), ..LinkOptions::default() };
    let link = Link::start(source.address, options).await.unwrap();
    let mut dice = dice();
    let mut target = ferry.serve(&ferry.path("target"), 0).await;
    let port = target.address.port();
    for round in 0..REGISTRY_ROUNDS {
        let prefix = format!("round{round}/");
        let list = ferry.list(&images, &link.host().to_string(), &target.host(), &prefix);
        // A state of its own, or what was seen in earlier rounds would be mounted.
        let state = format!("state{round}");
        let arguments = ["copy", "--state-dir", &state, "--from-file", list.to_str().unwrap()];
        link.reset_stats();
        let mut copy = ferry.command(&arguments).spawn().unwrap();
        until_moved(&link, dice.random_range(1..expected.bytes() * 9 / 10), &mut copy).await;
        target.kill().await;
        target = ferry.serve(&ferry.path("target"), port).await;
        // It may have got over the break by itself; whether or not, a further run leaves nothing to be done.
        copy.wait().await.unwrap();
        ferry.run(&arguments).await.ok();
        assert_eq!(check(&images, &target.host(), &prefix).await, expected, "round {round}");
    }
    assert_eq!(target.stop().await, Some(0));
}
