//! The stores of a mirror: what is kept of each upstream, in front of the client that asks it.

use std::sync::Arc;

use ferry_oci::Registry;
use ferry_registry::{Client, Lane};
use ferry_serve::FigureSource;
use ferry_storage::Storage;
use ferry_store::{Cache, Scope, Staging, Store};
use ferry_transfer::{PullOptions, PullThrough};

use crate::Environment;
use crate::config::Registries;
use crate::credentials::Configured;
use crate::figures;
use crate::remote;
use crate::settings::{Mirror, MirrorOf};

/// What is fetched with accounts is kept apart from what anybody may see.
const ACCOUNTS: &str = "accounts";

/// How upstreams are reached.
struct Upstreams {
    client: Arc<Client>,
    mirrors: Vec<MirrorOf>,
    with_accounts: Vec<Registry>,
}

/// The stores that answer for the upstreams.
pub(crate) struct Stores {
    through: Vec<(Registry, Arc<PullThrough>)>,
}

impl Stores {
    /// Opens a store for every upstream; no registry is asked.
    ///
    /// # Errors
    /// If staging cannot be opened or a connection cannot be set up as configured.
    pub(crate) async fn open(
        settings: &Mirror,
        storage: &Arc<Storage>,
        registries: Registries,
        environment: Environment,
    ) -> anyhow::Result<Self> {
        let upstreams = Upstreams::new(registries, environment)?;
        let staging: Arc<dyn Staging> = storage.staging(None).await?;
        let cache: Arc<dyn Cache> = Arc::clone(storage) as _;
        let mut through = Vec::new();
        for upstream in settings.addressing.upstreams().iter() {
            let registry = &upstream.registry;
            let (store, scope) = (upstreams.store(registry)?, upstreams.scope(registry));
            let of = settings.upstream(registry);
            let freshness = of.freshness.clone();
            let usual = PullOptions::new(store, Arc::clone(&cache), Arc::clone(&staging), scope);
            let options = PullOptions {
                lists: freshness.moving,
                freshness: Arc::new(move |_, tag| freshness.for_tag(tag)),
                keep_withdrawn: of.keep_withdrawn.unwrap_or(usual.keep_withdrawn),
                links: of.redirects.then(|| upstreams.client.links(registry)).transpose()?,
                ..usual
            };
            through.push((registry.clone(), Arc::new(PullThrough::new(options))));
        }
        Ok(Self { through })
    }

    /// The front that asks these stores.
    pub(crate) fn front(&self, settings: &Mirror) -> anyhow::Result<ferry_serve::Mirror> {
        let front = ferry_serve::Mirror::new(settings.addressing.clone(), |upstream| {
            let found = self.through.iter().find(|(registry, _)| *registry == upstream.registry);
            let (_, store) = found.ok_or_else(|| anyhow::anyhow!("{upstream}: it has no store"))?;
            anyhow::Ok(Arc::clone(store) as Arc<dyn Store>)
        })?;
        Ok(front.without_tags(settings.unlisted()))
    }

    /// What is shown of them.
    pub(crate) fn figures(&self) -> FigureSource {
        figures::source(self.through.clone())
    }

    /// Ends what is being fetched; what is there of it is gone on with when it is asked for again.
    pub(crate) async fn stop(&self) {
        for (_, store) in &self.through {
            store.stop().await;
        }
    }
}

impl Upstreams {
    fn new(registries: Registries, environment: Environment) -> ferry_store::Result<Self> {
        let mirrors = registries.mirrors.clone();
        let with_accounts = registries.accounts.keys().cloned().collect();
        let options = remote::options(&registries);
        let credentials = Configured::new(registries, environment, &options)?;
        Ok(Self { client: Client::new(options, Arc::new(credentials))?, mirrors, with_accounts })
    }

    fn store(&self, registry: &Registry) -> ferry_store::Result<Arc<dyn Store>> {
        remote::mirrored(&self.mirrors, registry, |host| self.client.registry_for(host, Lane::Client, None))
    }

    fn scope(&self, registry: &Registry) -> Scope {
        let account = asked_with_account(&self.mirrors, &self.with_accounts, registry);
        let account = account.then(|| ACCOUNTS.to_owned());
        Scope::Upstream { host: registry.to_string(), account }
    }
}

/// Whether an account may be shown to whoever is asked for content of `registry`.
fn asked_with_account(mirrors: &[MirrorOf], with_accounts: &[Registry], registry: &Registry) -> bool {
    let places = mirrors.iter().filter(|(of, _)| of == registry).map(|(_, place)| &place.registry);
    places.chain([registry]).any(|place| with_accounts.contains(place))
}

/// The upstreams that are asked with an account.
pub(crate) fn with_accounts<'a>(settings: &'a Mirror, registries: &Registries) -> Vec<&'a Registry> {
    let with_accounts: Vec<Registry> = registries.accounts.keys().cloned().collect();
    let upstreams = settings.addressing.upstreams().iter().map(|upstream| &upstream.registry);
    let asked = upstreams.filter(|one| asked_with_account(&registries.mirrors, &with_accounts, one));
    asked.collect()
}
