//! A mirror: the storage in a directory, in front of an upstream in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ferry_oci::{Digest, Name, Reference, Tag};
use ferry_storage::Storage;
use ferry_store::{
    Begun, ByteRange, Cache, CountingStore, Counts, Expect, FaultyStore, Kind, MemoryStore, Mount, Operation,
    Repository, RepositoryMut, Result, Scope, Staging, Store,
};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes};
use ferry_transfer::{PullOptions, PullThrough, Retry};
use tempfile::TempDir;

use crate::link::Line;

pub const APP: &str = "team/app";

/// A clock that stands still until it is told to go on.
#[derive(Clone)]
pub struct Time(SystemTime, Arc<AtomicU64>);

impl Time {
    fn new() -> Self {
        // A whole second, since that is how the catalog counts.
        Self(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), Arc::default())
    }

    pub fn pass(&self, seconds: u64) {
        self.1.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn now(&self) -> SystemTime {
        self.0 + Duration::from_secs(self.1.load(Ordering::SeqCst))
    }
}

/// An upstream. What is asked is counted first, may then fail, and what comes goes over a line.
pub struct Upstream {
    pub counting: Arc<CountingStore>,
    pub faulty: Arc<FaultyStore>,
    pub line: Arc<Line>,
    pub memory: Arc<MemoryStore>,
}

impl Upstream {
    pub fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let faulty = Arc::new(FaultyStore::new(memory.clone()));
        let line = Arc::new(Line::new(faulty.clone()));
        Self { counting: Arc::new(CountingStore::new(line.clone())), faulty, line, memory }
    }

    pub fn writer(&self, repository: &str) -> Arc<dyn RepositoryMut> {
        self.memory.writable(&Scope::Hosted, &name(repository)).unwrap()
    }

    pub async fn push(&self, repository: &str, bytes: &Bytes) -> Digest {
        let digest = Digest::sha256(bytes);
        let expect = Expect { digest: Some(digest), size: None, mount: Mount::No };
        let Begun::Upload(mut upload) = self.writer(repository).begin(expect).await.unwrap() else {
            panic!("an upload was to be opened");
        };
        upload.write(bytes.clone()).await.unwrap();
        upload.commit(&digest).await.unwrap();
        digest
    }

    pub fn take(&self) -> Counts {
        self.counting.take()
    }

    /// The next call of this kind fails.
    pub fn fail(&self, operation: Operation, kind: Kind) {
        self.faulty.fail(operation, 1, kind);
    }
}

pub struct Mirror {
    pub directory: TempDir,
    pub storage: Arc<Storage>,
    pub upstream: Upstream,
    pub pull: Arc<PullThrough>,
    pub time: Time,
}

pub fn anonymous() -> Scope {
    Scope::Upstream { host: "upstream.example".to_owned(), account: None }
}

pub fn account() -> Scope {
    Scope::Upstream { host: "upstream.example".to_owned(), account: Some("team".to_owned()) }
}

pub fn quick() -> Retry {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(5));
    Retry { unavailable: 2, stalled: 2, limited: 2, first, longest, ..Retry::default() }
}

/// Options with a given clock and short patience.
pub async fn options(storage: &Arc<Storage>, upstream: Arc<dyn Store>, time: &Time) -> PullOptions {
    let staging: Arc<dyn Staging> = storage.staging(None).await.unwrap();
    let cache: Arc<dyn Cache> = storage.clone();
    let time = time.clone();
    PullOptions {
        now: Arc::new(move || time.now()),
        patience: Duration::from_millis(300),
        retry: quick(),
        ..PullOptions::new(upstream, cache, staging, anonymous())
    }
}

impl Mirror {
    pub async fn new() -> Self {
        Self::with(|options| options).await
    }

    pub async fn with(change: impl FnOnce(PullOptions) -> PullOptions) -> Self {
        let (directory, upstream, time) = (TempDir::new().unwrap(), Upstream::new(), Time::new());
        let storage = Storage::open(directory.path()).await.unwrap();
        let options = options(&storage, upstream.counting.clone(), &time).await;
        Self { directory, storage, upstream, pull: Arc::new(PullThrough::new(change(options))), time }
    }

    pub fn repository(&self, repository: &str) -> Arc<dyn Repository> {
        self.pull.repository(&Scope::Hosted, &name(repository))
    }

    pub fn app(&self) -> Arc<dyn Repository> {
        self.repository(APP)
    }

    /// A blob that the upstream has.
    pub async fn blob(&self, seed: u64, size: usize) -> (Digest, Bytes) {
        let bytes = Layer::random(seed, size).bytes().clone();
        (self.upstream.push(APP, &bytes).await, bytes)
    }

    /// An image that the upstream has under this tag.
    pub async fn image(&self, seed: u64, at: &str) -> Image {
        let image = image(seed);
        image.push_to(&*self.upstream.writer(APP), Some(&tag(at))).await.unwrap();
        image
    }

    /// Points a tag of the upstream at an image.
    pub async fn image_at(&self, image: &Image, at: &str) {
        image.push_to(&*self.upstream.writer(APP), Some(&tag(at))).await.unwrap();
    }

    /// Waits until nothing is on its way.
    pub async fn settle(&self) {
        settled(&self.pull).await;
    }

    /// Whether the bytes are in the cache, for anybody.
    pub async fn holds(&self, digest: &Digest) -> bool {
        self.storage.cached(&anonymous(), &name(APP)).held(digest).await.unwrap().is_some()
    }

    /// Whether a part of the blob is in staging.
    pub async fn stages(&self, digest: &Digest) -> bool {
        self.storage.staging(None).await.unwrap().staged(digest).await.unwrap().is_some()
    }
}

pub async fn settled(pull: &PullThrough) {
    while !pull.figures().flights.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn image(seed: u64) -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::random(seed, 30_000)])
        .platform("linux/arm64", [Layer::random(seed + 1, 30_000)])
        .build()
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub fn by_tag(text: &str) -> Reference {
    Reference::Tag(tag(text))
}

pub fn kind<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|error| error.kind())
}

pub async fn read(repository: &dyn Repository, digest: &Digest, range: ByteRange) -> Result<Bytes> {
    repository.blob(digest, range).await?.into_bytes().await
}

/// Waits for something that another task does.
pub async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
