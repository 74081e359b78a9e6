//! What a running server lets those do who look after it.

mod warmer;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ferry_oci::{ImageReference, Registry};
use ferry_serve::{
    Access, CachedImage, Figures, Gauge, Observer, Operations, QuotaFigures, Record, StorageFigures,
    Transfer, UpstreamFigures, WarmOrder, Warming,
};
use ferry_storage::{Image, ImagePlace, Statistics, Storage};
use ferry_store::{Error, Kind, Page, PageRequest, Result, Scope};
use serde_json::Value;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::https::Ends;
use crate::metrics::{Now, Traffic};
use crate::mirror::{ACCOUNTS, Stores, Through};
use warmer::{Source, Warmer};

/// For how long the storage is not counted again.
const COUNTED_FOR: Duration = Duration::from_secs(3);

/// What the task is asked that goes by the configuration, with where to answer.
#[derive(Debug)]
pub(crate) enum Order {
    /// To read it again. The answer is what needs a restart.
    Reload(oneshot::Sender<Result<Vec<String>>>),
    /// What it says now of access, after that was replaced by this text if there is one.
    Access(Option<String>, oneshot::Sender<Result<Value>>),
}

/// A running server as those see it who look after it.
pub(crate) struct Operated {
    storage: Arc<Storage>,
    directory: PathBuf,
    size_limit: Option<u64>,
    ends: Option<Arc<Ends>>,
    stores: RwLock<Option<Arc<Stores>>>,
    access: RwLock<Option<Arc<Access>>>,
    traffic: Traffic,
    log: RwLock<Option<Arc<AccessLog>>>,
    warmer: Warmer,
    counted: AsyncMutex<Option<(Instant, Statistics)>>,
    orders: mpsc::Sender<Order>,
    began: Instant,
    stop: CancellationToken,
    /// Connections of clients.
    pub(crate) connections: Gauge,
    /// Requests that are not over.
    pub(crate) running: Gauge,
    /// What was dropped of the cache is removed one after the other.
    dropping: AsyncMutex<()>,
}

/// What a server has, and where.
pub(crate) struct Kept {
    pub(crate) storage: Arc<Storage>,
    pub(crate) directory: PathBuf,
    pub(crate) size_limit: Option<u64>,
    /// Of the certificates that are shown to clients, if any are.
    pub(crate) ends: Option<Arc<Ends>>,
}

impl Operated {
    /// What changes the configuration goes to `orders`; once `stop` is cancelled it is not ready any more.
    pub(crate) fn new(kept: Kept, orders: mpsc::Sender<Order>, stop: CancellationToken) -> Self {
        Self {
            storage: kept.storage,
            directory: kept.directory,
            size_limit: kept.size_limit,
            ends: kept.ends,
            stores: RwLock::default(),
            access: RwLock::default(),
            traffic: Traffic::new(),
            log: RwLock::default(),
            warmer: Warmer::new(stop.clone()),
            counted: AsyncMutex::default(),
            orders,
            began: Instant::now(),
            stop,
            connections: Gauge::default(),
            running: Gauge::default(),
            dropping: AsyncMutex::default(),
        }
    }

