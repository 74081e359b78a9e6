use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferry_oci::{Name, Registry};
use ferry_store::{Error, Kind};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Body, Response};
use tokio::time::Instant;
use url::Url;

use crate::access::Access;
use crate::auth::{Dealings, Scheme, read_offer};
use crate::budget::Budget;
use crate::client::Shared;
use crate::credential::Identity;
use crate::error::{Failure, Tried, What, answered};
use crate::habit::{Habit, habit_of};
use crate::quota::Quota;
use crate::realm::same_origin;
use crate::request::{Answer, Request, collect, error_body};
use crate::stall::Downloads;
use crate::transport::{Cargo, Hop};

/// For how many repositories it is remembered who asks.
const MAX_IDENTITIES: usize = 4096;

/// How long it is believed that nothing of a quota is left.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// One registry: what was learnt of it, and its budgets, apart for calls, downloads and uploads, so that readers of slow
/// streams do not hold up questions.
pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Registry,
    pub(crate) base: Url,
    scheme: Mutex<Option<Scheme>>,
    identities: Mutex<HashMap<Option<Name>, Arc<Identity>>>,
    no_referrers: AtomicBool,
    quota: Mutex<Option<(Quota, Instant)>>,
    pub(crate) calls: Arc<Budget>,
    pub(crate) downloads: Arc<Budget>,
    pub(crate) uploads: Arc<Budget>,
    /// What the downloads of now bring.
    pub(crate) running: Arc<Downloads>,
}

impl Host {
    pub(crate) fn new(shared: Arc<Shared>, registry: Registry, base: Url) -> Self {
        let budget = || Budget::new(shared.options.connections_per_host);
        Self {
            registry,
            base,
            scheme: Mutex::default(),
            identities: Mutex::default(),
            no_referrers: AtomicBool::new(false),
            quota: Mutex::default(),
            calls: budget(),
            downloads: budget(),
            uploads: budget(),
            running: Arc::default(),
            shared,
        }
    }

