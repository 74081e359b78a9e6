//! A store in front of an upstream that keeps what was asked for.

mod blobs;
mod figures;
mod flight;
mod follow;
mod lists;
mod manifests;
mod once;
mod primed;
mod recent;
mod repository;
mod silence;
mod stale;
mod tags;
mod tasks;
mod through;
mod warm;

pub use figures::{FlightFigures, PullFigures};
pub use warm::Warm;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag};
use ferry_store::{
    Cache, CachedRepository, Links, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut, Result,
    Scope, Staging, Store,
};
use tokio::sync::Semaphore;

use self::figures::Counters;
use self::flight::Flights;
use self::once::Once;
use self::recent::Recent;
use self::silence::Silence;
use self::tasks::Tasks;
use crate::lanes::Lanes;
use crate::reader::Origin;
use crate::retry::Retry;
use crate::spool::Spools;

/// How long a tag of a repository is true after its upstream confirmed it.
pub type Freshness = Arc<dyn Fn(&Name, &Tag) -> Duration + Send + Sync>;

/// How a [`PullThrough`] works.
#[derive(Clone)]
pub struct PullOptions {
    /// Where content comes from.
    pub upstream: Arc<dyn Store>,
    /// Where it is kept.
    pub cache: Arc<dyn Cache>,
    /// Under which it is kept: the upstream and the group of accounts that `upstream` asks with.
    pub scope: Scope,
    /// Where blobs are while they are fetched; the cache must be able to adopt them from there.
    pub staging: Arc<dyn Staging>,
    /// How long tags are true; a minute by default.
    pub freshness: Freshness,
    /// How long a page of a listing is true after the upstream gave it; a minute by default.
    pub lists: Arc<dyn Fn() -> Duration + Send + Sync>,
    /// Where blobs are that the upstream has elsewhere, if clients shall fetch them there and none of them be kept here.
    pub links: Option<Arc<dyn Links>>,
    /// The clock of all ages. By default that of the system.
    pub now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// How long a tag that the upstream refuses (not found, denied) is served all the same, if it was fetched anonymously;
    /// 7 days by default, zero for not at all.
    pub keep_withdrawn: Duration,
    /// How long whoever asks for a tag or a listing waits for the upstream if the cache has an older answer; 5 s by default,
    /// and a tenth of it when the upstream was silent the last time.
    pub patience: Duration,
    /// How long it is remembered that the upstream has no such content, and that it failed or was silent where the cache
    /// could answer instead; 5 s by default.
    pub remember: Duration,
    /// Connections that content is fetched over at once beside the first one of each blob; 8 by default.
    pub jobs: usize,
    /// How failures in the middle of a blob are tried again.
    pub retry: Retry,
}

impl PullOptions {
    /// The defaults.
    pub fn new(
        upstream: Arc<dyn Store>,
        cache: Arc<dyn Cache>,
        staging: Arc<dyn Staging>,
        scope: Scope,
    ) -> Self {
        Self {
            upstream,
            cache,
            scope,
            staging,
            freshness: Arc::new(|_, _| Duration::from_secs(60)),
            lists: Arc::new(|| Duration::from_secs(60)),
            links: None,
            now: Arc::new(SystemTime::now),
            keep_withdrawn: Duration::from_secs(7 * 24 * 60 * 60),
            patience: Duration::from_secs(5),
            remember: Duration::from_secs(5),
            jobs: 8,
            retry: Retry::default(),
        }
    }
}

