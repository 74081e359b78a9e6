//! The stores of a mirror: what is kept of each upstream, in front of the client that asks it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use ferry_oci::Registry;
use ferry_policy::freshness::Freshness;
use ferry_registry::{Client, ClientOptions, Lane, Quota, Site};
use ferry_storage::Storage;
use ferry_store::{Cache, Scope, Staging, Store};
use ferry_transfer::{PullOptions, PullThrough};

use crate::Environment;
use crate::answers::{Answers, Noted};
use crate::config::Registries;
use crate::credentials::Configured;
use crate::remote;
use crate::settings::{Mirror, MirrorOf};

/// What is fetched with accounts is kept apart from what anybody may see.
pub(crate) const ACCOUNTS: &str = "accounts";

/// A client that waits for an upstream that says nothing may know another place to ask, and most would not wait for five
/// attempts: an attempt that fails after so long is the last one.
const PERSISTENCE: Duration = Duration::from_secs(20);

/// How upstreams are reached.
struct Upstreams {
    client: Arc<Client>,
    sites: Sites,
    mirrors: Vec<MirrorOf>,
    with_accounts: Vec<Registry>,
}

/// How registries are reached, with the contents of the files that are named: the usual, and those that are named.
type Sites = (Site, HashMap<Registry, Site>);

fn sites(registries: &Registries) -> Sites {
    (registries.usual.clone(), registries.sites.clone())
}

/// The stores that answer for the upstreams.
pub(crate) struct Stores {
    through: Vec<Through>,
    upstreams: Arc<Upstreams>,
    /// Where they keep what they fetch.
    storage: Arc<Storage>,
    staging: Arc<dyn Staging>,
    /// See [`Mirror::behind`].
    behind: String,
}

/// The store that answers for an upstream.
#[derive(Clone)]
pub(crate) struct Through {
    pub(crate) registry: Registry,
    /// Under which it is cached.
    pub(crate) scope: Scope,
    pub(crate) store: Arc<PullThrough>,
    /// How the upstream has answered.
    pub(crate) answers: Arc<Answers>,
    /// Can change while the store is used.
    freshness: Arc<RwLock<Freshness>>,
}

impl Stores {
    /// Opens a store for every upstream, or takes it over from those that were there `before` if it would be the same; no
    /// registry is asked.
    ///
    /// # Errors
    /// If staging cannot be opened or a connection cannot be set up as configured.
    pub(crate) async fn open(
        settings: &Mirror,
        storage: &Arc<Storage>,
        (registries, environment): (Registries, Environment),
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let is_same = |before: &&Self| {
            before.behind == settings.behind
                && before.upstreams.sites == sites(&registries)
                && Arc::ptr_eq(&before.storage, storage)
        };
        let same = before.filter(is_same);
        let upstreams = match same {
            Some(same) => Arc::clone(&same.upstreams),
            None => Arc::new(Upstreams::new(registries, environment)?),
        };
        let staging = match before {
            Some(before) => Arc::clone(&before.staging),
            None => storage.staging(None).await? as Arc<dyn Staging>,
        };
        let (storage, behind) = (Arc::clone(storage), settings.behind.clone());
        let mut stores = Self { through: Vec::new(), upstreams, storage, staging, behind };
        for upstream in settings.addressing.upstreams().iter() {
            let through = match same.and_then(|same| same.of(&upstream.registry)) {
                Some(through) => through.clone(),
                None => stores.through(&upstream.registry, settings)?,
            };
            let freshness = settings.upstream(&upstream.registry).freshness.clone();
            *through.freshness.write().unwrap_or_else(PoisonError::into_inner) = freshness;
            stores.through.push(through);
        }
        Ok(stores)
    }

