use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use ferry_oci::{Digest, Name, Registry};
use ferry_store::{
    Error, Kind, Links, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut, Result, Scope, Side,
    Store,
};
use tracing::warn;
use url::Url;

use crate::access::{Access, Action};
use crate::auth::read_offer;
use crate::budget::Lane;
use crate::desk::Desk;
use crate::error::What;
use crate::host::{Host, MAX_RECEIPT};
use crate::links::RemoteLinks;
use crate::pacer::Pacer;
use crate::quota::Quota;
use crate::read::RemoteRepository;
use crate::request::Request;
use crate::token::Tokens;
use crate::transport::Transport;
use crate::{ClientOptions, Credentials, Site};

/// Talks to registries. One serves a whole process, so that connections, tokens and budgets are shared.
pub struct Client {
    shared: Arc<Shared>,
    hosts: Mutex<HashMap<Registry, Arc<Host>>>,
}

/// What all registries of a client have in common.
pub(crate) struct Shared {
    pub(crate) options: ClientOptions,
    pub(crate) credentials: Arc<dyn Credentials>,
    /// For registries without a site of their own.
    transport: Arc<Transport>,
    pub(crate) tokens: Tokens,
    /// How fast content may come and go.
    pub(crate) down: Pacer,
    pub(crate) up: Pacer,
    subjects: Mutex<HashMap<Subject, Weak<tokio::sync::Mutex<()>>>>,
}

/// A manifest that others refer to, in a repository of a registry.
pub(crate) type Subject = (Registry, Name, Digest);

impl Client {
    /// A client that asks `credentials` when a registry demands authorization.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if no `rustls` crypto provider is installed or a root certificate cannot be read.
    pub fn new(options: ClientOptions, credentials: Arc<dyn Credentials>) -> Result<Arc<Self>> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let detail = "no rustls crypto provider is installed in this process";
            return Err(Error::new(Kind::Invalid, "set up", "the HTTP client", detail));
        }
        let transport = Arc::new(Transport::new(&options, &options.usual)?);
        let (tokens, subjects) = (Tokens::default(), Mutex::default());
        let (down, up) = (Pacer::new(options.limit_rate), Pacer::new(options.limit_rate));
        let shared = Arc::new(Shared { options, credentials, transport, tokens, down, up, subjects });
        Ok(Arc::new(Self { shared, hosts: Mutex::default() }))
    }

    /// The registry at `host`, read and written over HTTPS, or over HTTP if it can only be this machine or its site says
    /// so, in the background lane. No request is made.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if no URL can name the host (`999.0.0.1`), or a certificate of its site cannot be read.
    pub fn registry(&self, host: &Registry) -> Result<Arc<dyn Store>> {
        self.registry_for(host, Lane::Background, None)
    }

    /// The same for the requests of `lane`, with the accounts for `side`. All lanes and sides share connections, tokens
    /// and budgets.
    ///
    /// # Errors
    /// As [`Client::registry`].
    pub fn registry_for(&self, host: &Registry, lane: Lane, side: Option<Side>) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(RemoteStore(Desk::new(self.host(host)?, lane, side))))
    }

    /// Where the registry keeps its blobs, if that is elsewhere and nothing but a URL leads there. Only for a registry
    /// without accounts: such URLs are good for whoever has them.
    ///
    /// # Errors
    /// As [`Client::registry`].
    pub fn links(&self, host: &Registry) -> Result<Arc<dyn Links>> {
        Ok(Arc::new(RemoteLinks(Desk::new(self.host(host)?, Lane::Client, None))))
    }

    /// Shows the registry the first of the accounts for it, as `docker login` does, and says whether it looked.
    ///
    /// # Errors
    /// [`Kind::Unauthorized`] if it does not take the account; whatever keeps the registry from being asked.
    pub async fn log_in(&self, host: &Registry) -> Result<Login> {
        let host = self.host(host)?;
        let what = What::new("log in to", &host.registry);
        let request = Request::list(what, host.url(""), Access::login());
        let desk = Desk::new(Arc::clone(&host), Lane::Client, None);
        let answer = desk.call(&request, MAX_RECEIPT).await?;
        if host.scheme().is_none()
            && let Some(offer) = read_offer(&answer.headers, &host.base)
        {
            // zot lets everyone in here, and says all the same how it wants to be asked.
            host.learn(offer.scheme);
            desk.call(&request, MAX_RECEIPT).await?;
        }
        Ok(if host.scheme().is_some() { Login::Accepted } else { Login::NotAsked })
    }

    fn host(&self, host: &Registry) -> Result<Arc<Host>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(host) {
            return Ok(Arc::clone(known));
        }
        let options = &self.shared.options;
        let own = options.sites.get(host);
        let site = own.unwrap_or(&options.usual);
        let transport = match own {
            Some(site) => Arc::new(Transport::new(options, site)?),
            None => Arc::clone(&self.shared.transport),
        };
        if site.tls.accept_any {
            warn!(registry = %host, "certificates are not checked: whoever is in between can read and change everything");
        }
        if site.plain_http == Some(true) && !host.is_loopback() {
            warn!(registry = %host, "spoken to in plain HTTP: whoever is in between can read and change everything");
        }
        let base = base(host, site)?;
        let new = Host::new(Arc::clone(&self.shared), host.clone(), base, (transport, site.habit));
        Ok(Arc::clone(hosts.entry(host.clone()).or_insert(Arc::new(new))))
    }

    /// What a registry still allows all accounts for it together, as its answers told it; `None` if it tells of no quota,
    /// or not yet of every account's.
    pub fn quota(&self, host: &Registry) -> Option<Quota> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(host)?.accounts.left()
    }
}

