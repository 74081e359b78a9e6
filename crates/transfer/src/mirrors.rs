//! Several stores that hold the same content, tried in order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference};
use ferry_store::{
    Blob, BlobBody, ByteRange, Kind, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut, Resolved,
    Result, Scope, Store, TagEntry,
};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

/// How long a mirror that failed is only asked when nobody else can answer; twice as long with each failure.
const FIRST_REST: Duration = Duration::from_secs(10);
/// The longest such time.
const LONGEST_REST: Duration = Duration::from_secs(300);
/// After so long without an answer the next one is asked as well.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many blobs are remembered by whom they were sent.
const MOST: usize = 10_000;

/// A registry behind mirrors of it: each of them is asked in order, the registry itself last, and those that failed
/// lately after all others.
///
/// Content is verified by its digest whoever sends it. A tag means what the first one that knows it says; lists are
/// asked of the registry itself first, because a mirror need not know of everything.
pub struct Mirrors {
    endpoints: Arc<Vec<Endpoint>>,
    blame: Arc<Blame>,
}

/// A store that holds copies, under the same names or below a prefix of them.
pub struct Mirror {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What its names have in front.
    pub prefix: Option<Name>,
}

struct Endpoint {
    mirror: Mirror,
    health: Mutex<Health>,
}

#[derive(Default)]
struct Health {
    failures: u32,
    rests_until: Option<Instant>,
}

/// How often each blob was asked for from its beginning. Whoever asks again got no good from the one before.
#[derive(Default)]
struct Blame(Mutex<HashMap<Digest, usize>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave the numbers half-written, so the poison is of no account.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mirrors {
    /// Asks `mirrors` in order before `registry`.
    pub fn new(mirrors: Vec<Mirror>, registry: Arc<dyn Store>) -> Self {
        let all = mirrors.into_iter().chain([Mirror { store: registry, prefix: None }]);
        let endpoints = all.map(|mirror| Endpoint { mirror, health: Mutex::default() }).collect();
        Self { endpoints: Arc::new(endpoints), blame: Arc::default() }
    }
}

#[async_trait]
impl Store for Mirrors {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        let below = |Mirror { store, prefix }: &Mirror| {
            let name = match prefix {
                Some(prefix) => format!("{prefix}/{name}").parse().ok()?,
                None => name.clone(),
            };
            Some(store.repository(scope, &name))
        };
        let repositories = self.endpoints.iter().map(|endpoint| below(&endpoint.mirror)).collect();
        let (endpoints, blame) = (Arc::clone(&self.endpoints), Arc::clone(&self.blame));
        Arc::new(Mirrored { endpoints, repositories, blame })
    }

    fn writable(&self, _: &Scope, _: &Name) -> Option<Arc<dyn RepositoryMut>> {
        None
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        match self.endpoints.last() {
            Some(registry) => registry.mirror.store.repositories(prefix, page).await,
            None => Ok(Page::new(Vec::new(), None)),
        }
    }
}

struct Mirrored {
    endpoints: Arc<Vec<Endpoint>>,
    /// One for each endpoint, unless the name would be too long there.
    repositories: Vec<Option<Arc<dyn Repository>>>,
    blame: Arc<Blame>,
}

impl Endpoint {
    fn rests(&self, now: Instant) -> bool {
        lock(&self.health).rests_until.is_some_and(|until| now < until)
    }

    fn did_well(&self) {
        *lock(&self.health) = Health::default();
    }

    fn failed(&self, now: Instant) {
        let mut health = lock(&self.health);
        let rest = FIRST_REST.saturating_mul(1 << health.failures.min(10)).min(LONGEST_REST);
        health.rests_until = Some(now + rest);
        health.failures += 1;
    }
}

impl Mirrored {
    /// The endpoints in the order in which they are asked, beginning with the one after `turn` others.
    fn order(&self, turn: usize, now: Instant) -> Vec<usize> {
        let count = self.endpoints.len();
        let mut order: Vec<usize> = (0..count).map(|place| (place + turn) % count).collect();
        order.sort_by_key(|place| self.endpoints[*place].rests(now));
        order
    }

