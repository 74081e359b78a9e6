//! Mirrors in order, with health.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::time::Duration;

use ferry_oci::{Name, Reference, Tag};
use ferry_store::{
    BodyFault, CountingStore, Counts, FaultyStore, Kind, MemoryStore, Operation, Scope, Store,
};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_transfer::{Copier, Job, Mirror, Mirrors, Options, Outcome, Place, Retry};
use tokio_util::sync::CancellationToken;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn tag() -> Tag {
    "v1".parse().unwrap()
}

fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, 200_000)]).build_single()
}

async fn holding(image: &Image, repository: &str) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    let repository = store.writable(&Scope::Hosted, &name(repository)).unwrap();
    image.push_to(&*repository, Some(&tag())).await.unwrap();
    store
}

fn mirror(store: Arc<dyn Store>) -> Mirror {
    Mirror { store, prefix: None }
}

async fn copy(source: Mirrors) -> (Arc<dyn Store>, Outcome) {
    let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let place =
        |id: &str, store: Arc<dyn Store>| Place { id: id.into(), store, repository: name("team/app") };
    let job = Job {
        source: place("source", Arc::new(source)),
        reference: Reference::Tag(tag()),
        target: place("target", Arc::clone(&target)),
        tag: Some(tag()),
        platforms: None,
    };
    let first = Duration::from_millis(1);
    let retry = Retry { first, longest: first, ..Retry::default() };
    let copier = Copier::new(Options { retry, ..Options::default() }, CancellationToken::new());
    (target, copier.copy(job).await)
}

async fn assert_arrived((target, outcome): (Arc<dyn Store>, Outcome)) {
    assert!(matches!(outcome, Outcome::Copied { .. }), "{outcome:?}");
    let repository = target.repository(&Scope::Hosted, &name("team/app"));
    verify(&*repository, &Reference::Tag(tag())).await.unwrap();
}

#[tokio::test]
async fn the_first_that_has_it_is_asked_alone() {
    let image = image();
    let first = Arc::new(CountingStore::new(holding(&image, "mirrored/team/app").await));
    let registry = Arc::new(CountingStore::new(holding(&image, "team/app").await));
    let prefixed = Mirror { store: first.clone(), prefix: Some(name("mirrored")) };
    assert_arrived(copy(Mirrors::new(vec![prefixed], registry.clone())).await).await;
    assert_eq!((registry.counts().manifest, registry.counts().blob), (0, 0));
    assert_eq!(first.counts().blob as usize, image.blobs.len());
}

#[tokio::test]
async fn what_a_mirror_lacks_comes_from_the_registry() {
    let image = image();
    let empty = Arc::new(MemoryStore::new());
    assert_arrived(copy(Mirrors::new(vec![mirror(empty)], holding(&image, "team/app").await)).await).await;
}

#[tokio::test]
async fn a_mirror_that_fails_is_asked_no_more_for_a_while() {
    let image = image();
    let broken = Arc::new(FaultyStore::new(holding(&image, "team/app").await));
    for nth in 1..=20 {
        broken.fail(Operation::Manifest, nth, Kind::Unavailable);
        broken.fail(Operation::Blob, nth, Kind::Unavailable);
    }
    let counted = Arc::new(CountingStore::new(broken));
    let mirrors = Mirrors::new(vec![mirror(counted.clone())], holding(&image, "team/app").await);
    assert_arrived(copy(mirrors).await).await;
    assert_eq!((counted.counts().manifest, counted.counts().blob), (1, 0));
}

#[tokio::test]
async fn a_body_that_breaks_off_goes_on_at_the_next() {
    let image = image();
    let breaking = Arc::new(FaultyStore::new(holding(&image, "team/app").await));
    for nth in 1..=9 {
        breaking.spoil(nth, BodyFault::TruncateAfter(100));
    }
    let registry = Arc::new(CountingStore::new(holding(&image, "team/app").await));
    let mirrors = Mirrors::new(vec![mirror(breaking)], registry.clone());
    assert_arrived(copy(mirrors).await).await;
    assert!(registry.counts().blob >= 1);
}

/// A mirror with wrong bytes fails no copy as long as another has the right ones.
#[tokio::test]
async fn wrong_bytes_are_asked_of_the_next() {
    let image = image();
    let wrong = Arc::new(FaultyStore::new(holding(&image, "team/app").await));
    for nth in 1..=50 {
        wrong.spoil(nth, BodyFault::CorruptAt(3));
    }
    assert_arrived(copy(Mirrors::new(vec![mirror(wrong)], holding(&image, "team/app").await)).await).await;
}

#[tokio::test]
async fn the_registrys_own_error_is_reported() {
    let refusing = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    refusing.fail(Operation::Manifest, 1, Kind::Denied);
    let mirrors = Mirrors::new(vec![mirror(Arc::new(MemoryStore::new()))], refusing);
    match copy(mirrors).await.1 {
        Outcome::Failed { error, .. } => assert_eq!(error.kind(), Kind::Denied),
        other => panic!("{other:?}"),
    }
}

/// A mirror of the image that never answers the first question for a manifest.
async fn silent(image: &Image) -> Arc<FaultyStore> {
    let silent = Arc::new(FaultyStore::new(holding(image, "team/app").await));
    silent.stall(Operation::Manifest, 1);
    silent
}

/// A mirror that says nothing holds nobody up for long, and is asked last for a while.
#[tokio::test(start_paused = true)]
async fn a_silent_mirror_is_passed_over() {
    let image = image();
    let registry: Arc<dyn Store> = holding(&image, "team/app").await;
    let stores: [Arc<dyn Store>; 3] = [silent(&image).await, holding(&image, "team/app").await, registry];
    let [silent, other, registry] = stores.map(|store| Arc::new(CountingStore::new(store)));
    let mirrors = Mirrors::new(vec![mirror(silent.clone()), mirror(other.clone())], registry.clone());
    let repository = mirrors.repository(&Scope::Hosted, &name("team/app"));
    assert_eq!(repository.manifest(&Reference::Tag(tag())).await.unwrap().digest(), image.root.digest());
    for _ in 0..5 {
        repository.resolve(&Reference::Tag(tag())).await.unwrap();
    }
    assert_eq!(silent.take(), Counts { manifest: 1, ..Counts::default() });
    assert_eq!(other.take(), Counts { manifest: 1, resolve: 5, ..Counts::default() });
    assert_eq!(registry.take(), Counts::default());
}

/// One that takes its time is waited for if nobody else knows anything.
#[tokio::test(start_paused = true)]
async fn a_slow_mirror_is_waited_for_if_the_others_fail() {
    let image = image();
    let behind = vec![mirror(silent(&image).await), mirror(silent(&image).await)];
    let slow = Arc::new(Mirrors::new(behind, holding(&image, "team/app").await));
    let failing = Arc::new(FaultyStore::new(holding(&image, "team/app").await));
    failing.fail(Operation::Manifest, 1, Kind::Unavailable);
    let mirrors = Mirrors::new(vec![mirror(slow)], failing.clone());
    let repository = mirrors.repository(&Scope::Hosted, &name("team/app"));
    assert_eq!(repository.manifest(&Reference::Tag(tag())).await.unwrap().digest(), image.root.digest());
    assert!(failing.is_spent());
}
