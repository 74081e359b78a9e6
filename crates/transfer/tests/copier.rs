//! The copier over stores in memory: how often it asks, what it does when something breaks, and that a tag is never
//! written over missing or wrong content.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::time::Duration;

use ferry_oci::{Name, Reference, Tag};
use ferry_storage::{FileStaging, StagingOptions};
use ferry_store::{BodyFault, CountingStore, FaultyStore, Operation};
use ferry_store::{Kind, MemoryStore, RepositoryMut, Scope, Side, Store};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_transfer::{Copier, Figures, Job, Options, Outcome, Place, Progress, Retry};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const BIG: usize = 300_000;

fn quick() -> Retry {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(5));
    Retry { unavailable: 3, stalled: 3, limited: 3, first, longest, ..Retry::default() }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn tag() -> Tag {
    "v1".parse().unwrap()
}

fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .shared([Layer::random(1, BIG)])
        .platform("linux/amd64", [Layer::random(2, 1000)])
        .platform("linux/arm64", [Layer::random(3, 1000)])
        .build()
}

fn writable(store: &dyn Store, repository: &str) -> Arc<dyn RepositoryMut> {
    store.writable(&Scope::Hosted, &name(repository)).unwrap()
}

async fn holding(image: &Image) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    image.push_to(&*writable(&*store, "source"), Some(&tag())).await.unwrap();
    store
}

fn job(source: &Arc<dyn Store>, target: &Arc<dyn Store>, repository: &str) -> Job {
    let place = |id: &str, store: &Arc<dyn Store>, repository: &str| Place {
        id: id.into(),
        store: Arc::clone(store),
        repository: name(repository),
    };
    Job {
        source: place("source", source, "source"),
        reference: Reference::Tag(tag()),
        target: place("target", target, repository),
        tag: Some(tag()),
        platforms: None,
    }
}

fn copier(options: Options) -> Copier {
    Copier::new(Options { retry: quick(), ..options }, CancellationToken::new())
}

/// Everything from `BIG` on is staged in a directory that lives as long as the test.
async fn staged() -> (TempDir, Options) {
    let directory = TempDir::new().unwrap();
    let now = std::time::SystemTime::now();
    let staging = FileStaging::open(directory.path(), StagingOptions::new(now)).await;
    let options = Options { staging: Some(staging.unwrap()), stage_from: 100_000, ..Options::default() };
    (directory, options)
}

async fn assert_arrived(target: &dyn Store, repository: &str, image: &Image) {
    let repository = target.repository(&Scope::Hosted, &name(repository));
    let found = verify(&*repository, &Reference::Tag(tag())).await.unwrap();
    assert_eq!(found.blobs.len(), image.blobs.len());
    assert_eq!(found.manifests.len(), image.manifests.len());
}

async fn assert_no_tag(target: &dyn Store, repository: &str) {
    let repository = target.repository(&Scope::Hosted, &name(repository));
    let found = repository.resolve(&Reference::Tag(tag())).await;
    assert_eq!(found.unwrap_err().kind(), Kind::NotFound);
}

