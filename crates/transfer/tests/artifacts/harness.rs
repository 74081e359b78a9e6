use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, fallback_tag};
use ferry_store::{
    Blob, ByteRange, CountingStore, Counts, MemoryStore, Page, PageRequest, Repository, RepositoryEntry,
    RepositoryMut, Resolved, Result, Scope, Store, TagEntry,
};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_transfer::{Copier, Figures, Job, Options, Outcome, Place, Retry};
use tokio_util::sync::CancellationToken;

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// The tag that cosign gives to what belongs to `subject`.
pub fn cosign(subject: &Manifest, suffix: &str) -> Tag {
    tag(&format!("{}.{suffix}", fallback_tag(&subject.digest())))
}

/// An index of two platforms.
pub fn image() -> ImageBuilder {
    ImageBuilder::new(MediaTypes::Oci)
        .shared([Layer::random(1, 1000)])
        .platform("linux/amd64", [Layer::random(2, 1000)])
        .platform("linux/arm64", [Layer::random(3, 1000)])
}

/// Something that refers to `subject`.
pub fn artifact(subject: &Manifest, text: &str) -> Image {
    Image::artifact(subject, "application/vnd.example.signature", Bytes::from(text.to_owned()))
}

/// What cosign signs with: an image manifest without a subject.
pub fn signature(text: &str) -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::of_files(&[("signature", text.as_bytes())])])
        .build_single()
}

pub fn writable(store: &dyn Store, repository: &str) -> Arc<dyn RepositoryMut> {
    store.writable(&Scope::Hosted, &name(repository)).unwrap()
}

pub async fn push(store: &dyn Store, image: &Image, as_tag: Option<&Tag>) {
    image.push_to(&*writable(store, "source"), as_tag).await.unwrap();
}

pub fn quick() -> Options {
    let (first, longest) = (Duration::from_millis(1), Duration::from_millis(5));
    let retry = Retry { unavailable: 3, stalled: 3, limited: 3, first, longest, ..Retry::default() };
    Options { retry, ..Options::default() }
}

pub fn copier() -> Copier {
    Copier::new(quick(), CancellationToken::new())
}

/// A source and a target that count.
pub struct Pair {
    pub source: Arc<CountingStore>,
    pub target: Arc<CountingStore>,
}

impl Pair {
    pub fn between(source: Arc<dyn Store>, target: Arc<dyn Store>) -> Self {
        Self { source: Arc::new(CountingStore::new(source)), target: Arc::new(CountingStore::new(target)) }
    }

    /// Two stores in memory, the first with `image` under `v1`.
    pub async fn with(image: &Image) -> Self {
        let pair = Self::between(Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
        push(&*pair.source, image, Some(&tag("v1"))).await;
        pair.asked();
        pair
    }

    pub async fn push(&self, image: &Image, as_tag: Option<&Tag>) {
        push(&*self.source, image, as_tag).await;
        self.asked();
    }

    pub fn job(&self) -> Job {
        self.job_to("v1", "a")
    }

    pub fn job_to(&self, as_tag: &str, repository: &str) -> Job {
        let place = |id: &str, store: &Arc<CountingStore>, repository: &str| Place {
            id: id.into(),
            store: Arc::clone(store) as _,
            repository: name(repository),
        };
        Job {
            source: place("source", &self.source, "source"),
            reference: Reference::Tag(tag(as_tag)),
            target: place("target", &self.target, repository),
            tag: Some(tag(as_tag)),
            platforms: None,
        }
    }

    /// A run of its own.
    pub async fn copy(&self) -> Outcome {
        copier().copy(self.job()).await
    }

    /// What was asked of source and target since it was last asked for.
    pub fn asked(&self) -> (Counts, Counts) {
        (self.source.take(), self.target.take())
    }

    /// Whether the target has everything of `image` under `reference`, and has it as a referrer of what it names.
    pub async fn has(&self, reference: &Reference, image: &Image) -> bool {
        let repository = self.target.repository(&Scope::Hosted, &name("a"));
        let Ok(found) = verify(&*repository, reference).await else { return false };
        let listed = match image.root.subject() {
            None => true,
            Some(subject) => {
                let page = repository.referrers(&subject.digest, None, PageRequest::default()).await.unwrap();
                page.items.iter().any(|item| item.digest == image.root.digest())
            }
        };
        self.target.take();
        listed && found.blobs.len() == image.blobs.len() && found.manifests.contains_key(&image.root.digest())
    }

    pub async fn has_referrer(&self, image: &Image) -> bool {
        self.has(&Reference::Digest(image.root.digest()), image).await
    }

    pub async fn has_tag(&self, tag: &Tag, image: &Image) -> bool {
        self.has(&Reference::Tag(tag.clone()), image).await
    }
}

/// What wrote something, if anything did.
pub fn writes(counts: Counts) -> u64 {
    counts.begin
        + counts.resume
        + counts.put_manifest
        + counts.delete_manifest
        + counts.delete_blob
        + counts.write
        + counts.commit
}

#[track_caller]
pub fn copied(outcome: Outcome) -> Figures {
    match outcome {
        Outcome::Copied { figures, .. } => figures,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn unchanged(outcome: Outcome) -> Digest {
    match outcome {
        Outcome::Unchanged { digest } => digest,
        other => panic!("{other:?}"),
    }
}

/// Pages of one, and lists of referrers as the test wants them.
pub struct Bent {
    pub inner: Arc<dyn Store>,
    pub lies: HashMap<Digest, Vec<Descriptor>>,
}

struct BentRepository {
    inner: Arc<dyn Repository>,
    lies: HashMap<Digest, Vec<Descriptor>>,
}

#[async_trait]
impl Store for Bent {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        Arc::new(BentRepository { inner: self.inner.repository(scope, name), lies: self.lies.clone() })
    }

    fn writable(&self, _: &Scope, _: &Name) -> Option<Arc<dyn RepositoryMut>> {
        None
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.inner.repositories(prefix, page).await
    }
}

#[async_trait]
impl Repository for BentRepository {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.inner.resolve(reference).await
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.inner.manifest(reference).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.stat(digest).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        self.inner.blob(digest, range).await
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        self.inner.tags(PageRequest { limit: Some(1), ..page }).await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        if let Some(lie) = self.lies.get(subject) {
            return Ok(Page::new(lie.clone(), None));
        }
        self.inner.referrers(subject, artifact_type, PageRequest { limit: Some(1), ..page }).await
    }
}
