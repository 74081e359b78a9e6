//! Images that are made to cost more than they are, or to be taken for others.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, media_type};
use ferry_policy::degrade::{Degradation, Degradations};
use ferry_storage::{FileStaging, StagingOptions};
use ferry_store::{
    Begun, CountingStore, Expect, Kind, MemoryStore, Mount, RepositoryMut, Scope, Side, Store,
};
use ferry_transfer::{Copier, Job, Options, Outcome, Place};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn tag() -> Tag {
    "v1".parse().unwrap()
}

/// A source and a target that count.
struct Pair {
    source: Arc<CountingStore>,
    target: Arc<CountingStore>,
    repository: Arc<dyn RepositoryMut>,
}

fn describe(kind: &str, bytes: &[u8]) -> Value {
    json!(Descriptor::new(kind, Digest::sha256(bytes), bytes.len() as u64))
}

impl Pair {
    fn new() -> Self {
        let counting = || Arc::new(CountingStore::new(Arc::new(MemoryStore::new())));
        let source = counting();
        let repository = source.writable(&Scope::Hosted, &name("source")).unwrap();
        Self { repository, source, target: counting() }
    }

    async fn blob(&self, kind: &str, bytes: &Bytes) -> Value {
        let digest = Digest::sha256(bytes);
        let expect = Expect { digest: Some(digest), size: Some(bytes.len() as u64), mount: Mount::No };
        if let Begun::Upload(mut upload) = self.repository.begin(expect).await.unwrap() {
            upload.write(bytes.clone()).await.unwrap();
            upload.commit(&digest).await.unwrap();
        }
        describe(kind, bytes)
    }

    async fn manifest(&self, document: Value) -> (Value, Manifest) {
        let manifest = Manifest::parse(None, Bytes::from(document.to_string())).unwrap();
        self.repository.put_manifest(&manifest, Some(&tag())).await.unwrap();
        (describe(manifest.media_type(), manifest.bytes()), manifest)
    }

    /// An image with these layers, which differs from others by its number.
    async fn image(&self, number: usize, layers: &[Value]) -> (Value, Manifest) {
        let config = self.blob(media_type::OCI_CONFIG, &Bytes::from_static(b"{}")).await;
        let document = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
            "annotations": {"number": number.to_string()},
        });
        self.manifest(document).await
    }

    async fn index(&self, number: usize, children: &[Value]) -> Value {
        let document = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children,
            "annotations": {"number": number.to_string()},
        });
        self.manifest(document).await.0
    }

    /// Copies what the tag was last put on.
    async fn copy(&self, options: Options) -> Outcome {
        self.source.take();
        self.target.take();
        let place = |id: &str, store: &Arc<CountingStore>| Place {
            id: id.into(),
            store: Arc::clone(store) as _,
            repository: name(id),
        };
        let job = Job {
            source: place("source", &self.source),
            reference: Reference::Tag(tag()),
            target: place("target", &self.target),
            tag: Some(tag()),
            platforms: None,
        };
        let copier = Copier::new(options, CancellationToken::new());
        let outcome = copier.copy(job).await;
        copier.settle().await;
        outcome
    }

    /// Nothing that can be asked for by its tag is there.
    async fn assert_no_tag(&self) {
        let target = self.target.repository(&Scope::Hosted, &name("target"));
        assert_eq!(target.resolve(&Reference::Tag(tag())).await.unwrap_err().kind(), Kind::NotFound);
    }
}

/// Every index has to be looked at before anything moves.
fn rewriting() -> Options {
    let how = Degradations::NONE.with(Degradation::StripAttestations);
    Options { degradations: [("target".into(), how)].into(), ..Options::default() }
}