    /// A URL of the registry's API; `path` follows `/v2/` and needs no escaping.
    pub(crate) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{path}"));
        url
    }

    /// How the registry wants to be asked, once it has said so.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        self.scheme.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn learn(&self, scheme: Scheme) {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
    }

    /// Who asks, and whether that was remembered.
    pub(crate) async fn identity(&self, repository: Option<&Name>) -> Result<(Arc<Identity>, bool), Error> {
        let key = repository.cloned();
        let known = self.identities().get(&key).cloned();
        if let Some(known) = known {
            return Ok((known, true));
        }
        let found = self.shared.credentials.find(&self.registry, repository).await?;
        let found = Arc::new(Identity::new(found));
        let mut identities = self.identities();
        if identities.len() >= MAX_IDENTITIES {
            identities.clear();
        }
        identities.insert(key, Arc::clone(&found));
        Ok((found, false))
    }

    pub(crate) fn forget_identity(&self, repository: Option<&Name>) {
        self.identities().remove(&repository.cloned());
    }

    fn identities(&self) -> std::sync::MutexGuard<'_, HashMap<Option<Name>, Arc<Identity>>> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the registry takes large blobs.
    pub(crate) fn habit(&self) -> Habit {
        let named = self.shared.options.habits.iter().find(|(registry, _)| *registry == self.registry);
        named.map_or_else(|| habit_of(&self.registry), |(_, habit)| *habit)
    }

    /// Whether the registry is known to lack the referrers API.
    pub(crate) fn lacks_referrers(&self) -> bool {
        self.no_referrers.load(Ordering::Relaxed)
    }

    pub(crate) fn remember_no_referrers(&self) {
        self.no_referrers.store(true, Ordering::Relaxed);
    }

    /// Keeps what an answer tells of the registry's quota.
    pub(crate) fn note_quota(&self, headers: &HeaderMap) {
        if let Some(quota) = Quota::read(headers) {
            *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = Some((quota, Instant::now()));
        }
    }

    /// Nothing is left of the quota, whatever was told last: answers may overtake each other. False if there is none.
    pub(crate) fn quota_is_used_up(&self) -> bool {
        let mut quota = self.quota.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((quota, seen)) = quota.as_mut() {
            (quota.remaining, *seen) = (0, Instant::now());
        }
        quota.is_some()
    }

    /// What is left of the registry's quota, if it has told of one, and when it did.
    pub(crate) fn quota(&self) -> Option<(Quota, Instant)> {
        *self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what the registry would refuse, and count, as well.
    pub(crate) fn check_quota(&self, what: &What) -> Tried<()> {
        match self.quota() {
            Some((quota, seen)) if quota.remaining == 0 && seen.elapsed() < TOLD_FOR => {
                let hours = quota.window.as_secs_f64() / 3600.0;
                let detail = format!(
                    "{} allows {} pulls in {hours} hours and none is left; log in for more, or go on later",
                    self.registry, quota.limit
                );
                let after = Some(quota.window);
                let failure = what.failure(Kind::RateLimited { after }, detail);
                Err(Failure { retry_after: after, ..failure })
            }
            _ => Ok(()),
        }
    }

    /// One authorized exchange; an answer with an error status is a failure.
    pub(crate) async fn exchange(&self, request: &Request) -> Tried<Response> {
        let what = &request.what;
        let mut dealings = Dealings::new(request.access.clone());
        loop {
            let used = self.authorize(what, &dealings).await?;
            let hop = Hop {
                what,
                home: &self.base,
                owner: &self.base,
                method: &request.method,
                url: &request.url,
                headers: &request.headers,
                authorization: used.header.as_ref(),
                cargo: request.cargo,
            };
            let mut response = self.shared.transport.send(hop, &request.body).await?;
            let status = response.status();
            if status.is_success() {
                self.let_in(dealings);
                return Ok(response);
            }
            let refused = status == StatusCode::UNAUTHORIZED && same_origin(response.url(), &self.base);
            let body = error_body(what, &mut response, self.shared.transport.idle()).await;
            if refused {
                let offer = read_offer(response.headers(), &self.base);
                if self.refused(used, offer, &mut dealings).await {
                    continue;
                }
            } else {
                self.let_in(dealings);
            }
            return Err(answered(what, &request.method, status, response.headers(), &body));
        }
    }

    /// Sends content as it comes, once, and returns the answer whatever its status: there is nothing that could be
    /// sent again. The caller watches the time.
    pub(crate) async fn stream(&self, sending: Streaming, body: Body) -> Tried<Answer> {
        let Streaming { what, method, url, headers, access } = sending;
        let mut dealings = Dealings::new(access);
        let used = self.authorize(&what, &dealings).await?;
        let hop = Hop {
            what: &what,
            home: &self.base,
            owner: &self.base,
            method: &method,
            url: &url,
            headers: &headers,
            authorization: used.header.as_ref(),
            cargo: Cargo::Content,
        };
        let mut response = self.shared.transport.send_once(&hop, body).await?;
        let status = response.status();
        let idle = self.shared.transport.idle();
        if status.is_success() {
            return collect(&what, response, MAX_RECEIPT, idle).await;
        }
        let body = error_body(&what, &mut response, idle).await;
        let failure = answered(&what, &method, status, response.headers(), &body);
        if status == StatusCode::UNAUTHORIZED && same_origin(response.url(), &self.base) {
            // The upload was let in a moment ago: its authorization has run out. What begins anew gets a fresh one.
            let offer = read_offer(response.headers(), &self.base);
            self.refused(used, offer, &mut dealings).await;
            return Err(what.failure(Kind::Unavailable, failure.error.detail()));
        }
        Err(failure)
    }
}

/// The longest body of an answer to something written; nothing in it is of interest.
pub(crate) const MAX_RECEIPT: u64 = 1024 * 1024;

/// A request whose body cannot be sent again.
#[derive(Debug)]
pub(crate) struct Streaming {
    pub(crate) what: What,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) access: Access,
}