    /// The first answer, and whose it is; else the error of the registry itself, or of whoever was asked last. Whoever says
    /// nothing for [`PATIENCE`] may go on thinking while the next one is asked.
    async fn first<T>(
        &self,
        order: Vec<usize>,
        ask: impl Fn(Arc<dyn Repository>) -> BoxFuture<'static, Result<T>>,
    ) -> Result<(usize, T)> {
        let open = |place: usize| Some((place, self.repositories[place].clone()?));
        let mut others = order.into_iter().filter_map(open).peekable();
        let (mut asked, mut worst, mut lately) = (FuturesUnordered::new(), None, None);
        loop {
            if let Some((place, repository)) = others.next() {
                lately = Some(place);
                let answer = ask(repository);
                asked.push(async move { (place, answer.await) });
            }
            let patience = if others.peek().is_some() { PATIENCE } else { Duration::MAX };
            match timeout(patience, asked.next()).await {
                Ok(Some((place, Ok(answer)))) => {
                    self.endpoints[place].did_well();
                    return Ok((place, answer));
                }
                Ok(Some((place, Err(error)))) => {
                    if error.kind().is_transient() && lately == Some(place) {
                        self.endpoints[place].failed(Instant::now());
                    }
                    tracing::debug!(%error, "asking the next of the mirrors");
                    if worst.is_none() || place + 1 == self.endpoints.len() {
                        worst = Some(error);
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    if let Some(place) = lately.take() {
                        self.endpoints[place].failed(Instant::now());
                    }
                }
            }
        }
        let nobody = || ferry_store::Error::new(Kind::Unavailable, "read", "mirrors", "there is none to ask");
        Err(worst.unwrap_or_else(nobody))
    }

    fn in_turn(&self) -> Vec<usize> {
        self.order(0, Instant::now())
    }

    /// For lists: the registry itself before its mirrors.
    fn itself_first(&self) -> Vec<usize> {
        self.order(self.endpoints.len() - 1, Instant::now())
    }
}

impl Blame {
    /// Whose turn it is to send the blob.
    fn turn(&self, digest: &Digest, from_beginning: bool) -> usize {
        let mut asked = lock(&self.0);
        if asked.len() >= MOST {
            asked.clear();
        }
        let times = asked.entry(*digest).or_default();
        *times += usize::from(from_beginning);
        times.saturating_sub(1)
    }
}

#[async_trait]
impl Repository for Mirrored {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let reference = reference.clone();
        let ask = move |repository: Arc<dyn Repository>| -> BoxFuture<'static, _> {
            let reference = reference.clone();
            Box::pin(async move { repository.resolve(&reference).await })
        };
        Ok(self.first(self.in_turn(), ask).await?.1)
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        let reference = reference.clone();
        let ask = move |repository: Arc<dyn Repository>| -> BoxFuture<'static, _> {
            let reference = reference.clone();
            Box::pin(async move { repository.manifest(&reference).await })
        };
        Ok(self.first(self.in_turn(), ask).await?.1)
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let wanted = *digest;
        let ask = move |repository: Arc<dyn Repository>| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let missing = || ferry_store::Error::not_found("look for blob", wanted);
                repository.stat(&wanted).await?.ok_or_else(missing)
            })
        };
        match self.first(self.in_turn(), ask).await {
            Ok((_, size)) => Ok(Some(size)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let wanted = *digest;
        let ask = move |repository: Arc<dyn Repository>| -> BoxFuture<'static, _> {
            Box::pin(async move { repository.blob(&wanted, range).await })
        };
        let turn = self.blame.turn(digest, range.start == 0);
        let (place, blob) = self.first(self.order(turn, Instant::now()), ask).await?;
        let (size, range, skipped, fetched) = (blob.size, blob.range.clone(), blob.skipped, blob.fetched);
        let endpoints = Arc::clone(&self.endpoints);
        let watched = blob.into_stream().inspect(move |bytes| {
            if bytes.is_err() {
                endpoints[place].failed(Instant::now());
            }
        });
        Ok(Blob { size, range, skipped, fetched, body: BlobBody::Stream(Box::pin(watched)) })
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        let ask = move |repository: Arc<dyn Repository>| -> BoxFuture<'static, _> {
            let page = page.clone();
            Box::pin(async move { repository.tags(page).await })
        };
        Ok(self.first(self.itself_first(), ask).await?.1)
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        let (subject, artifact_type) = (*subject, artifact_type.map(str::to_owned));
        let ask = move |repository: Arc<dyn Repository>| -> BoxFuture<'static, _> {
            let (artifact_type, page) = (artifact_type.clone(), page.clone());
            Box::pin(async move { repository.referrers(&subject, artifact_type.as_deref(), page).await })
        };
        Ok(self.first(self.itself_first(), ask).await?.1)
    }
}