#[track_caller]
fn copied(outcome: Outcome) -> Figures {
    match outcome {
        Outcome::Copied { figures, .. } => figures,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failed(outcome: Outcome) -> (Kind, Option<Side>) {
    match outcome {
        Outcome::Failed { error, .. } => (error.kind(), error.side()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_is_asked_for_no_more_than_needed() {
    let image = image();
    let source = Arc::new(CountingStore::new(holding(&image).await));
    let target = Arc::new(CountingStore::new(Arc::new(MemoryStore::new())));
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (source.clone(), target.clone());
    let figures = copied(copier(Options::default()).copy(job(&from, &to, "a")).await);
    let blobs = image.blobs.len() as u64;
    assert_eq!((figures.moved as u64, figures.manifests), (blobs, 3));
    let (asked, told) = (source.counts(), target.counts());
    assert_eq!((asked.manifest, asked.blob, asked.resolve, asked.stat), (3, blobs, 0, 0));
    assert_eq!((told.begin, told.commit, told.put_manifest), (blobs, blobs, 3));
    assert_eq!((told.resolve, told.stat), (1, 0));
    assert_arrived(&*to, "a", &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_image_is_looked_at_once_on_each_side() {
    let image = image();
    let source = Arc::new(CountingStore::new(holding(&image).await));
    let target = Arc::new(CountingStore::new(Arc::new(MemoryStore::new())));
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (source.clone(), target.clone());
    copied(copier(Options::default()).copy(job(&from, &to, "a")).await);
    source.take();
    target.take();
    let outcome = copier(Options::default()).copy(job(&from, &to, "a")).await;
    assert!(matches!(outcome, Outcome::Unchanged { digest } if digest == image.root.digest()));
    let (asked, told) = (source.take(), target.take());
    assert_eq!((asked.resolve, asked.manifest, told.resolve, told.begin), (1, 0, 1, 0));
    let recheck = Options { recheck: true, ..Options::default() };
    let figures = copied(copier(recheck).copy(job(&from, &to, "a")).await);
    assert_eq!((figures.moved, figures.present), (0, image.blobs.len() + 1), "the shared layer is met twice");
    assert_eq!((source.take().blob, target.take().stat), (0, image.blobs.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_a_run_share_blobs_and_mount() {
    let image = image();
    let source = Arc::new(CountingStore::new(holding(&image).await));
    let target = Arc::new(CountingStore::new(Arc::new(MemoryStore::new())));
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (source.clone(), target.clone());
    let jobs = ["a", "b", "c"].map(|repository| job(&from, &to, repository)).to_vec();
    let mut outcomes = Vec::new();
    copier(Options::default()).copy_all(jobs, |_, outcome| outcomes.push(copied(outcome))).await;
    let blobs = image.blobs.len();
    assert_eq!(source.counts().blob as usize, blobs, "each is fetched once");
    assert_eq!(outcomes.iter().map(|f| f.moved).sum::<usize>(), blobs);
    assert_eq!(outcomes.iter().map(|f| f.mounted).sum::<usize>(), 2 * blobs);
    for repository in ["a", "b", "c"] {
        assert_arrived(&*to, repository, &image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn within_one_store_everything_is_mounted() {
    let image = image();
    let counted = Arc::new(CountingStore::new(holding(&image).await));
    let store: Arc<dyn Store> = counted.clone();
    let mut job = job(&store, &store, "a");
    job.target.id = Arc::clone(&job.source.id);
    let figures = copied(copier(Options::default()).copy(job).await);
    assert_eq!((figures.mounted, figures.moved), (image.blobs.len(), 0));
    assert_eq!((counted.counts().blob, counted.counts().write), (0, 0));
    assert_arrived(&*store, "a", &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_bodies_are_resumed_not_restarted() {
    let image = image();
    for (directory, options) in [(None, Options::default()), {
        let (d, o) = staged().await;
        (Some(d), o)
    }] {
        let faulty = Arc::new(FaultyStore::new(holding(&image).await));
        for nth in 1..=4 {
            faulty.spoil(nth, BodyFault::TruncateAfter(400));
        }
        let source: Arc<dyn Store> = faulty.clone();
        let counted = Arc::new(CountingStore::new(source));
        let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (counted.clone(), Arc::new(MemoryStore::new()));
        copied(copier(options).copy(job(&from, &to, "a")).await);
        assert!(faulty.is_spent());
        let opened = counted.counts().blob as usize - image.blobs.len();
        assert!(
            (1..=4).contains(&opened),
            "one more for each that broke; a body shorter than that came whole"
        );
        assert_arrived(&*to, "a", &image).await;
        drop(directory);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupted_content_never_gets_a_tag() {
    let image = image();
    for (directory, options) in [(None, Options::default()), {
        let (d, o) = staged().await;
        (Some(d), o)
    }] {
        let faulty = Arc::new(FaultyStore::new(holding(&image).await));
        let bodies = image.blobs.len() as u64 * 2;
        for nth in 1..=bodies {
            faulty.spoil(nth, BodyFault::CorruptAt(100));
        }
        let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (faulty, Arc::new(MemoryStore::new()));
        let outcome = copier(options).copy(job(&from, &to, "a")).await;
        assert_eq!(failed(outcome), (Kind::DigestMismatch, Some(Side::Source)));
        assert_no_tag(&*to, "a").await;
        for digest in image.blobs.keys() {
            let repository = to.repository(&Scope::Hosted, &name("a"));
            if repository.stat(digest).await.unwrap().is_some() {
                let blob = repository.blob(digest, ferry_store::ByteRange::ALL).await.unwrap();
                assert_eq!(ferry_oci::Digest::sha256(&blob.into_bytes().await.unwrap()), *digest);
            }
        }
        drop(directory);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_went_wrong_once_are_fetched_again() {
    let image = image();
    for (directory, options) in [(None, Options::default()), {
        let (d, o) = staged().await;
        (Some(d), o)
    }] {
        let faulty = Arc::new(FaultyStore::new(holding(&image).await));
        faulty.spoil(1, BodyFault::CorruptAt(7));
        let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (faulty.clone(), Arc::new(MemoryStore::new()));
        copied(copier(options).copy(job(&from, &to, "a")).await);
        assert!(faulty.is_spent());
        assert_arrived(&*to, "a", &image).await;
        drop(directory);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_is_tried_again_from_staging() {
    let image = image();
    let source = Arc::new(CountingStore::new(holding(&image).await));
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    for operation in [Operation::Commit, Operation::Write] {
        faulty.fail(operation, 2, Kind::Unavailable);
    }
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (source.clone(), faulty.clone());
    let (_directory, options) = staged().await;
    copied(copier(options).copy(job(&from, &to, "a")).await);
    assert!(faulty.is_spent());
    assert_arrived(&*to, "a", &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_their_side_and_leave_no_tag() {
    let image = image();
    for (operation, kind) in [
        (Operation::Begin, Kind::Denied),
        (Operation::Commit, Kind::Full),
        (Operation::PutManifest, Kind::Invalid),
        (Operation::Resolve, Kind::Unauthorized),
    ] {
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        faulty.fail(operation, 1, kind);
        let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (holding(&image).await, faulty);
        let outcome = copier(Options::default()).copy(job(&from, &to, "a")).await;
        assert_eq!(failed(outcome), (kind, Some(Side::Target)), "{operation}");
        assert_no_tag(&*to, "a").await;
    }
    for (operation, kind) in [(Operation::Manifest, Kind::NotFound), (Operation::Blob, Kind::Denied)] {
        let faulty = Arc::new(FaultyStore::new(holding(&image).await));
        faulty.fail(operation, 1, kind);
        let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (faulty, Arc::new(MemoryStore::new()));
        let outcome = copier(Options::default()).copy(job(&from, &to, "a")).await;
        assert_eq!(failed(outcome), (kind, Some(Side::Source)), "{operation}");
        assert_no_tag(&*to, "a").await;
    }
}

/// The run believes that the blobs are there; the target says otherwise when the manifest comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_emptied_in_mid_run_heals() {
    let image = image();
    let source = Arc::new(CountingStore::new(holding(&image).await));
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (source.clone(), Arc::new(MemoryStore::new()));
    let copier = copier(Options::default());
    copied(copier.copy(job(&from, &to, "a")).await);
    let target = writable(&*to, "a");
    for manifest in &image.manifests {
        target.delete_manifest(&Reference::Digest(manifest.digest())).await.unwrap();
    }
    for digest in image.blobs.keys() {
        target.delete_blob(digest).await.unwrap();
    }
    // Another repository of the emptied target: it is believed to be mountable from the first.
    copied(copier.copy(job(&from, &to, "b")).await);
    assert_arrived(&*to, "b", &image).await;
    copied(copier.copy(job(&from, &to, "a")).await);
    assert_arrived(&*to, "a", &image).await;
}

/// A stop in the middle of a staged blob, and a later run that fetches only the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_keeps_what_it_has() {
    let image = image();
    let faulty = Arc::new(FaultyStore::new(holding(&image).await));
    for nth in 1..=8 {
        faulty.spoil(nth, BodyFault::StallAfter(280_000));
    }
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (faulty, Arc::new(MemoryStore::new()));
    let (directory, options) = staged().await;
    let stop = CancellationToken::new();
    let stopped = Copier::new(options.clone(), stop.clone());
    let map_has = |part: &str| {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut maps = files.filter(|path| path.extension().is_some_and(|e| e == "map"));
        maps.any(|path| std::fs::read_to_string(path).unwrap().contains(part))
    };
    let (outcomes, ()) = tokio::join!(
        async {
            let mut outcomes = Vec::new();
            stopped.copy_all(vec![job(&from, &to, "a")], |_, outcome| outcomes.push(outcome)).await;
            outcomes
        },
        async {
            while !map_has("-280000\n") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stop.cancel();
        }
    );
    assert!(matches!(outcomes[..], [Outcome::Stopped]), "{outcomes:?}");
    assert_no_tag(&*to, "a").await;
    drop(stopped);
    let counted = Arc::new(CountingStore::new(holding(&image).await));
    let again = copier(options);
    let from: Arc<dyn Store> = counted.clone();
    copied(again.copy(job(&from, &to, "a")).await);
    let all: u64 = image.blobs.values().map(|bytes| bytes.len() as u64).sum();
    assert!(again.fetched() <= all - 280_000, "{} of {all}", again.fetched());
    assert_arrived(&*to, "a", &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_what_moved() {
    let image = image();
    let source: Arc<dyn Store> = holding(&image).await;
    let target: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (_directory, options) = staged().await;
    let copier = copier(options);
    let whole: u64 = image.blobs.values().map(|blob| blob.len() as u64).sum();
    assert_eq!(copier.progress(), Progress::default());
    copied(copier.copy(job(&source, &target, "first")).await);
    let first = copier.progress();
    assert_eq!((first.begun, first.done_images, first.blobs.len()), (1, 1, 0));
    assert_eq!((first.known, first.done, first.fetched, first.sent), (whole, whole, whole, whole));
    copied(copier.copy(job(&source, &target, "second")).await);
    let second = copier.progress();
    assert_eq!((second.known, second.done), (2 * whole, 2 * whole), "mounted blobs are done, too");
    assert_eq!((second.fetched, second.sent), (whole, whole), "and did not move");
    failed(
        copier
            .copy(Job { reference: Reference::Tag("v2".parse().unwrap()), ..job(&source, &target, "third") })
            .await,
    );
    let third = copier.progress();
    assert_eq!((third.begun, third.done_images, third.known), (3, 3, 2 * whole));
}