    fn through(&self, registry: &Registry, settings: &Mirror) -> anyhow::Result<Through> {
        let answers = Arc::<Answers>::default();
        let upstream = self.upstreams.store(registry)?;
        #[cfg(feature = "otel")]
        let upstream = Arc::new(crate::traces::TracedUpstream::new(upstream, registry.clone())) as _;
        let upstream = Noted::new(upstream, Arc::clone(&answers));
        let (cache, scope) = (Arc::clone(&self.storage) as Arc<dyn Cache>, self.upstreams.scope(registry));
        let of = settings.upstream(registry);
        let freshness = Arc::new(RwLock::new(of.freshness.clone()));
        let (of_tags, of_lists) = (Arc::clone(&freshness), Arc::clone(&freshness));
        let usual = PullOptions::new(Arc::new(upstream), cache, Arc::clone(&self.staging), scope.clone());
        let options = PullOptions {
            freshness: Arc::new(move |_, tag| now(&of_tags).for_tag(tag)),
            lists: Arc::new(move || now(&of_lists).moving),
            keep_withdrawn: of.keep_withdrawn.unwrap_or(usual.keep_withdrawn),
            links: of.redirects.then(|| self.upstreams.client.links(registry)).transpose()?,
            ..usual
        };
        let store = Arc::new(PullThrough::new(options));
        Ok(Through { registry: registry.clone(), scope, store, answers, freshness })
    }

    /// The front that asks these stores.
    pub(crate) fn front(&self, settings: &Mirror) -> anyhow::Result<ferry_serve::Mirror> {
        let front = ferry_serve::Mirror::new(settings.addressing.clone(), |upstream| {
            let found = self.of(&upstream.registry);
            let found = found.ok_or_else(|| anyhow::anyhow!("{upstream}: it has no store"))?;
            anyhow::Ok(Arc::clone(&found.store) as Arc<dyn Store>)
        })?;
        Ok(front.without_tags(settings.unlisted()))
    }

    /// The store for an upstream.
    pub(crate) fn of(&self, registry: &Registry) -> Option<&Through> {
        self.through.iter().find(|through| through.registry == *registry)
    }

    /// The stores for all upstreams.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Through> {
        self.through.iter()
    }

    /// What an upstream says of its quota.
    pub(crate) fn quota(&self, registry: &Registry) -> Option<Quota> {
        self.upstreams.client.quota(registry)
    }

    /// Ends what is being fetched; what is there of it is gone on with when it is asked for again.
    pub(crate) async fn stop(&self) {
        for through in &self.through {
            through.store.stop().await;
        }
    }
}

fn now(freshness: &RwLock<Freshness>) -> RwLockReadGuard<'_, Freshness> {
    freshness.read().unwrap_or_else(PoisonError::into_inner)
}

impl Upstreams {
    fn new(registries: Registries, environment: Environment) -> ferry_store::Result<Self> {
        let (mirrors, sites) = (registries.mirrors.clone(), sites(&registries));
        let with_accounts = registries.accounts.keys().cloned().collect();
        let options = ClientOptions { persistence: Some(PERSISTENCE), ..remote::options(&registries) };
        let credentials = Configured::new(registries, environment, &options)?;
        Ok(Self { client: Client::new(options, Arc::new(credentials))?, sites, mirrors, with_accounts })
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

#[cfg(test)]
mod tests {
    use ferry_testkit::authority::Authority;

    use super::*;
    use crate::config::Loaded;

    #[tokio::test]
    async fn stores_stay_while_all_that_is_behind_them_is_the_same() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        let text = "registries: {r.corp: {tls: {ca: ca.pem}}}\nserve: {mirror: {upstreams: r.corp}}\n";
        std::fs::write(&path, text).unwrap();
        let storage = Storage::open(&directory.path().join("storage")).await.unwrap();
        let open = async |storage: &Arc<Storage>, before: Option<&Stores>| {
            let environment = Environment::default();
            let loaded = Loaded::find(Some(&path), &environment).unwrap();
            let registries = Registries::new(&loaded, &environment).unwrap();
            let settings = Mirror::new(&loaded, false).unwrap().unwrap();
            Stores::open(&settings, storage, (registries, environment), before).await.unwrap()
        };
        let kept = |before: &Stores, after: &Stores| {
            let of = |stores: &Stores| Arc::clone(&stores.of(&"r.corp".parse().unwrap()).unwrap().store);
            Arc::ptr_eq(&of(before), &of(after))
        };
        let put = || {
            let authority = Authority::new().unwrap();
            std::fs::write(directory.path().join("ca.pem"), authority.certificate()).unwrap();
        };
        put();
        let first = open(&storage, None).await;
        let second = open(&storage, Some(&first)).await;
        assert!(kept(&first, &second));
        put();
        let third = open(&storage, Some(&second)).await;
        assert!(!kept(&second, &third), "another authority is trusted under the same path");
        let fourth = open(&storage.with_links(), Some(&third)).await;
        assert!(!kept(&third, &fourth), "clients may be led to a bucket now");
    }
}
