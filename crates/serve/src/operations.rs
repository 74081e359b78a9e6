//! What a mirror lets those do who look after it, as a port that the program implements.

use std::time::SystemTime;

use async_trait::async_trait;
use ferry_oci::{Digest, ImageReference, Registry, Tag};
use ferry_policy::platforms::Selection;
use ferry_store::{Page, PageRequest, Result};
use serde_json::Value;

use crate::figures::Figures;

/// What a mirror lets those do who look after it. An image is named by the registry that it comes from; one without tag and
/// digest is `latest`.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// What is shown of the mirror.
    async fn figures(&self) -> Figures;

    /// The same and more for Prometheus, in the text format of OpenMetrics 1.0.
    async fn metrics(&self) -> String;

    /// Whether requests should be sent here: not while it is stopping, or if the storage cannot be written.
    async fn ready(&self) -> Result<()>;

    /// Begins to fetch images, and returns at once. A registry that is not mirrored is told in the answer.
    async fn warm(&self, order: WarmOrder) -> Result<Warming>;

    /// How far an order is; `None` if it is not known, or over for long.
    async fn warming(&self, id: u64) -> Option<Warming>;

    /// What is in the cache, of one registry if it is given.
    async fn cached(&self, registry: Option<&Registry>, page: PageRequest) -> Result<Page<CachedImage>>;

    /// Removes an image from the cache; how many bytes that gave free.
    async fn discard(&self, image: &ImageReference) -> Result<u64>;

    /// Keeps an image from being evicted, whether it is there yet or not. False if it was pinned.
    async fn pin(&self, image: &ImageReference) -> Result<bool>;

    /// Takes a pin away. False if there was none.
    async fn unpin(&self, image: &ImageReference) -> Result<bool>;

    /// What is pinned.
    async fn pins(&self) -> Result<Vec<ImageReference>>;

    /// Reads the configuration again and goes by it; what of it needs a restart is told. If it is wrong, all stays as it was.
    async fn reload(&self) -> Result<Vec<String>>;

    /// Who may use the registry, as it counts now, in the form in which it is configured. Nothing secret is in it.
    /// [`Kind::Denied`](ferry_store::Kind::Denied) if nothing was ever said about that.
    async fn access(&self) -> Result<Value>;

    /// Lets other rules count until the configuration is read again; answers with what counts then. If `text` is wrong all
    /// stays as it was.
    async fn replace_access(&self, text: String) -> Result<Value>;
}

/// Images to fetch.
#[derive(Debug, Clone)]
pub struct WarmOrder {
    /// Which.
    pub images: Vec<ImageReference>,
    /// Only these platforms of them.
    pub platforms: Option<Selection>,
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warming {
    /// Its number, by which it is asked for.
    pub id: u64,
    /// Its images, in the order in which they were named.
    pub images: Vec<WarmImage>,
}

impl Warming {
    /// Nothing more will happen.
    pub fn is_over(&self) -> bool {
        self.images.iter().all(|image| matches!(image.state, WarmState::Done | WarmState::Failed(_)))
    }
}

/// An image of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmImage {
    /// Which.
    pub image: ImageReference,
    /// How far it is.
    pub state: WarmState,
    /// Bytes of it that are there, whether they were fetched for it or not.
    pub bytes: u64,
}

/// How far an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmState {
    /// Others come first.
    Waiting,
    /// It is being fetched.
    Running,
    /// It is there.
    Done,
    /// It is not, for this reason.
    Failed(String),
}

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedImage {
    /// The registry that it comes from; `None` if it was pushed here.
    pub registry: Option<Registry>,
    /// The repository there.
    pub repository: ferry_oci::Name,
    /// The tag, if it has one.
    pub tag: Option<Tag>,
    /// Its manifest.
    pub digest: Digest,
    /// Bytes of it that are here; what images share counts for each of them.
    pub bytes: u64,
    /// When it was used last, to the hour.
    pub used: SystemTime,
    /// When the upstream last confirmed the tag.
    pub confirmed: Option<SystemTime>,
    /// It is never evicted.
    pub pinned: bool,
}
