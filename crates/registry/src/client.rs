use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use ferry_oci::{Digest, Name, Registry};
use ferry_store::{
    Error, Kind, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut, Result, Scope, Store,
};
use url::Url;

use crate::access::Action;
use crate::budget::Lane;
use crate::desk::Desk;
use crate::host::Host;
use crate::pacer::Pacer;
use crate::quota::Quota;
use crate::read::RemoteRepository;
use crate::token::Tokens;
use crate::transport::Transport;
use crate::{ClientOptions, Credentials};

/// Talks to registries. One serves a whole process, so that connections, tokens and budgets are shared.
pub struct Client {
    shared: Arc<Shared>,
    hosts: Mutex<HashMap<Registry, Arc<Host>>>,
}

/// What all registries of a client have in common.
pub(crate) struct Shared {
    pub(crate) options: ClientOptions,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) transport: Transport,
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
        let transport = Transport::new(&options)?;
        let (tokens, subjects) = (Tokens::default(), Mutex::default());
        let (down, up) = (Pacer::new(options.limit_rate), Pacer::new(options.limit_rate));
        let shared = Arc::new(Shared { options, credentials, transport, tokens, down, up, subjects });
        Ok(Arc::new(Self { shared, hosts: Mutex::default() }))
    }

    /// The registry at `host`, read and written over HTTPS, or over HTTP if it can only be this machine, in the
    /// background lane. No request is made.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if no URL can name the host (`999.0.0.1`).
    pub fn registry(&self, host: &Registry) -> Result<Arc<dyn Store>> {
        self.registry_for(host, Lane::Background)
    }

    /// The same for the requests of `lane`. Both lanes share connections, tokens and budgets.
    ///
    /// # Errors
    /// As [`Client::registry`].
    pub fn registry_for(&self, host: &Registry, lane: Lane) -> Result<Arc<dyn Store>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match hosts.get(host) {
            Some(known) => Arc::clone(known),
            None => {
                let new = Arc::new(Host::new(Arc::clone(&self.shared), host.clone(), base(host)?));
                hosts.insert(host.clone(), Arc::clone(&new));
                new
            }
        };
        Ok(Arc::new(RemoteStore(Desk::new(known, lane))))
    }

    /// What a registry still allows, as its last answer told it; `None` if it tells of no quota.
    pub fn quota(&self, host: &Registry) -> Option<Quota> {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(host)?.quota().map(|(quota, _)| quota)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Where the API of a registry is. Docker Hub's is not under the name that references use.
fn base(host: &Registry) -> Result<Url> {
    let authority = if host.is_docker_hub() { "registry-1.docker.io" } else { host.as_str() };
    let scheme = if host.is_loopback() { "http" } else { "https" };
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
        let base = |host: &str| base(&host.parse().unwrap()).map(String::from);
        assert_eq!(base("docker.io").unwrap(), "https://registry-1.docker.io/v2/");
        assert_eq!(base("quay.io").unwrap(), "https://quay.io/v2/");
        assert_eq!(base("10.0.0.1:5000").unwrap(), "https://10.0.0.1:5000/v2/");
        assert_eq!(base("localhost:5000").unwrap(), "http://localhost:5000/v2/");
        assert_eq!(base("[::1]:5000").unwrap(), "http://[::1]:5000/v2/");
        assert_eq!(base("999.0.0.1").unwrap_err().kind(), Kind::Invalid);
    }
}
