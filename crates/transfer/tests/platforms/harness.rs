use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, media_type};
use ferry_policy::degrade::Degradations;
use ferry_policy::platforms::{Mode, Selection};
use ferry_storage::FileHints;
use ferry_store::{CountingStore, Counts, Kind, MemoryStore, RepositoryMut, Scope, Side, Store};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_transfer::{Copier, Degraded, Figures, Job, Options, Outcome, Place};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn tag() -> Tag {
    "v1".parse().unwrap()
}

pub(crate) fn select(patterns: &[&str], mode: Mode) -> Option<Selection> {
    Some(Selection::new(patterns.iter().map(|text| text.parse().unwrap()), mode).unwrap())
}

/// Three platforms that share a layer, each with an attestation.
pub(crate) fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .shared([Layer::random(1, 1000)])
        .platform("linux/amd64", [Layer::random(2, 1000)])
        .platform("linux/arm64/v8", [Layer::random(3, 1000)])
        .platform("linux/s390x", [Layer::random(4, 1000)])
        .attestations()
        .build()
}

/// The image of one platform, without index.
pub(crate) fn alone(platform: &str) -> Image {
    ImageBuilder::new(MediaTypes::Oci).platform(platform, [Layer::random(9, 1000)]).build_single()
}

/// An index of these entries, with everything of these images.
pub(crate) fn index_of(images: &[&Image], entries: &[Value]) -> Image {
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    let root = Manifest::parse(None, Bytes::from(index.to_string())).unwrap();
    let mut whole = Image { blobs: Default::default(), manifests: Vec::new(), root };
    for image in images {
        whole.blobs.extend(image.blobs.clone());
        whole.manifests.extend(image.manifests.iter().cloned());
    }
    whole.manifests.push(whole.root.clone());
    whole
}

/// An entry that names no platform.
pub(crate) fn entry(image: &Image) -> Value {
    let root = &image.root;
    json!(Descriptor::new(root.media_type(), root.digest(), root.bytes().len() as u64))
}

/// The manifests below the root that `keep` is true for, by their place.
pub(crate) fn kept(image: &Image, keep: &[bool]) -> Manifest {
    ferry_oci::rewrite::retain(&image.root, keep).unwrap()
}

/// A source, a target, and what runs remember.
pub(crate) struct Pair {
    pub(crate) source: Arc<CountingStore>,
    pub(crate) target: Arc<CountingStore>,
    hints: TempDir,
    /// How often everything was forgotten.
    forgotten: AtomicUsize,
}

impl Pair {
    /// The target is as strict as `target`.
    pub(crate) async fn to(target: impl Store + 'static, image: &Image) -> Self {
        let source = Arc::new(CountingStore::new(Arc::new(MemoryStore::new())));
        let target = Arc::new(CountingStore::new(Arc::new(target)));
        let pair = Self { source, target, hints: TempDir::new().unwrap(), forgotten: AtomicUsize::new(0) };
        let repository = pair.source.writable(&Scope::Hosted, &name("source")).unwrap();
        image.push_to(&*repository, Some(&tag())).await.unwrap();
        pair.source.take();
        pair
    }

    pub(crate) async fn with(image: &Image) -> Self {
        Self::to(MemoryStore::new(), image).await
    }

    pub(crate) fn job(&self, platforms: Option<Selection>) -> Job {
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
            platforms,
        }
    }

    /// A run of its own, with what earlier ones remember.
    pub(crate) async fn run(&self, platforms: Option<Selection>) -> Outcome {
        self.run_job(self.job(platforms), Degradations::NONE, Options::default()).await
    }

    pub(crate) async fn run_job(&self, job: Job, how: Degradations, options: Options) -> Outcome {
        let file = format!("seen-{}.db", self.forgotten.load(Ordering::Relaxed));
        let hints = FileHints::open(&self.hints.path().join(file), SystemTime::now()).await.unwrap();
        let degradations = [("target".into(), how)].into();
        // What belongs to an image is a matter of other tests, and costs requests.
        let options = Options { degradations, hints: Some(Arc::new(hints)), belongings: false, ..options };
        let copier = Copier::new(options, CancellationToken::new());
        let outcome = copier.copy(job).await;
        copier.settle().await;
        outcome
    }

    /// Later runs remember nothing of earlier ones. The file of those may still be about to be closed.
    pub(crate) fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    /// What was asked of source and target since it was last asked for.
    pub(crate) fn asked(&self) -> (Counts, Counts) {
        (self.source.take(), self.target.take())
    }

    pub(crate) fn there(&self) -> Arc<dyn RepositoryMut> {
        self.target.writable(&Scope::Hosted, &name("a")).unwrap()
    }

    /// What the target's tag points at, after every byte below it was verified.
    pub(crate) async fn arrived(&self) -> Manifest {
        let repository = self.there();
        verify(&*repository, &Reference::Tag(tag())).await.unwrap();
        let root = repository.manifest(&Reference::Tag(tag())).await.unwrap();
        self.target.take();
        root
    }

    /// Whether the target has the manifest, and if so, whole.
    pub(crate) async fn has(&self, digest: Digest) -> bool {
        let found = verify(&*self.there(), &Reference::Digest(digest)).await;
        self.target.take();
        match found {
            Ok(_) => true,
            Err(error) if error.kind() == Kind::NotFound => false,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn resolved(times: u64) -> Counts {
    Counts { resolve: times, ..Counts::default() }
}

#[track_caller]
pub(crate) fn copied(outcome: &Outcome) -> (Digest, Figures) {
    match outcome {
        Outcome::Copied { digest, figures } => (*digest, *figures),
        other => panic!("{other:?}"),
    }
}

/// What was reported of an image that was copied: what it was, and what was done.
#[track_caller]
pub(crate) fn changed(outcome: &Outcome) -> (Digest, String) {
    let Degraded { original, applied } = outcome.degraded().unwrap();
    (*original, applied.to_string())
}

#[track_caller]
pub(crate) fn unchanged(outcome: &Outcome) -> Digest {
    match outcome {
        Outcome::Unchanged { digest } => *digest,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn failed(outcome: &Outcome) -> (Kind, Option<Side>, String) {
    match outcome {
        Outcome::Failed { error, .. } => (error.kind(), error.side(), error.to_string()),
        other => panic!("{other:?}"),
    }
}
