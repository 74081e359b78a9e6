//! A registry that can be told to misbehave, and that remembers what it was asked.
//!
//! It is `ferry-serve` over a [`MemoryStore`]. Faults and the demand for credentials stand between the connection and
//! the API, so that a client meets them as a real registry or a bad line would show them.

mod auth;
mod connection;
mod faulty;
mod handler;
mod quirks;
mod requests;
mod rules;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Malformed, Name, Registry};
use ferry_store::MemoryStore;
use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use auth::{Auth, Login};
pub use requests::{Kind, Recorded};
pub use rules::{Fault, FaultRule};

use crate::quirks::{Quirks, QuirkyStore, SharedQuirks};

/// A registry in memory on a loopback port; it stops when dropped.
pub struct FakeRegistry {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

/// What all connections of one registry share.
#[derive(Default)]
struct State {
    rules: Mutex<Vec<FaultRule>>,
    requests: Mutex<Vec<Recorded>>,
    auth: Mutex<auth::Guard>,
    quota: Mutex<Option<Pulls>>,
    quirks: SharedQuirks,
    memory: quirks::Memory,
}

/// How many manifests may be read, and how many were.
struct Pulls {
    limit: u64,
    window: u64,
    /// By the credentials that were shown.
    used: HashMap<Option<HeaderValue>, u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeRegistry {
    /// An empty registry that asks for no credentials and makes no mistakes.
    ///
    /// # Errors
    /// If no loopback port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let store = Arc::new(MemoryStore::new());
        let state = Arc::new(State::default());
        let quirky = QuirkyStore::sharing(Arc::clone(&store) as _, state.quirks.clone());
        let api = quirks::Particular::new(Arc::new(quirky), Arc::clone(&state), address);
        let handler = handler::Faulty::new(api, Arc::clone(&state), address);
        let accepting = tokio::spawn(connection::accept(listener, handler));
        Ok(Self { address, store, state, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name in references.
    ///
    /// # Errors
    /// None in practice: an address with port is a registry.
    pub fn host(&self) -> Result<Registry, Malformed> {
        self.address.to_string().parse()
    }

    /// What it holds; everything is under `Scope::Hosted`.
    pub fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.store)
    }

    /// Adds a rule. The first rule that matches a request and is not used up decides.
    pub fn fail(&self, rule: FaultRule) {
        lock(&self.state.rules).push(rule);
    }

    /// Removes all rules.
    pub fn heal(&self) {
        lock(&self.state.rules).clear();
    }

    /// Asks for credentials from now on; tokens that were given out before are worthless.
    pub fn require(&self, auth: Auth) {
        lock(&self.state.auth).require(auth);
    }

    /// From now on at most `limit` manifests can be read by everyone who shows the same credentials, or none, which answers
    /// announce as Docker Hub's do, for a window of so many seconds.
    pub fn quota(&self, limit: u64, window: u64) {
        *lock(&self.state.quota) = Some(Pulls { limit, window, used: HashMap::new() });
    }

    /// From now on it is particular about these things, and about no others.
    pub fn quirks(&self, quirks: Quirks) {
        self.state.quirks.set(quirks);
    }

    /// Makes a repository that must be there before the first push.
    pub fn create(&self, repository: &Name) {
        lock(&self.state.memory.created).insert(repository.clone());
    }

    /// Makes every token that was given out worthless.
    pub fn expire_tokens(&self) {
        lock(&self.state.auth).expire();
    }

    /// Every request since the start or the last [`FakeRegistry::reset_counts`], in the order in which their heads
    /// arrived, those that were refused too.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.state.requests).clone()
    }

    /// How many requests of one kind there were.
    pub fn count(&self, kind: Kind) -> usize {
        lock(&self.state.requests).iter().filter(|request| request.kind == kind).count()
    }

    /// Forgets the requests so far.
    pub fn reset_counts(&self) {
        lock(&self.state.requests).clear();
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        // The task owns the connections, so they end with it.
        self.accepting.abort();
    }
}

impl fmt::Debug for FakeRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeRegistry({})", self.address)
    }
}

#[cfg(test)]
mod tests;
