use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ferry_policy::access::Action;
use http::{Method, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::client::network;
use super::daily::{Account, Daily, Pulled};
use super::measured::Measured;
use super::pace::{Pace, Pacer};
use super::requests::Requests;
use super::table::{CLIENTS, Table};
use super::{ClientLimits, Excess, SpeedLimits};
use crate::access::Clock;
use crate::answer::Answer;
use crate::blobs::Elsewhere;
use crate::body::ResponseBody;
use crate::caller::{Caller, Served};

/// Sees to it that clients take no more than they may.
pub struct Limiter {
    down: Speed,
    up: Speed,
    requests: Option<Requests>,
    daily: Option<Arc<Daily>>,
}

/// How fast one direction is.
struct Speed {
    limits: SpeedLimits,
    total: Option<Arc<Pacer>>,
    addresses: Mutex<Table<IpAddr, Arc<Pacer>>>,
}

/// What comes of a request that may be answered.
#[derive(Default)]
pub(crate) struct Admitted {
    down: Option<Pace>,
    up: Option<Pace>,
    manifest: Option<Account>,
    bytes: Option<Account>,
}

impl Limiter {
    /// Nobody has taken anything yet.
    pub fn new(limits: ClientLimits) -> Self {
        Self::with_clock(limits, Arc::new(SystemTime::now))
    }

    /// The same; `now` decides when a day ends.
    pub fn with_clock(limits: ClientLimits, now: Clock) -> Self {
        Self {
            down: Speed::new(limits.speed),
            up: Speed::new(limits.speed),
            requests: limits.requests.map(Requests::new),
            daily: Daily::new(limits.daily_per_address, limits.daily_per_user, now),
        }
    }

    /// Counts a request, of whatever kind.
    ///
    /// # Errors
    /// If it is one too many of its address.
    pub(crate) fn request(&self, caller: &Caller) -> Result<(), Excess> {
        match &self.requests {
            Some(requests) => requests.take(network(caller.address), Instant::now()),
            None => Ok(()),
        }
    }

    /// Whether a request may be answered whose meaning is known. Privileged ones always may.
    ///
    /// # Errors
    /// If its client has taken all it may have today.
    pub(crate) fn admit(
        &self,
        method: &Method,
        caller: &Caller,
        served: &Served,
    ) -> Result<Admitted, Excess> {
        let mut admitted = Admitted::default();
        if served.privileged {
            return Ok(admitted);
        }
        let pulled = pulled(method, served);
        if let (Some(daily), Some(pulled)) = (&self.daily, pulled) {
            let account = daily.admit(caller, pulled)?;
            match pulled {
                Pulled::Blob => admitted.bytes = account,
                Pulled::Manifest => admitted.manifest = account,
            }
        }
        if pulled == Some(Pulled::Blob) {
            admitted.down = self.down.pace(caller.address);
        }
        if served.action == Action::Push {
            admitted.up = self.up.pace(caller.address);
        }
        Ok(admitted)
    }

    pub(super) fn to_write(&self) -> Option<String> {
        self.daily.as_ref().and_then(|daily| daily.to_write())
    }

    pub(super) fn restore(&self, text: &str) -> Result<(), serde_json::Error> {
        self.daily.as_ref().map_or(Ok(()), |daily| daily.restore(text))
    }
}

/// What a request takes of a quota. Only asking whether something is there takes nothing.
fn pulled(method: &Method, served: &Served) -> Option<Pulled> {
    let content = method == Method::GET && served.action == Action::Pull && served.reference.is_some();
    content.then_some(if served.blob { Pulled::Blob } else { Pulled::Manifest })
}

impl Admitted {
    /// At which pace the body of the request is taken.
    pub(crate) fn take_up(&mut self) -> Option<Pace> {
        self.up.take()
    }

    /// The answer as it goes out.
    pub(crate) fn answered(self, answer: Answer) -> Answer {
        if let Some(account) = &self.manifest
            && !answer.as_ref().is_ok_and(|response| response.status() == StatusCode::OK)
        {
            account.give_back_manifest();
        }
        answer.map(|response| self.measured(response))
    }

    fn measured(self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        // What the client does with the link is not seen, so all of it counts.
        if let (Some(account), Some(Elsewhere(bytes))) = (&self.bytes, response.extensions().get()) {
            account.add(*bytes);
        }
        let unlimited = self.down.is_none() && self.bytes.is_none();
        if unlimited || response.body().is_end_stream() {
            return response;
        }
        response.map(|body| Measured::new(body, self.down, self.bytes).boxed_unsync())
    }
}

impl Speed {
    fn new(limits: SpeedLimits) -> Self {
        let total = limits.total.map(|rate| Arc::new(Pacer::new(rate)));
        let addresses = Mutex::new(Table::new(CLIENTS, |pacer: &Arc<Pacer>| pacer.recency()));
        Self { limits, total, addresses }
    }

    fn pace(&self, address: IpAddr) -> Option<Pace> {
        let per_address = self.limits.per_address.map(|rate| {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(addresses.entry(network(address), || Arc::new(Pacer::new(rate))))
        });
        let per_blob = self.limits.per_blob.map(|rate| Arc::new(Pacer::new(rate)));
        Pace::new([self.total.clone(), per_address, per_blob].into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use ferry_oci::{Digest, Reference};
    use http_body::SizeHint;

    use super::*;
    use crate::answer::answer;
    use crate::body::{empty, full};

    fn blob(privileged: bool) -> Served {
        Served {
            upstream: None,
            repository: "a".parse().unwrap(),
            reference: Some(Reference::Digest(Digest::sha256(b""))),
            action: Action::Pull,
            blob: true,
            privileged,
        }
    }

    fn caller() -> Caller {
        Caller { address: "192.0.2.1".parse().unwrap(), secure: false, user: None }
    }

    #[test]
    fn what_is_not_limited_is_not_wrapped() {
        let speed = SpeedLimits { per_blob: Some(1000), ..SpeedLimits::default() };
        let limiter = Limiter::new(ClientLimits { speed, ..ClientLimits::default() });
        let limited =
            |method, served: &Served| limiter.admit(&method, &caller(), served).unwrap().down.is_some();
        assert!(limited(Method::GET, &blob(false)));
        assert!(!limited(Method::GET, &blob(true)) && !limited(Method::HEAD, &blob(false)));
        let free = Limiter::new(ClientLimits::default());
        let admitted = free.admit(&Method::GET, &caller(), &blob(false)).unwrap();
        assert!(admitted.down.is_none() && admitted.bytes.is_none());
    }

    #[tokio::test]
    async fn only_what_goes_out_is_counted() {
        let daily_per_address = crate::Quota { bytes: Some(3), ..crate::Quota::default() };
        let limiter = Limiter::new(ClientLimits { daily_per_address, ..ClientLimits::default() });
        let get = || limiter.admit(&Method::GET, &caller(), &blob(false));
        let hint = |body: &ResponseBody| SizeHint::exact(&body.size_hint());
        let nothing = get().unwrap().answered(Ok(answer(StatusCode::NOT_MODIFIED, empty()))).ok().unwrap();
        assert_eq!(hint(nothing.body()), Some(0));
        let begun = get().unwrap().answered(Ok(answer(StatusCode::OK, full("abc")))).ok().unwrap();
        let dropped = get().unwrap().answered(Ok(answer(StatusCode::OK, full("abc")))).ok().unwrap();
        assert_eq!(hint(begun.body()), Some(3));
        drop(dropped);
        assert_eq!(begun.into_body().collect().await.unwrap().to_bytes(), "abc");
        assert!(get().is_err());
        assert!(limiter.admit(&Method::HEAD, &caller(), &blob(false)).is_ok());
        assert!(limiter.admit(&Method::GET, &caller(), &blob(true)).is_ok());
    }

    #[test]
    fn who_is_sent_elsewhere_has_taken_it_all() {
        let daily_per_address = crate::Quota { bytes: Some(3), ..crate::Quota::default() };
        let limiter = Limiter::new(ClientLimits { daily_per_address, ..ClientLimits::default() });
        let get = || limiter.admit(&Method::GET, &caller(), &blob(false));
        for (bytes, more) in [(2, true), (1, false)] {
            let mut response = answer(StatusCode::TEMPORARY_REDIRECT, empty());
            response.extensions_mut().insert(Elsewhere(bytes));
            assert!(get().unwrap().answered(Ok(response)).is_ok());
            assert_eq!(get().is_ok(), more);
        }
    }
}