/// What a registry said to a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It takes the account.
    Accepted,
    /// It lets everyone in, so nothing is known of the account.
    NotAsked,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Where the API of a registry is. Docker Hub's is not under the name that references use.
fn base(host: &Registry, site: &Site) -> Result<Url> {
    let authority = if host.is_docker_hub() { "registry-1.docker.io" } else { host.as_str() };
    let scheme = if site.is_plain_http(host) { "http" } else { "https" };
    Url::parse(&format!("{scheme}://{authority}/v2/"))
        .map_err(|e| Error::new(Kind::Invalid, "address", host, e.to_string()).caused_by(e))
}

impl Shared {
    /// Whoever holds this alone rewrites the list of referrers of `subject`.
    pub(crate) fn subject(&self, subject: Subject) -> Arc<tokio::sync::Mutex<()>> {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        subjects.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = subjects.get(&subject).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        subjects.insert(subject, Arc::downgrade(&lock));
        lock
    }
}

struct RemoteStore(Desk);

#[async_trait]
impl Store for RemoteStore {
    /// The scope says on whose behalf content is held; here the credentials decide that.
    fn repository(&self, _: &Scope, name: &Name) -> Arc<dyn Repository> {
        Arc::new(RemoteRepository::new(self.0.clone(), name.clone(), Action::Pull))
    }

    fn writable(&self, _: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        // Everything done to a target asks for the same token, so one request gets it.
        Some(Arc::new(RemoteRepository::new(self.0.clone(), name.clone(), Action::Push)))
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.0.repositories(prefix, page).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        let base = |host: &str| base(&host.parse().unwrap(), &Site::default()).map(String::from);
        assert_eq!(base("docker.io").unwrap(), "https://registry-1.docker.io/v2/");
        assert_eq!(base("quay.io").unwrap(), "https://quay.io/v2/");
        assert_eq!(base("10.0.0.1:5000").unwrap(), "https://10.0.0.1:5000/v2/");
        assert_eq!(base("localhost:5000").unwrap(), "http://localhost:5000/v2/");
        assert_eq!(base("[::1]:5000").unwrap(), "http://[::1]:5000/v2/");
        assert_eq!(base("999.0.0.1").unwrap_err().kind(), Kind::Invalid);
        let told = |host: &str, plain| {
            let site = Site { plain_http: Some(plain), ..Site::default() };
            super::base(&host.parse().unwrap(), &site).unwrap().scheme().to_owned()
        };
        assert_eq!((told("localhost:5000", false), told("10.0.0.1", true)), ("https".into(), "http".into()));
    }
}
