use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferry_oci::{Digest, ErrorCode, Registry};
use ferry_store::{Error, Kind};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Body, Response};
use tokio::time::Instant;
use tracing::debug;
use url::Url;

use crate::access::Access;
use crate::accounts::Accounts;
use crate::auth::{Dealings, Scheme, read_offer};
use crate::budget::Budget;
use crate::client::Shared;
use crate::credential::{Asked, Identity, anonymous};
use crate::error::{Failure, Tried, What, answered};
use crate::habit::{Habit, habit_of, whole_below};
use crate::quota::Quota;
use crate::realm::same_origin;
use crate::request::{Answer, Request, collect, error_body};
use crate::stall::Downloads;
use crate::transport::{Cargo, Hop, Transport};
use crate::ways::Ways;

/// How long a registry is believed to lack the referrers API. What answered may have been in place of a registry that was
/// just being started, and a registry that lacks it may get it.
const LACKED: Duration = Duration::from_secs(15 * 60);

/// One registry: what was learnt of it, and its budgets, apart for calls, downloads and uploads, so that readers of slow
/// streams do not hold up questions.
pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Registry,
    pub(crate) base: Url,
    scheme: Mutex<Option<Scheme>>,
    pub(crate) accounts: Accounts,
    pub(crate) transport: Arc<Transport>,
    pub(crate) ways: Ways,
    /// When the registry was last seen to lack the referrers API.
    no_referrers: Mutex<Option<Instant>>,
    pub(crate) calls: Arc<Budget>,
    pub(crate) downloads: Arc<Budget>,
    pub(crate) uploads: Arc<Budget>,
    /// What the downloads of now bring.
    pub(crate) running: Arc<Downloads>,
}

impl Host {
    pub(crate) fn new(
        shared: Arc<Shared>,
        registry: Registry,
        base: Url,
        (transport, habit): (Arc<Transport>, Option<Habit>),
    ) -> Self {
        let habit = habit.unwrap_or_else(|| habit_of(&registry));
        let ways = Ways::new(habit, whole_below(&registry), shared.options.resumable_from);
        let budget = || Budget::new(shared.options.connections_per_host);
        Self {
            registry,
            base,
            scheme: Mutex::default(),
            accounts: Accounts::default(),
            transport,
            ways,
            no_referrers: Mutex::default(),
            calls: budget(),
            downloads: budget(),
            uploads: budget(),
            running: Arc::default(),
            shared,
        }
    }

    /// A URL of the registry's API; `path` follows `/v2/` and needs no escaping.
    pub(crate) fn url(&self, path: &str) -> Url {
        below(&self.base, path)
    }