    /// The stores of the upstreams, if this is a mirror.
    pub(crate) fn stores(&self) -> Option<Arc<Stores>> {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes by other stores from now on.
    pub(crate) fn set_stores(&self, stores: Option<Arc<Stores>>) {
        *self.stores.write().unwrap_or_else(PoisonError::into_inner) = stores;
    }

    /// Who may do what, if that was said.
    pub(crate) fn access(&self) -> Option<Arc<Access>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Is asked for the rules from now on.
    pub(crate) fn set_access(&self, access: Option<Arc<Access>>) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// The access log, if there is one.
    pub(crate) fn log(&self) -> Option<Arc<AccessLog>> {
        self.log.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes to another access log from now on; returns the one before.
    pub(crate) fn set_log(&self, log: Option<Arc<AccessLog>>) -> Option<Arc<AccessLog>> {
        std::mem::replace(&mut *self.log.write().unwrap_or_else(PoisonError::into_inner), log)
    }

    /// What is in the storage, as it was a moment ago.
    async fn statistics(&self) -> Result<Statistics> {
        // Who comes while it is counted waits for that.
        let mut counted = self.counted.lock().await;
        if let Some((when, statistics)) = &*counted
            && when.elapsed() < COUNTED_FOR
        {
            return Ok(*statistics);
        }
        let statistics = self.storage.statistics().await?;
        *counted = Some((Instant::now(), statistics));
        Ok(statistics)
    }

    /// The figures, and what of the storage is not among them.
    async fn seen(&self) -> (Figures, Option<Statistics>) {
        let statistics = self.statistics().await;
        let statistics =
            statistics.inspect_err(|error| tracing::warn!(%error, "the storage cannot be counted")).ok();
        (self.with(statistics.as_ref()), statistics)
    }

    /// The figures, with the storage as it was when it was last counted.
    pub(crate) fn glance(self: &Arc<Self>) -> Figures {
        let counted = self.counted.try_lock().ok().and_then(|counted| *counted);
        if counted.is_none_or(|(when, _)| when.elapsed() >= COUNTED_FOR) {
            // For the next who looks.
            let operated = Arc::clone(self);
            tokio::spawn(async move { operated.statistics().await.is_ok() });
        }
        self.with(counted.as_ref().map(|(_, statistics)| statistics))
    }

    fn with(&self, statistics: Option<&Statistics>) -> Figures {
        let (requests, bytes_served) = self.traffic.so_far();
        let mut figures = Figures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.began.elapsed(),
            requests,
            bytes_served,
            storage: statistics.map(|s| of_storage(s, self.size_limit)).unwrap_or_default(),
            ..Figures::default()
        };
        if let Some(stores) = self.stores() {
            for through in stores.iter() {
                let (upstream, transfers) = of_upstream(&stores, through);
                figures.upstreams.push(upstream);
                figures.transfers.extend(transfers);
            }
        }
        figures
    }

    /// Where the cache keeps an image of this registry. What was fetched in another way before is in the other scope.
    fn scopes(&self, registry: &Registry) -> [Scope; 2] {
        let scope = |account: Option<String>| Scope::Upstream { host: registry.to_string(), account };
        let (anonymous, accounts) = (scope(None), scope(Some(ACCOUNTS.to_owned())));
        let stores = self.stores();
        match stores.as_ref().and_then(|stores| stores.of(registry)) {
            Some(through) if through.scope == accounts => [accounts, anonymous],
            _ => [anonymous, accounts],
        }
    }

    fn places(&self, image: &ImageReference) -> [ImagePlace; 2] {
        self.scopes(&image.registry).map(|scope| ImagePlace {
            scope,
            name: image.repository.clone(),
            reference: image.reference(),
        })
    }

    /// Asks the task that goes by the configuration.
    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<Result<T>>) -> Order) -> Result<T> {
        let stopping =
            || Error::new(Kind::Unavailable, "change server", "configuration", "the server is stopping");
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    /// Where an image comes from.
    fn source(&self, stores: Option<&Stores>, image: &ImageReference) -> Source {
        let Some(stores) = stores else { return Err("this server mirrors no registry".to_owned()) };
        let known = || stores.iter().map(|through| through.registry.as_str()).collect::<Vec<_>>().join(", ");
        match stores.of(&image.registry) {
            Some(through) => Ok(Arc::clone(&through.store)),
            None => Err(format!("{} is not mirrored here; the mirror knows {}", image.registry, known())),
        }
    }
}

impl Observer for Operated {
    fn answered(&self, record: Record) {
        self.traffic.count(&record);
        #[cfg(feature = "otel")]
        crate::traces::note(&record);
        if let Some(log) = self.log() {
            log.write(record);
        }
    }
}

#[async_trait]
impl Operations for Operated {
    async fn figures(&self) -> Figures {
        self.seen().await.0
    }

    async fn metrics(&self) -> String {
        let (figures, statistics) = self.seen().await;
        let stores = self.stores();
        let asked = stores.iter().flat_map(|stores| stores.iter());
        self.traffic.text(&Now {
            figures: &figures,
            asked: asked.map(|through| (through.registry.clone(), through.answers.asked())).collect(),
            statistics,
            connections: &self.connections,
            running: &self.running,
            certificates: self.ends.as_ref().map(|ends| ends.all()).unwrap_or_default(),
        })
    }

    async fn ready(&self) -> Result<()> {
        const OPERATION: &str = "be ready";
        if self.stop.is_cancelled() {
            return Err(Error::new(Kind::Unavailable, OPERATION, "server", "it is stopping"));
        }
        self.statistics().await?;
        let directory = self.directory.clone();
        let writable = tokio::task::spawn_blocking(move || {
            rustix::fs::access(&directory, rustix::fs::Access::WRITE_OK).map_err(std::io::Error::from)
        });
        let writable = writable.await.map_err(std::io::Error::other).flatten();
        writable.map_err(|e| Error::io(OPERATION, self.directory.display(), e))
    }

    async fn warm(&self, order: WarmOrder) -> Result<Warming> {
        let stores = self.stores();
        let sources = order.images.iter().map(|image| self.source(stores.as_deref(), image)).collect();
        let begun = self.warmer.begin(order, sources);
        let busy = "too many orders are under way; try again when some are over";
        begun.ok_or_else(|| Error::new(Kind::Unavailable, "warm images", "mirror", busy))
    }