/// A read-only store that answers from a cache, and fetches from its upstream what the cache lacks or what may have changed.
///
/// What one client asks for is asked once for all who want it at the same time, by a task that no client owns. The scope
/// that a repository is asked for with is ignored: everything is kept under, and shown from, that of the options. What it
/// costs of the upstream:
///
/// | asked for | in the cache | not in the cache |
/// | --- | --- | --- |
/// | manifest by digest, either way | nothing | one GET |
/// | manifest by tag, either way | nothing while it is fresh; else one HEAD, and one GET by digest if it has changed to something new | one GET by tag |
/// | size of a blob | nothing | nothing while it is fetched, else one HEAD |
/// | blob, any range | nothing | one GET for all readers of all ranges (more where several connections help, or who waits is far ahead); one HEAD instead if the content is here under another name, or one HEAD before it if a part of it was fetched earlier |
/// | page of tags or referrers | nothing while it is fresh; else as many as the upstream takes | the same |
///
/// If the upstream is silent, fails or asks for patience, tags and listings are answered from the cache as stale, whatever
/// their age. What it refuses of them is withdrawn: what was fetched anonymously is still served for a time, what an account fetched
/// is not. Content by digest does not change, and is not asked for again.
///
/// [`Repository::manifest`] does not tell how old the answer is; whoever wants to show that asks [`Repository::resolve`]
/// first and then for the manifest by digest, which is in the cache by then.
///
/// Blobs are handed on as they arrive, the last 16 KiB of each once its digest was verified: nobody gets a whole blob that is
/// wrong. Where neither staging nor the cache has room they are passed on without being kept; then a range that is not the
/// whole blob cannot be verified here.
pub struct PullThrough(Arc<Core>);

/// What all repositories share.
struct Core {
    options: PullOptions,
    lanes: Arc<Lanes>,
    slots: Arc<Semaphore>,
    spools: Spools,
    recent: Recent,
    manifests: Once<(Name, Reference), Found>,
    lists: Once<(Name, String), String>,
    silence: Silence,
    sizes: Once<(Name, Digest), Option<u64>>,
    flights: Arc<Flights>,
    counters: Counters,
    tasks: Tasks,
}

/// A manifest that the upstream told of.
#[derive(Clone)]
struct Found {
    descriptor: Descriptor,
    /// The manifest itself, if it was sent.
    manifest: Option<Manifest>,
}

impl Found {
    fn of(manifest: Manifest) -> Self {
        Self { descriptor: describe(&manifest), manifest: Some(manifest) }
    }
}

fn describe(manifest: &Manifest) -> Descriptor {
    Descriptor::new(manifest.media_type(), manifest.digest(), manifest.bytes().len() as u64)
}

/// One repository, as clients read it. Tasks have a copy of their own.
#[derive(Clone)]
struct Pulled {
    core: Arc<Core>,
    name: Name,
    upstream: Arc<dyn Repository>,
    cached: Arc<dyn CachedRepository>,
}

impl PullThrough {
    /// Nothing is asked for yet.
    pub fn new(options: PullOptions) -> Self {
        Self(Arc::new(Core {
            lanes: Lanes::new(options.jobs),
            slots: Arc::new(Semaphore::new(options.jobs)),
            spools: Spools::new(Some(Arc::clone(&options.staging)), 0),
            recent: Recent::new(options.remember),
            manifests: Once::default(),
            lists: Once::default(),
            silence: Silence::new(options.patience, options.remember),
            sizes: Once::default(),
            flights: Arc::default(),
            counters: Counters::default(),
            tasks: Tasks::default(),
            options,
        }))
    }

    /// What was asked and what is going on.
    pub fn figures(&self) -> PullFigures {
        let core = &self.0;
        core.counters.figures(core.lanes.bytes(), core.flights.figures())
    }

    fn pulled(&self, name: &Name) -> Pulled {
        let options = &self.0.options;
        Pulled {
            core: Arc::clone(&self.0),
            name: name.clone(),
            upstream: options.upstream.repository(&Scope::Hosted, name),
            cached: options.cache.cached(&options.scope, name),
        }
    }

    /// Ends everything that is going on, and waits for it; what was fetched of unfinished blobs stays in staging. Those who
    /// still read them get an error, and whoever asks for something new as well.
    pub async fn stop(&self) {
        self.0.tasks.stop().await;
    }
}

impl Core {
    fn now(&self) -> SystemTime {
        (self.options.now)()
    }

    fn origin(&self, repository: Arc<dyn Repository>) -> Origin {
        Origin { repository, lanes: Arc::clone(&self.lanes), retry: self.options.retry }
    }
}

#[async_trait]
impl Store for PullThrough {
    fn repository(&self, _: &Scope, name: &Name) -> Arc<dyn Repository> {
        Arc::new(self.pulled(name))
    }

    fn writable(&self, _: &Scope, _: &Name) -> Option<Arc<dyn RepositoryMut>> {
        None
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.0.options.upstream.repositories(prefix, page).await
    }
}
