//! What belongs to an image, over HTTP: with and without an API for referrers.

use std::time::Duration;

use ferry_oci::{Digest, Manifest, Reference, Tag, fallback_tag};
use ferry_store::{PageRequest, Scope};
use ferry_testkit::fake::{FakeRegistry, Kind};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_testkit::link::{Link, LinkOptions};
use ferry_testkit::quirks::{Listings, Quirks, TooMany};
use ferry_transfer::{Copier, Figures, Job, Options, Outcome, Place};
use tokio_util::sync::CancellationToken;

use crate::harness::{reader, remote};

pub const NAME: &str = "team/app";

/// An index of two platforms.
pub fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::random(1, 1000)])
        .platform("linux/arm64", [Layer::random(2, 1000)])
        .build()
}

pub fn artifact(subject: &Manifest, text: &'static str) -> Image {
    Image::artifact(subject, "application/vnd.example.signature", text)
}

pub fn signature() -> Image {
    ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(3, 100)]).build_single()
}

pub fn cosign(subject: &Manifest) -> Tag {
    format!("{}.sig", fallback_tag(&subject.digest())).parse().unwrap()
}

/// Pushes as ferry's client does, lists of referrers included.
pub async fn push(host: &str, image: &Image, tag: Option<&Tag>) {
    let store = remote(host);
    let repository = store.writable(&Scope::Hosted, &NAME.parse().unwrap()).unwrap();
    image.push_to(&*repository, tag).await.unwrap();
}

/// A run of its own. What was done; nothing if the image was unchanged.
pub async fn copy(source: &str, target: &str) -> Option<Figures> {
    let place =
        |host: &str| Place { id: host.into(), store: remote(host), repository: NAME.parse().unwrap() };
    let tag: Tag = "v1".parse().unwrap();
    let reference = Reference::Tag(tag.clone());
    let job =
        Job { source: place(source), reference, target: place(target), tag: Some(tag), platforms: None };
    match Copier::new(Options::default(), CancellationToken::new()).copy(job).await {
        Outcome::Copied { figures, .. } => Some(figures),
        Outcome::Unchanged { .. } => None,
        other => unreachable!("{other:?}"),
    }
}

/// What a registry says that refers to `subject`, each of it whole.
pub async fn referrers(host: &str, subject: &Manifest) -> Vec<Digest> {
    let repository = reader(host, NAME);
    let page = repository.referrers(&subject.digest(), None, PageRequest::default()).await.unwrap();
    for item in &page.items {
        verify(&*repository, &Reference::Digest(item.digest)).await.unwrap();
    }
    page.items.iter().map(|item| item.digest).collect()
}

async fn registry(listings: Listings) -> (FakeRegistry, String) {
    let registry = FakeRegistry::start().await.unwrap();
    registry.quirks(Quirks { listings, ..Quirks::default() });
    let host = registry.address().to_string();
    (registry, host)
}

fn without_api() -> Listings {
    Listings { no_referrers: true, ..Listings::default() }
}

fn counts(registry: &FakeRegistry) -> [usize; 4] {
    [Kind::Listing, Kind::Referrers, Kind::ManifestHead, Kind::ManifestGet].map(|kind| registry.count(kind))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_asked_once_for_each_manifest() {
    let (source, from) = registry(Listings::default()).await;
    let (target, to) = registry(Listings::default()).await;
    let image = image();
    push(&from, &image, Some(&"v1".parse().unwrap())).await;
    assert_eq!(copy(&from, &to).await.unwrap().referrers, 0);
    source.reset_counts();
    target.reset_counts();
    assert_eq!(copy(&from, &to).await, None);
    assert_eq!(counts(&source), [1, 3, 1, 0]);
    assert_eq!(counts(&target), [0, 0, 1, 1], "the index");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_api_the_listing_says_whom_to_ask_for() {
    let (source, from) = registry(without_api()).await;
    let (target, to) = registry(Listings::default()).await;
    let (image, first) = (image(), "v1".parse().unwrap());
    push(&from, &image, Some(&first)).await;
    copy(&from, &to).await.unwrap();
    source.reset_counts();
    assert_eq!(copy(&from, &to).await, None);
    assert_eq!(counts(&source), [1, 1, 1, 0], "the API is missed once, and no tag is asked for in vain");
    let referrer = artifact(&image.manifests[0], "a");
    push(&from, &referrer, None).await;
    assert_eq!(copy(&from, &to).await.unwrap().referrers, 1);
    source.reset_counts();
    target.reset_counts();
    assert_eq!(copy(&from, &to).await, None);
    assert_eq!(counts(&source), [1, 1, 1, 1], "the list of the one that has some");
    assert_eq!(counts(&target), [0, 1, 1, 1]);
    assert_eq!(referrers(&to, &image.manifests[0]).await, [referrer.root.digest()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_api_keeps_its_own_list() {
    let (_source, from) = registry(Listings::default()).await;
    let (target, to) = registry(without_api()).await;
    let (image, tag) = (image(), "v1".parse().unwrap());
    let (own, ours) = (artifact(&image.root, "signed by the target"), artifact(&image.root, "by the source"));
    push(&from, &image, Some(&tag)).await;
    push(&from, &ours, None).await;
    push(&to, &image, Some(&tag)).await;
    push(&to, &own, None).await;
    assert_eq!(copy(&from, &to).await.unwrap().referrers, 1);
    assert_eq!(referrers(&to, &image.root).await, [own.root.digest(), ours.root.digest()]);
    target.reset_counts();
    assert_eq!(copy(&from, &to).await, None);
    assert_eq!(target.count(Kind::ManifestPut), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_of_tags_are_one_listing() {
    let listings = Listings { most: Some((2, TooMany::Cut)), ..without_api() };
    let (source, from) = registry(listings).await;
    let (_target, to) = registry(Listings::default()).await;
    let (image, signed, referrer) = (image(), signature(), artifact(&image().manifests[1], "a"));
    for number in 1..=30 {
        push(&from, &image, Some(&format!("v{number}").parse().unwrap())).await;
    }
    push(&from, &signed, Some(&cosign(&image.root))).await;
    push(&from, &referrer, None).await;
    source.reset_counts();
    // So far away that the image is there before the listing.
    let options = LinkOptions { latency: Duration::from_millis(20), ..LinkOptions::default() };
    let far = Link::start(source.address(), options).await.unwrap();
    assert_eq!(copy(far.host().as_str(), &to).await.unwrap().referrers, 2);
    let [listing, api, heads, _] = counts(&source);
    assert_eq!((listing, api, heads), (16, 1, 0));
    let there = reader(&to, NAME).resolve(&Reference::Tag(cosign(&image.root))).await.unwrap();
    assert_eq!(there.descriptor.digest, signed.root.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_lists_is_asked_for_signatures() {
    let listings = Listings { absent: true, ..without_api() };
    let (source, from) = registry(listings).await;
    let (_target, to) = registry(Listings::default()).await;
    let (image, signed) = (image(), signature());
    push(&from, &image, Some(&"v1".parse().unwrap())).await;
    push(&from, &signed, Some(&cosign(&image.root))).await;
    assert_eq!(copy(&from, &to).await.unwrap().referrers, 1);
    source.reset_counts();
    assert_eq!(copy(&from, &to).await, None);
    let [listing, api, heads, gets] = counts(&source);
    assert_eq!((listing, api), (1, 1));
    assert_eq!(heads, 1 + 3 * 3 + 1, "the image, three tags of three manifests, and the one that was found");
    assert_eq!(gets, 3 + 1, "the fallback tag of each manifest, and of the signature");
}
