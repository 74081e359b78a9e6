//! Indexes that keep their bytes, with only some of their manifests behind them.

use ferry_oci::{Digest, Reference};
use ferry_policy::platforms::{Mode, Selection};
use ferry_store::{Counts, Kind, MemoryStore, Side};
use ferry_testkit::images::Image;

use super::harness::*;

fn sparse(patterns: &[&str]) -> Option<Selection> {
    select(patterns, Mode::Sparse)
}

async fn pair(image: &Image) -> Pair {
    Pair::to(MemoryStore::new().taking_sparse_indexes(), image).await
}

/// Which of the root's children the target has.
async fn there(pair: &Pair, image: &Image) -> Vec<bool> {
    let mut there = Vec::new();
    for child in image.root.children() {
        there.push(pair.has(child.digest).await);
    }
    there
}

async fn root(pair: &Pair) -> Digest {
    let root = pair.there().manifest(&Reference::Tag(tag())).await.unwrap();
    pair.asked();
    root.digest()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_stays_and_what_was_asked_for_is_behind_it() {
    let image = image();
    let pair = pair(&image).await;
    let outcome = pair.run(sparse(&["arm64"])).await;
    let (digest, figures) = copied(&outcome);
    assert_eq!((digest, outcome.degraded()), (image.root.digest(), None));
    assert_eq!((figures.moved, figures.manifests), (3 + 2, 3));
    let (source, target) = pair.asked();
    assert_eq!((source.manifest, source.blob, source.resolve), (3, 5, 0));
    assert_eq!((target.resolve, target.begin, target.put_manifest), (1, 5, 3));
    assert_eq!(root(&pair).await, image.root.digest());
    assert_eq!(there(&pair, &image).await, [false, true, false, false, true, false]);

    for _ in 0..2 {
        assert_eq!(unchanged(&pair.run(sparse(&["arm64"])).await), digest);
        let at_target = Counts { manifest: 1, ..resolved(1 + 2) };
        assert_eq!(pair.asked(), (resolved(1), at_target), "the index, the image and its attestation");
        pair.forget();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_index_is_not_enough() {
    let image = image();
    let pair = pair(&image).await;
    copied(&pair.run(sparse(&["arm64"])).await);
    pair.forget();
    let (digest, figures) = copied(&pair.run(sparse(&["amd64", "arm64"])).await);
    assert_eq!((digest, figures.moved), (image.root.digest(), 2 + 2));
    assert_eq!(there(&pair, &image).await, [true, true, false, true, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_after_some_are_all() {
    let image = image();
    let pair = pair(&image).await;
    copied(&pair.run(sparse(&["arm64"])).await);
    let (_, figures) = copied(&pair.run(None).await);
    assert_eq!(figures.manifests, 4 + 1);
    assert_eq!(pair.arrived().await.bytes(), image.root.bytes());
    pair.asked();
    unchanged(&pair.run(None).await);
    assert_eq!(pair.asked(), (resolved(1), resolved(1)), "then its digest says everything again");
    unchanged(&pair.run(sparse(&["arm64"])).await);
    pair.asked();
    unchanged(&pair.run(None).await);
    assert_eq!(pair.asked(), (resolved(1), resolved(1)), "nothing became less");
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_went_missing_come_back() {
    let image = image();
    let pair = pair(&image).await;
    copied(&pair.run(sparse(&["arm64"])).await);
    pair.there().delete_manifest(&Reference::Digest(image.root.children()[1].digest)).await.unwrap();
    let (_, figures) = copied(&pair.run(sparse(&["arm64"])).await);
    assert_eq!((figures.moved, figures.manifests), (0, 2));
    assert_eq!(there(&pair, &image).await, [false, true, false, false, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_wants_all_manifests_says_so() {
    let image = image();
    let pair = Pair::with(&image).await;
    let (kind, side, said) = failed(&pair.run(sparse(&["arm64"])).await);
    assert_eq!((kind, side), (Kind::Incomplete, Some(Side::Target)));
    let remedy = "the target does not take an index whose manifests are missing; use rewrite";
    assert!(said.ends_with(remedy), "{said}");
    let (source, target) = pair.asked();
    assert_eq!(source.blob, 5, "once, and nothing of the other platforms");
    assert_eq!(target.put_manifest, 2 * 3, "one more walk that trusts nothing, and no third");
    let untagged = pair.there().resolve(&Reference::Tag(tag())).await;
    assert_eq!(untagged.unwrap_err().kind(), Kind::NotFound);
    let all = pair.run(sparse(&["arm64", "amd64", "linux/s390x"])).await;
    assert_eq!(copied(&all).0, image.root.digest(), "it takes one that is not sparse");
    pair.arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_does_not_say_is_brought() {
    let (amd, inner) = (alone("linux/amd64"), image());
    let whole = index_of(&[&amd, &inner], &[entry(&amd), entry(&inner)]);
    let pair = Pair::with(&whole).await;
    assert_eq!(copied(&pair.run(sparse(&["linux/s390x"])).await).0, whole.root.digest());
    assert_eq!(pair.arrived().await.bytes(), whole.root.bytes(), "an index inside comes whole");
}