    /// How the registry wants to be asked, once it has said so.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        self.scheme.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn learn(&self, scheme: Scheme) {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
    }

    /// Forgets how the registry wanted to be asked, if it was so.
    pub(crate) fn forget(&self, known: Option<&Scheme>) {
        let mut scheme = self.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        if scheme.as_ref() == known {
            *scheme = None;
        }
    }

    /// Who asks, and whether that was remembered.
    pub(crate) async fn identity(&self, access: &Access) -> Result<(Arc<Identity>, bool), Error> {
        let purpose = access.purpose();
        let known = self.accounts.known(&purpose);
        let remembered = known.is_some();
        let accounts = match known {
            Some(known) => known,
            None => {
                let (side, repository) = (purpose.0, purpose.1.as_ref());
                let asked = Asked { registry: &self.registry, repository, side };
                let found = self.shared.credentials.find(&asked).await?.into_iter();
                let mut found: Vec<_> = found.map(|one| Arc::new(Identity::new(Some(one)))).collect();
                if found.is_empty() {
                    found.push(anonymous());
                }
                self.accounts.remember(purpose, found.clone());
                found
            }
        };
        Ok((self.accounts.choose(&accounts).unwrap_or_else(anonymous), remembered))
    }

    /// Whether the registry was seen to lack the referrers API a short while ago.
    pub(crate) fn lacks_referrers(&self) -> bool {
        let seen = *self.no_referrers.lock().unwrap_or_else(PoisonError::into_inner);
        seen.is_some_and(|seen| seen.elapsed() < LACKED)
    }

    pub(crate) fn remember_no_referrers(&self) {
        *self.no_referrers.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Refuses what the registry would refuse, and count, as well: none of the accounts may read any more.
    pub(crate) fn check_quota(&self, what: &What, access: &Access) -> Tried<()> {
        let accounts = self.accounts.known(&access.purpose()).unwrap_or_else(|| vec![anonymous()]);
        let used_up = accounts.iter().map(|account| self.accounts.used_up(&account.key));
        let Some(quota) = used_up.collect::<Option<Vec<Quota>>>().and_then(|mut quotas| quotas.pop()) else {
            return Ok(());
        };
        let hours = quota.window.as_secs_f64() / 3600.0;
        let detail = format!(
            "{} allows {} pulls in {hours} hours and none is left; log in for more, or go on later",
            self.registry, quota.limit
        );
        let after = Some(quota.window);
        let failure = what.failure(Kind::RateLimited { after }, detail);
        Err(Failure { retry_after: after, quota: true, ..failure })
    }

    /// Whether a refusal means that the quota of who asked is used up, and if so whether another account may go on.
    fn quota_used_up(&self, who: &Digest, failure: &Failure, access: &Access) -> (bool, bool) {
        if failure.code != Some(ErrorCode::TooManyRequests) || !self.accounts.use_up(who) {
            return (false, false);
        }
        let others = self.accounts.known(&access.purpose()).unwrap_or_default();
        let next = self.accounts.choose(&others);
        (true, next.is_some_and(|next| self.accounts.used_up(&next.key).is_none()))
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
            let mut response = self.transport.send(hop, &request.body).await?;
            let ours = same_origin(response.url(), &self.base);
            if ours {
                self.accounts.note(used.who(), response.headers());
            } else if response.status() == StatusCode::UNAUTHORIZED {
                response = self.exchange_abroad(request, &response).await?.unwrap_or(response);
            }
            let status = response.status();
            if status.is_success() {
                self.let_in(dealings);
                return Ok(response);
            }
            let refused = status == StatusCode::UNAUTHORIZED && ours;
            let body = error_body(what, &mut response, self.transport.idle()).await;
            let failure = answered(what, &request.method, status, response.headers(), &body);
            if refused {
                let offer = read_offer(response.headers(), &self.base);
                if self.refused(used, offer, &mut dealings).await {
                    continue;
                }
                return Err(failure);
            }
            let (quota, goes_on) = self.quota_used_up(&used.who(), &failure, &dealings.access);
            if goes_on {
                debug!(registry = %self.registry, "a quota is used up, going on with the next account");
                continue;
            }
            self.let_in(dealings);
            return Err(Failure { quota, ..failure });
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
        let mut response = self.transport.send_once(&hop, body).await?;
        let status = response.status();
        let idle = self.transport.idle();
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

fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("/v2/{path}"));
    url
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

#[cfg(test)]
mod tests {
    use ferry_oci::{Name, Tag};

    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_asked_for_is_below_its_own_path(
            name in "[a-z./_%-]{1,20}", tag in "[A-Za-z0-9./_%?#\\\\-]{1,20}", content: Vec<u8>,
        ) {
            let base = Url::parse("https://r.example/v2/").unwrap();
            let digest = Digest::sha256(&content);
            let (Ok(name), Ok(tag)) = (name.parse::<Name>(), tag.parse::<Tag>()) else { return Ok(()) };
            for path in [format!("{name}/manifests/{tag}"), format!("{name}/blobs/{digest}")] {
                proptest::prop_assert_eq!(String::from(below(&base, &path)), format!("https://r.example/v2/{path}"));
            }
        }
    }
}