    async fn warming(&self, id: u64) -> Option<Warming> {
        self.warmer.seen(id)
    }

    async fn cached(&self, registry: Option<&Registry>, page: PageRequest) -> Result<Page<CachedImage>> {
        let scope = registry.map(|registry| {
            let [scope, _] = self.scopes(registry);
            scope
        });
        let page = self.storage.images(scope.as_ref(), page).await?;
        let items = page.items.into_iter().map(cached).collect::<Result<_>>()?;
        Ok(Page { items, next: page.next, told: page.told })
    }

    async fn discard(&self, image: &ImageReference) -> Result<u64> {
        let _turn = self.dropping.lock().await;
        let [first, second] = self.places(image);
        match (
            self.storage.drop_image(&first, &self.stop).await,
            self.storage.drop_image(&second, &self.stop).await,
        ) {
            (Ok(one), Ok(other)) => Ok(one.bytes + other.bytes),
            (Ok(one), Err(error)) | (Err(error), Ok(one)) if error.kind() == Kind::NotFound => Ok(one.bytes),
            (Err(error), Err(other)) if error.kind() == Kind::NotFound => Err(other),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    async fn pin(&self, image: &ImageReference) -> Result<bool> {
        let stores = self.stores();
        if let Err(why) = self.source(stores.as_deref(), image) {
            return Err(Error::new(Kind::Invalid, "pin image", image, why));
        }
        let [place, _] = self.places(image);
        self.storage.pin(&place).await
    }

    async fn unpin(&self, image: &ImageReference) -> Result<bool> {
        let [first, second] = self.places(image);
        let (first, second) = (self.storage.unpin(&first).await?, self.storage.unpin(&second).await?);
        Ok(first || second)
    }

    async fn pins(&self) -> Result<Vec<ImageReference>> {
        let pins = self.storage.pins().await?;
        Ok(pins.into_iter().filter_map(pinned).collect())
    }

    async fn reload(&self) -> Result<Vec<String>> {
        self.order(Order::Reload).await
    }

    async fn access(&self) -> Result<Value> {
        self.order(|answer| Order::Access(None, answer)).await
    }

    async fn replace_access(&self, text: String) -> Result<Value> {
        self.order(|answer| Order::Access(Some(text), answer)).await
    }
}

fn of_storage(statistics: &Statistics, limit: Option<u64>) -> StorageFigures {
    StorageFigures { bytes: statistics.bytes, objects: statistics.blobs, limit, free: Some(statistics.free) }
}

fn of_upstream(stores: &Stores, through: &Through) -> (UpstreamFigures, Vec<Transfer>) {
    let figures = through.store.figures();
    let registry = &through.registry;
    let quota = stores.quota(registry);
    let upstream = UpstreamFigures {
        registry: registry.clone(),
        hits: figures.hits,
        misses: figures.misses,
        stale: figures.stale,
        bytes_fetched: figures.bytes_fetched,
        health: through.answers.health(),
        quota: quota.map(|quota| QuotaFigures { limit: quota.limit, remaining: quota.remaining }),
    };
    let transfers = figures.flights.into_iter().map(|flight| Transfer {
        registry: registry.clone(),
        repository: flight.repository,
        digest: flight.digest,
        size: flight.size,
        present: flight.present,
        readers: flight.readers,
    });
    (upstream, transfers.collect())
}

/// The registry that a scope is of; `None` for what was pushed here.
fn registry_of(scope: &Scope) -> Result<Option<Registry>> {
    match scope {
        Scope::Hosted => Ok(None),
        Scope::Upstream { host, .. } => {
            let registry: std::result::Result<Registry, _> = host.parse();
            registry.map(Some).map_err(|e| Error::new(Kind::Invalid, "list images", host, e.to_string()))
        }
    }
}

fn cached(image: Image) -> Result<CachedImage> {
    Ok(CachedImage {
        registry: registry_of(&image.scope)?,
        repository: image.name,
        tag: image.tag,
        digest: image.digest,
        bytes: image.bytes,
        used: image.used,
        confirmed: image.confirmed,
        pinned: image.pinned,
    })
}

/// A pin as people name it; those of what was pushed here have no name of a registry.
fn pinned(place: ImagePlace) -> Option<ImageReference> {
    let registry = registry_of(&place.scope).ok().flatten()?;
    let (tag, digest) = match place.reference {
        ferry_oci::Reference::Tag(tag) => (Some(tag), None),
        ferry_oci::Reference::Digest(digest) => (None, Some(digest)),
    };
    Some(ImageReference { registry, repository: place.name, tag, digest })
}
