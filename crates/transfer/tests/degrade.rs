//! Images for a target that does not take them as they are: what arrives, what is reported, and how little is asked when
//! nothing is new.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use ferry_oci::{Digest, Manifest, Name, Reference, Tag, media_type};
use ferry_policy::degrade::{Degradation, Degradations};
use ferry_policy::profile::Profile;
use ferry_storage::FileHints;
use ferry_store::{CountingStore, Counts, Kind, MemoryStore, Scope, Side, Store};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_testkit::quirks::{Quirks, QuirkyStore};
use ferry_transfer::{Copier, Figures, Job, Options, Outcome, Place};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn tag() -> Tag {
    "v1".parse().unwrap()
}

fn swr() -> Degradations {
    Profile::named("huawei-swr").unwrap().degradations()
}

fn image(types: MediaTypes) -> ImageBuilder {
    ImageBuilder::new(types)
        .shared([Layer::random(1, 1000)])
        .platform("linux/amd64", [Layer::random(2, 1000)])
        .platform("linux/arm64", [Layer::random(3, 1000)])
}

/// A source, a target that refuses OCI types, and what runs remember.
struct Pair {
    source: Arc<CountingStore>,
    target: Arc<CountingStore>,
    hints: TempDir,
    forgotten: AtomicUsize,
}

impl Pair {
    async fn with(image: &Image) -> Self {
        let pair = Self {
            source: Arc::new(CountingStore::new(Arc::new(MemoryStore::new()))),
            target: Arc::new(CountingStore::new(Arc::new(QuirkyStore::new(
                Arc::new(MemoryStore::new()),
                Quirks { refuses_oci: true, ..Quirks::default() },
            )))),
            hints: TempDir::new().unwrap(),
            forgotten: AtomicUsize::new(0),
        };
        pair.push(image).await;
        pair
    }

    async fn push(&self, image: &Image) {
        let repository = self.source.writable(&Scope::Hosted, &name("source")).unwrap();
        image.push_to(&*repository, Some(&tag())).await.unwrap();
        self.source.take();
    }

    fn job(&self) -> Job {
        let place = |id: &str, store: &Arc<CountingStore>, repository: &str| Place {
            id: id.into(),
            store: Arc::clone(store) as _,
            repository: name(repository),
        };
        Job {
            source: place("source", &self.source, "source"),
            reference: Reference::Tag(tag()),
            target: place("target", &self.target, "a"),
            tag: Some(tag()),
            platforms: None,
        }
    }

    fn untagged(&self, image: &Image) -> Job {
        Job { reference: Reference::Digest(image.root.digest()), tag: None, ..self.job() }
    }

    /// A run of its own, with what earlier ones remember.
    async fn run(&self, how: Degradations) -> Outcome {
        self.run_job(self.job(), how, Options::default()).await
    }

    async fn run_job(&self, job: Job, how: Degradations, options: Options) -> Outcome {
        let file = format!("seen-{}.db", self.forgotten.load(Ordering::Relaxed));
        let hints = FileHints::open(&self.hints.path().join(file), SystemTime::now()).await.unwrap();
        let degradations = [("target".into(), how)].into();
        let options = Options { degradations, hints: Some(Arc::new(hints)), belongings: false, ..options };
        let copier = Copier::new(options, CancellationToken::new());
        let outcome = copier.copy(job).await;
        copier.settle().await;
        outcome
    }

    fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    /// What was asked of source and target since it was last asked for.
    fn asked(&self) -> (Counts, Counts) {
        (self.source.take(), self.target.take())
    }

    /// The root and its children, whole, as the target has them.
    async fn arrived(&self, reference: &Reference) -> (Manifest, Vec<Manifest>) {
        let repository = self.target.repository(&Scope::Hosted, &name("a"));
        let root = repository.manifest(reference).await.unwrap();
        let mut children = Vec::new();
        for child in root.children() {
            children.push(repository.manifest(&Reference::Digest(child.digest)).await.unwrap());
        }
        let found = verify(&*repository, reference).await.unwrap();
        assert_eq!(found.manifests.len(), children.len() + 1);
        self.target.take();
        (root, children)
    }
}

