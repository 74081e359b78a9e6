//! How many requests things cost. The registries are `ferry serve` without authentication behind counting links.

use std::collections::BTreeSet;

use ferry_oci::Name;
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage, SetSpec, image_set};
use ferry_testkit::link::{Link, LinkOptions};

use crate::harness::{Ferry, Served, check, push};

/// Two registries behind links that count.
struct Pair {
    ferry: Ferry,
    served: [Served; 2],
    source: Link,
    target: Link,
}

impl Pair {
    async fn new() -> Self {
        let ferry = Ferry::new();
        let served = [ferry.serve(&ferry.path("a"), 0).await, ferry.serve(&ferry.path("b"), 0).await];
        let source = Link::start(served[0].address, LinkOptions::default()).await.unwrap();
        let target = Link::start(served[1].address, LinkOptions::default()).await.unwrap();
        Self { ferry, served, source, target }
    }

    async fn copy(&self, images: &[NamedImage], prefix: &str) {
        self.copy_with(&["copy"], images, prefix).await;
    }

    async fn copy_with(&self, arguments: &[&str], images: &[NamedImage], prefix: &str) {
        let (source, target) = (self.source.host().to_string(), self.target.host().to_string());
        let list = self.ferry.list(images, &source, &target, prefix);
        self.source.reset_stats();
        self.target.reset_stats();
        self.ferry.run(&[arguments, &["--from-file", list.to_str().unwrap()]].concat()).await.ok();
    }

    fn requests(&self) -> usize {
        self.source.stats().requests.len() + self.target.stats().requests.len()
    }
}

fn single(blobs: usize) -> NamedImage {
    let layers = (1..blobs).map(|seed| Layer::random(seed as u64, 50_000));
    let image = ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", layers).build_single();
    assert_eq!(image.blobs.len(), blobs);
    NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_image_costs_two() {
    let pair = Pair::new().await;
    let images = image_set(&SetSpec::small(20, 1));
    push(&images, &pair.served[0].host()).await;
    pair.copy(&images, "").await;
    pair.copy_with(&["copy", "--no-referrers"], &images, "").await;
    assert_eq!(pair.requests(), 2 * images.len());
    assert!(pair.source.stats().requests.iter().all(|r| r.method == "HEAD"), "a look costs no quota");
}

/// A listing for each repository, a question for each manifest, and a look at each index.
#[tokio::test(flavor = "multi_thread")]
async fn looking_for_signatures_costs_what_is_said() {
    let pair = Pair::new().await;
    let images = image_set(&SetSpec::small(20, 1));
    push(&images, &pair.served[0].host()).await;
    pair.copy(&images, "").await;
    pair.copy(&images, "").await;
    let repositories: BTreeSet<&Name> = images.iter().map(|named| &named.repository).collect();
    let manifests = |named| {
        let NamedImage { repository, image, .. }: &NamedImage = named;
        image.manifests.iter().map(move |manifest| (repository, manifest.digest()))
    };
    let manifests: BTreeSet<_> = images.iter().flat_map(manifests).collect();
    let indexes = images.iter().filter(|named| !named.image.root.children().is_empty()).count();
    let (source, target) = (pair.source.stats(), pair.target.stats());
    assert_eq!(source.requests.len(), images.len() + repositories.len() + manifests.len());
    assert_eq!(target.requests.len(), images.len() + indexes);
    assert_eq!(source.count("GET", "/tags/list"), repositories.len());
    assert_eq!(source.count("GET", "/manifests/") + target.count("GET", "/referrers/"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_of_b_blobs_costs_three_and_three_each() {
    let pair = Pair::new().await;
    let image = [single(6)];
    push(&image, &pair.served[0].host()).await;
    pair.copy(&image, "").await;
    assert!(
        pair.requests() <= 3 + 3 * 6 + 2,
        "{:?} {:?}",
        pair.source.stats().requests,
        pair.target.stats().requests
    );
    check(&image, &pair.served[1].host(), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_under_another_tag_is_not_moved_again() {
    let pair = Pair::new().await;
    let first = single(6);
    let second = NamedImage { tag: "v2".parse().unwrap(), ..first.clone() };
    push(&[first.clone(), second.clone()], &pair.served[0].host()).await;
    pair.copy(&[first], "").await;
    pair.copy(&[second], "").await;
    assert_eq!(pair.source.stats().count("GET", "/blobs/"), 0);
    assert_eq!(pair.target.stats().count("PUT", "/blobs/"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_blob_is_fetched_once_and_mounted_where_it_is_wanted_again() {
    let pair = Pair::new().await;
    let images = image_set(&SetSpec::small(9, 2));
    push(&images, &pair.served[0].host()).await;
    pair.copy(&images, "mirror/").await;
    let stats = pair.source.stats();
    let mut fetched: Vec<&str> = stats
        .requests
        .iter()
        .filter(|r| r.method == "GET")
        .filter_map(|r| r.path.split_once("/blobs/").map(|(_, digest)| digest))
        .collect();
    let all = fetched.len();
    fetched.sort_unstable();
    fetched.dedup();
    assert_eq!(fetched.len(), all, "no blob twice");
    let expected = check(&images, &pair.served[1].host(), "mirror/").await;
    assert_eq!(all, expected.blobs.len());
    assert_eq!(pair.target.stats().count("PUT", "/blobs/uploads/"), all, "every blob is sent once");
}
