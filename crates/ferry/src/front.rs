//! Everything that stands at the address of a registry, put together as it is configured, again whenever that changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use ferry_serve::{Access, Front, Keys, Live, Operations, Page, RegistryService, Trend};
use ferry_storage::Storage;
use tokio_util::sync::CancellationToken;

use crate::Environment;
use crate::config::Registries;
use crate::https::Before;
use crate::limits::Limiting;
use crate::mirror::Stores;
use crate::operations::Operated;
use crate::settings::{self, Serve};

/// What stays while the rest is put together anew.
pub(crate) struct Lasting {
    storage: Arc<Storage>,
    /// The same as it is shown to clients that can follow links.
    linking: Arc<Storage>,
    /// Where it is.
    directory: PathBuf,
    pub(crate) operated: Arc<Operated>,
    /// What HTTPS has to have answered first.
    before: Option<Before>,
    limiting: tokio::sync::Mutex<Limiting>,
    /// What the page shows of how the server does, also if it was another page before.
    trend: Arc<Trend>,
    /// Samples of it are taken.
    sampled: AtomicBool,
    /// Ends them.
    stop: CancellationToken,
}

/// What was opened and is not used yet.
struct Opened {
    stores: Option<Arc<Stores>>,
    access: Option<Arc<Access>>,
    service: RegistryService,
    page: Option<Arc<Page>>,
}

impl Lasting {
    pub(crate) fn new(
        (storage, directory): (Arc<Storage>, PathBuf),
        operated: Arc<Operated>,
        before: Option<Before>,
    ) -> Self {
        let (limiting, sampled, stop) = Default::default();
        let linking = storage.with_links();
        let figures = Arc::clone(&operated);
        let trend = Trend::new(Arc::new(move || figures.glance()));
        Self { storage, linking, directory, operated, before, limiting, trend, sampled, stop }
    }

    /// Everything as `settings` say, from the first time on.
    ///
    /// # Errors
    /// If something cannot be opened.
    pub(crate) async fn begin(
        &self,
        settings: &Serve,
        reached: (Registries, Environment),
    ) -> anyhow::Result<Live<Front>> {
        let opened = self.open(settings, reached).await?;
        Ok(Live::new(self.use_now(opened, settings).await))
    }

    /// Goes by other settings; everything is opened before anything is exchanged.
    ///
    /// # Errors
    /// If something cannot be opened; then all stays as it was.
    pub(crate) async fn change(
        &self,
        front: &Live<Front>,
        settings: &Serve,
        reached: (Registries, Environment),
    ) -> anyhow::Result<()> {
        let opened = self.open(settings, reached).await?;
        front.replace(self.use_now(opened, settings).await);
        Ok(())
    }

    async fn open(&self, settings: &Serve, reached: (Registries, Environment)) -> anyhow::Result<Opened> {
        // Who is led elsewhere keeps to no speed, and is not seen to stop.
        let storage = if settings.limits.measure_blobs() { &self.storage } else { &self.linking };
        let mut service = RegistryService::new(Arc::clone(storage) as _);
        let mut stores = None;
        if let Some(mirror) = &settings.mirror {
            let before = self.operated.stores();
            let opened = Stores::open(mirror, storage, reached, before.as_deref()).await?;
            service = service.mirroring(opened.front(mirror)?);
            stores = Some(Arc::new(opened));
        }
        let access = settings.access.as_ref().map(|access| self.access(access));
        let page = settings.page(Arc::clone(&self.trend)).map(Arc::new);
        Ok(Opened { stores, access, service, page })
    }

    /// Goes on from the guard that is there, for it knows who has logged in. It is another one, so that no request meets the
    /// new rules at the old upstreams, or the old ones at the new.
    fn access(&self, access: &settings::Access) -> Arc<Access> {
        let (policy, keys) = (access.policy.clone(), access.keys(&self.directory));
        Arc::new(match self.operated.access().filter(|before| before.has_keys_in(&keys)) {
            Some(before) => before.with(policy),
            None => Access::new(policy, Keys::new(keys, Arc::new(SystemTime::now))),
        })
    }

    async fn use_now(&self, opened: Opened, settings: &Serve) -> Front {
        let mut front =
            Front::new(opened.service).operated(Arc::clone(&self.operated) as Arc<dyn Operations>);
        if let Some(access) = &opened.access {
            front = front.guarded(Arc::clone(access));
        }
        let mut limiting = self.limiting.lock().await;
        limiting.go_by(settings.limits.clients, &self.directory).await;
        if let Some(limiter) = limiting.limiter() {
            front = front.limiting(limiter);
        }
        if let Some(page) = opened.page {
            self.sample(&page);
            front = front.showing(page);
        }
        self.operated.set_access(opened.access);
        self.operated.set_stores(opened.stores);
        match &self.before {
            Some(before) => before.put(front),
            None => front,
        }
    }

    /// Takes samples for the plots, from the first page on that shows some.
    fn sample(&self, page: &Page) {
        if page.shows_figures() && !self.sampled.swap(true, Ordering::Relaxed) {
            let (trend, stop) = (Arc::clone(&self.trend), self.stop.clone());
            tokio::spawn(async move { trend.watch(stop).await });
        }
    }

    /// Writes down what is to be known after a restart. To be called after the last answer.
    pub(crate) async fn end(&self) {
        self.stop.cancel();
        self.limiting.lock().await.stop().await;
    }
}