/// The platforms of an image, without its attestations.
fn platforms(image: &Image) -> impl Iterator<Item = &Manifest> {
    let entries = image.root.children().iter().filter(|entry| !ferry_oci::rewrite::is_attestation(entry));
    entries.map(|entry| image.manifests.iter().find(|manifest| manifest.digest() == entry.digest).unwrap())
}

fn resolved_only() -> Counts {
    Counts { resolve: 1, ..Counts::default() }
}

#[track_caller]
fn copied(outcome: &Outcome) -> (Digest, Figures) {
    match outcome {
        Outcome::Copied { digest, figures } => (*digest, *figures),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unchanged(outcome: &Outcome) -> Digest {
    match outcome {
        Outcome::Unchanged { digest } => *digest,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failed(outcome: &Outcome) -> (Kind, Option<Side>, String) {
    match outcome {
        Outcome::Failed { error, .. } => (error.kind(), error.side(), error.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_arrives_in_dockers_types_without_attestations() {
    let image = image(MediaTypes::Oci).attestations().build();
    let pair = Pair::with(&image).await;
    let (kind, side, said) = failed(&pair.run(Degradations::NONE).await);
    assert_eq!((kind, side), (Kind::Invalid, Some(Side::Target)));
    assert!(said.contains("fail to parse 'manifest.json'"), "{said}");
    pair.asked();

    let outcome = pair.run(swr()).await;
    let (digest, figures) = copied(&outcome);
    let degraded = outcome.degraded().unwrap();
    assert_eq!((degraded.original, degraded.applied), (image.root.digest(), swr()));
    assert_ne!(digest, image.root.digest());
    assert_eq!((figures.manifests, figures.moved + figures.present), (3, 5 + 1), "nothing of attestations");
    let (source, _) = pair.asked();
    assert_eq!((source.manifest, source.resolve), (3, 0), "each manifest once, attestations not at all");

    let (root, children) = pair.arrived(&Reference::Tag(tag())).await;
    assert_eq!((root.digest(), root.media_type()), (digest, media_type::DOCKER_LIST));
    assert_eq!(children.len(), 2);
    for (manifest, old) in children.iter().zip(platforms(&image)) {
        assert_eq!(manifest.media_type(), media_type::DOCKER_MANIFEST);
        let digests = |m: &Manifest| m.blobs().iter().map(|blob| blob.digest).collect::<Vec<_>>();
        assert_eq!(digests(manifest), digests(old), "the blobs are the same");
    }
    for (new, old) in root.children().iter().zip(image.root.children()) {
        assert_eq!(new.platform, old.platform);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_two_requests_where_it_is_remembered() {
    let pair = Pair::with(&image(MediaTypes::Oci).attestations().build()).await;
    let (digest, _) = copied(&pair.run(swr()).await);
    pair.asked();
    for _ in 0..2 {
        assert_eq!(unchanged(&pair.run(swr()).await), digest);
        assert_eq!(pair.asked(), (resolved_only(), resolved_only()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_reads_manifests_only_where_it_is_not() {
    let pair = Pair::with(&image(MediaTypes::Oci).attestations().build()).await;
    let (digest, _) = copied(&pair.run(swr()).await);
    pair.asked();
    pair.forget();
    assert_eq!(unchanged(&pair.run(swr()).await), digest);
    let (source, target) = pair.asked();
    assert_eq!(source, Counts { resolve: 1, manifest: 3, ..Counts::default() });
    assert_eq!(target, resolved_only());
    assert_eq!(unchanged(&pair.run(swr()).await), digest);
    assert_eq!(pair.asked(), (resolved_only(), resolved_only()), "and then it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_tag_is_found_under_what_it_became() {
    let image = image(MediaTypes::Oci).build();
    let pair = Pair::with(&image).await;
    let run = || pair.run_job(pair.untagged(&image), swr(), Options::default());
    let (digest, _) = copied(&run().await);
    pair.arrived(&Reference::Digest(digest)).await;
    pair.asked();
    assert_eq!(unchanged(&run().await), digest);
    assert_eq!(pair.asked(), (Counts::default(), resolved_only()));
    pair.forget();
    assert_eq!(unchanged(&run().await), digest);
    let (source, target) = pair.asked();
    assert_eq!(source, Counts { manifest: 3, ..Counts::default() });
    assert_eq!(target, Counts { resolve: 2, ..Counts::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_no_change_keeps_its_bytes() {
    let image = image(MediaTypes::Docker).build();
    let pair = Pair::with(&image).await;
    let outcome = pair.run(swr()).await;
    assert_eq!((copied(&outcome).0, outcome.degraded()), (image.root.digest(), None));
    assert_eq!(pair.arrived(&Reference::Tag(tag())).await.0.bytes(), image.root.bytes());
    pair.asked();
    pair.forget();
    assert_eq!(unchanged(&pair.run(swr()).await), image.root.digest());
    assert_eq!(pair.asked(), (resolved_only(), resolved_only()));
}

#[tokio::test(flavor = "multi_thread")]
async fn stripping_alone_leaves_platforms_as_they_are() {
    let image = image(MediaTypes::Docker).attestations().build();
    let pair = Pair::with(&image).await;
    let strip = Degradations::from(Degradation::StripAttestations);
    let outcome = pair.run(strip).await;
    assert_eq!(outcome.degraded().unwrap().applied, strip);
    let (_, children) = pair.arrived(&Reference::Tag(tag())).await;
    assert_eq!(children.len(), 2);
    for (manifest, old) in children.iter().zip(platforms(&image)) {
        assert_eq!(manifest.bytes(), old.bytes());
    }
    pair.asked();
    pair.forget();
    unchanged(&pair.run(strip).await);
    assert_eq!(
        pair.asked().0,
        Counts { resolve: 1, manifest: 1, ..Counts::default() },
        "the index says it all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_image_replaces_the_old_one() {
    let pair = Pair::with(&image(MediaTypes::Oci).build()).await;
    let (old, _) = copied(&pair.run(swr()).await);
    let newer = image(MediaTypes::Oci).platform("linux/s390x", [Layer::random(4, 1000)]).build();
    pair.push(&newer).await;
    let outcome = pair.run(swr()).await;
    let (new, figures) = copied(&outcome);
    assert_ne!(new, old);
    assert_eq!((figures.moved, figures.manifests), (2, 2), "one layer, one configuration, and the list");
    assert_eq!(outcome.degraded().unwrap().original, newer.root.digest());
    assert_eq!(pair.arrived(&Reference::Tag(tag())).await.0.digest(), new);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_expressed_is_named_before_anything_moves() {
    let subject = image(MediaTypes::Oci).build_single();
    let pair = Pair::with(&Image::artifact(&subject.root, "application/vnd.example", "{}")).await;
    let (kind, side, said) = failed(&pair.run(swr()).await);
    assert_eq!((kind, side), (Kind::Invalid, Some(Side::Target)));
    assert!(said.contains("artifact (application/vnd.example)"), "{said}");
    assert_eq!(pair.asked(), (Counts { manifest: 1, ..Counts::default() }, resolved_only()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recheck_asks_for_everything_again() {
    let pair = Pair::with(&image(MediaTypes::Oci).build()).await;
    let (digest, _) = copied(&pair.run(swr()).await);
    pair.asked();
    let outcome = pair.run_job(pair.job(), swr(), Options { recheck: true, ..Options::default() }).await;
    let (again, figures) = copied(&outcome);
    assert_eq!((again, figures.moved, figures.manifests), (digest, 0, 3));
    assert_eq!(
        (pair.asked().1.stat, outcome.degraded().unwrap().applied),
        (5, Degradation::DockerTypes.into())
    );
}
