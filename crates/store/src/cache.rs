use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Tag};

use crate::{Partial, Repository, Result, Scope, Store};

/// A store that keeps what was fetched from upstreams.
pub trait Cache: Store {
    /// What is kept of a repository of an upstream; no request is made. As everywhere content is visible through it only
    /// if it was put into this very repository and scope.
    fn cached(&self, scope: &Scope, name: &Name) -> Arc<dyn CachedRepository>;
}

/// A tag as a cache keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedTag {
    /// The manifest that it points at, which may be damaged or gone by the time it is read.
    pub descriptor: Descriptor,
    /// When the upstream last said so, in whole seconds; when it was pushed if it did not come from the upstream.
    pub confirmed: SystemTime,
    /// Since when the upstream refuses to say so, in whole seconds.
    pub withdrawn: Option<SystemTime>,
}

/// A page of a listing as a cache keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedListing {
    /// What it says, in the words of whoever keeps it.
    pub content: String,
    /// When the upstream last said so, in whole seconds.
    pub confirmed: SystemTime,
    /// Since when the upstream refuses to say so, in whole seconds.
    pub withdrawn: Option<SystemTime>,
}

/// What is kept of a repository of an upstream, and what a pull-through cache must know of it.
///
/// Whoever calls says what the upstream confirmed and when; nothing here asks it. All changes are durable when they return.
#[async_trait]
pub trait CachedRepository: Repository {
    /// What is known of a tag; `None` if nothing is.
    async fn tag(&self, tag: &Tag) -> Result<Option<CachedTag>>;

    /// Keeps a manifest, although what it names may not be here yet, and if given points a tag at it as confirmed at that
    /// time, at once.
    async fn keep(&self, manifest: &Manifest, tag: Option<(&Tag, SystemTime)>) -> Result<()>;

    /// The upstream said `at` this time that `tag` points at `digest`. False, and nothing happens, if that manifest is not
    /// here.
    async fn confirm(&self, tag: &Tag, digest: &Digest, at: SystemTime) -> Result<bool>;

    /// The upstream refused the tag at this time. The first such time since it was confirmed stays.
    async fn withdraw(&self, tag: &Tag, at: SystemTime) -> Result<()>;

    /// Forgets a tag, if it is known.
    async fn forget(&self, tag: &Tag) -> Result<()>;

    /// The page that was kept under this text; `None` if none was, or it had to give way to others: a cache keeps so many.
    async fn listing(&self, of: &str) -> Result<Option<CachedListing>>;

    /// Keeps a page under this text in place of the one before; without one forgets that. A page that is too large is not
    /// kept.
    async fn keep_listing(&self, of: &str, listing: Option<&CachedListing>) -> Result<()>;

    /// Makes a blob of the sealed bytes of `partial`, without writing them again; its readers go on. Holds as well if it was
    /// adopted before. [`crate::Kind::Invalid`] if it is not sealed, or not in staging that belongs to this cache.
    async fn adopt(&self, digest: &Digest, partial: &dyn Partial) -> Result<()>;

    /// How many bytes of content are here, in whatever repository and scope, or in none: not to be shown to anybody, for a
    /// digest is no password. As many as it should have, unless the disk lost some.
    async fn held(&self, digest: &Digest) -> Result<Option<u64>>;

    /// Shows content that is here through this repository, because its upstream confirmed that it holds a blob of this
    /// digest and size. False, and nothing happens, if so many bytes of it are not here.
    async fn link(&self, digest: &Digest, size: u64) -> Result<bool>;
}