#[track_caller]
fn failed(outcome: Outcome) -> (Kind, Option<Side>) {
    match outcome {
        Outcome::Failed { error, .. } => (error.kind(), error.side()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_copied(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Copied { .. }), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_too_many_manifests_costs_one_request() {
    let pair = Pair::new();
    let mut children = Vec::new();
    for number in 0..5_000 {
        children.push(pair.image(number, &[]).await.0);
    }
    pair.index(0, &children).await;
    for options in [Options::default(), rewriting()] {
        assert_eq!(failed(pair.copy(options).await), (Kind::Invalid, Some(Side::Source)));
        assert_eq!((pair.source.counts().manifest, pair.source.counts().blob), (1, 0));
        assert_eq!(pair.target.counts().put_manifest, 0);
    }
    pair.assert_no_tag().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_indexes_of_many_manifests_are_given_up() {
    let pair = Pair::new();
    let mut indexes = Vec::new();
    for number in 0..6 {
        let mut children = Vec::new();
        for child in 0..1_000 {
            children.push(pair.image(number * 1_000 + child, &[]).await.0);
        }
        indexes.push(pair.index(number, &children).await);
    }
    pair.index(99, &indexes).await;
    assert_eq!(failed(pair.copy(Options::default()).await), (Kind::Invalid, Some(Side::Source)));
    assert!(pair.source.counts().manifest <= 5_100, "{}", pair.source.counts().manifest);
    pair.assert_no_tag().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_in_an_index_and_so_on_is_given_up() {
    let pair = Pair::new();
    let mut inner = pair.image(0, &[]).await.0;
    for depth in 0..20 {
        inner = pair.index(depth, &[inner]).await;
    }
    for options in [Options::default(), rewriting()] {
        assert_eq!(failed(pair.copy(options).await), (Kind::Invalid, Some(Side::Source)));
        assert!(pair.source.counts().manifest <= 6, "{}", pair.source.counts().manifest);
    }
    pair.assert_no_tag().await;
}

/// Three levels of a thousand entries each would be a thousand million images, were they not all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_again_and_again_is_fetched_once() {
    let pair = Pair::new();
    let layer = pair.blob(media_type::OCI_LAYER, &Bytes::from_static(b"layer")).await;
    let mut inner = pair.image(0, &vec![layer; 1000]).await.0;
    for depth in 0..3 {
        inner = pair.index(depth, &vec![inner; 1000]).await;
    }
    assert_copied(&pair.copy(Options::default()).await);
    let (asked, told) = (pair.source.counts(), pair.target.counts());
    assert_eq!((asked.manifest, asked.blob), (4, 2));
    assert_eq!((told.put_manifest, told.begin), (4, 2));
}

/// Each level names all of the next one, so that there are many ways to each manifest.
#[tokio::test(flavor = "multi_thread")]
async fn many_ways_to_a_manifest_are_one() {
    for options in [Options::default(), rewriting()] {
        let pair = Pair::new();
        let mut level = vec![pair.image(0, &[]).await.0];
        for _ in 0..3 {
            let mut above = Vec::new();
            for number in 0..40 {
                above.push(pair.index(number, &level).await);
            }
            level = above;
        }
        pair.index(0, &level).await;
        assert_copied(&pair.copy(options).await);
        assert_eq!(pair.source.counts().manifest, 1 + 3 * 40 + 1);
        assert_eq!(pair.target.counts().put_manifest, 1 + 3 * 40 + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_arrive_as_a_manifest_and_as_a_blob() {
    for reversed in [false, true] {
        let pair = Pair::new();
        let (plain, manifest) = pair.image(1, &[]).await;
        let as_layer = pair.blob(media_type::OCI_LAYER, manifest.bytes()).await;
        let (holder, _) = pair.image(2, &[as_layer]).await;
        let children = if reversed { [holder, plain] } else { [plain, holder] };
        pair.index(0, &children).await;
        assert_copied(&pair.copy(Options::default()).await);
        let told = pair.target.counts();
        assert_eq!((told.begin, told.put_manifest), (2, 3), "the configuration and the layer; all manifests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_size_that_is_a_lie_reserves_and_moves_nothing() {
    let directory = tempfile::TempDir::new().unwrap();
    let staging = FileStaging::open(directory.path(), StagingOptions::new(SystemTime::now())).await.unwrap();
    for size in [0, 1, 6, 1 << 40, 1 << 62, u64::MAX] {
        let pair = Pair::new();
        let mut layer = pair.blob(media_type::OCI_LAYER, &Bytes::from_static(b"layer")).await;
        layer["size"] = json!(size);
        pair.image(0, &[layer]).await;
        let staged = Options { staging: Some(staging.clone()), stage_from: 1, ..Options::default() };
        for options in [Options::default(), staged] {
            assert_eq!(
                failed(pair.copy(options).await),
                (Kind::DigestMismatch, Some(Side::Source)),
                "{size}"
            );
            pair.assert_no_tag().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_says_something_else_than_its_manifest_is_refused() {
    for (key, value) in [
        ("size", json!(1)),
        ("size", json!(u64::MAX)),
        ("mediaType", json!(media_type::OCI_INDEX)),
        ("mediaType", json!(media_type::DOCKER_MANIFEST)),
    ] {
        let pair = Pair::new();
        let mut child = pair.image(0, &[]).await.0;
        child[key] = value;
        pair.index(0, &[child]).await;
        assert_eq!(failed(pair.copy(Options::default()).await), (Kind::Invalid, Some(Side::Source)));
        pair.assert_no_tag().await;
    }
}
