use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::table::{CLIENTS, Table};
use super::{Excess, Limit, Quota};
use crate::access::Clock;
use crate::caller::Caller;

const DAY: u64 = 24 * 60 * 60;

/// What is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulled {
    Blob,
    Manifest,
}

/// Counts what clients pull from one midnight (UTC) to the next.
pub(super) struct Daily {
    per_address: Quota,
    per_user: Quota,
    now: Clock,
    counted: Mutex<Counted>,
}

struct Counted {
    /// Days since 1970.
    day: u64,
    taken: Table<Client, Taken>,
    /// Something has changed since it was last written down.
    unsaved: bool,
}

/// What a client has pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    bytes: u64,
    manifests: u64,
}

impl Taken {
    /// Who has pulled a manifest is not forgotten before who has pulled a small blob.
    fn weight(&self) -> u64 {
        self.bytes.saturating_add(self.manifests.saturating_mul(1 << 20))
    }
}

/// What is written down of a day.
#[derive(Serialize, Deserialize)]
struct Kept {
    day: u64,
    addresses: BTreeMap<IpAddr, Taken>,
    users: BTreeMap<String, Taken>,
}

/// Who pays for what is pulled.
pub(crate) struct Account {
    daily: Arc<Daily>,
    client: Client,
}

impl Account {
    /// So many bytes of a blob went out.
    pub(super) fn add(&self, bytes: u64) {
        let mut counted = self.daily.counted((self.daily.now)());
        counted.of(&self.client).bytes += bytes;
    }

    /// The manifest was not given after all.
    pub(super) fn give_back_manifest(&self) {
        let mut counted = self.daily.counted((self.daily.now)());
        let manifests = &mut counted.of(&self.client).manifests;
        *manifests = manifests.saturating_sub(1);
    }
}

impl Daily {
    /// `None` if nothing is limited. `now` decides which day it is.
    pub(super) fn new(per_address: Quota, per_user: Quota, now: Clock) -> Option<Arc<Self>> {
        let taken = Table::new(CLIENTS, Taken::weight);
        let counted = Mutex::new(Counted { day: 0, taken, unsaved: false });
        (per_address.is_some() || per_user.is_some())
            .then(|| Arc::new(Self { per_address, per_user, now, counted }))
    }

    /// The account that pays for a pull, if any does. A manifest is counted at once; of a blob what goes out later. What
    /// has begun is not cut, so a client can get beyond its bytes by what it pulls at the same time.
    ///
    /// # Errors
    /// If what the client may have today is used up.
    pub(super) fn admit(
        self: &Arc<Self>,
        caller: &Caller,
        pulled: Pulled,
    ) -> Result<Option<Account>, Excess> {
        let now = (self.now)();
        let (client, quota) = match &caller.user {
            Some(user) if self.per_user.is_some() => (Client::User(Arc::clone(user)), self.per_user),
            _ => (Client::at(caller), self.per_address),
        };
        let wanted = match pulled {
            Pulled::Blob => quota.bytes.is_some(),
            Pulled::Manifest => quota.is_some(),
        };
        if !wanted {
            return Ok(None);
        }
        let mut counted = self.counted(now);
        let taken = counted.of(&client);
        let used_up = |used: u64, most: Option<u64>, of: fn(u64) -> Limit| {
            most.filter(|most| used >= *most).map(|most| Excess { of: of(most), after: rest_of_day(now) })
        };
        let manifests = quota.manifests.filter(|_| pulled == Pulled::Manifest);
        let excess = used_up(taken.bytes, quota.bytes, Limit::Bytes)
            .or_else(|| used_up(taken.manifests, manifests, Limit::Manifests));
        if let Some(excess) = excess {
            return Err(excess);
        }
        taken.manifests += u64::from(pulled == Pulled::Manifest);
        drop(counted);
        Ok(Some(Account { daily: Arc::clone(self), client }))
    }

    /// What is to be written down, if anything has changed since it was last asked for.
    pub(super) fn to_write(&self) -> Option<String> {
        let mut counted = self.locked();
        if !std::mem::take(&mut counted.unsaved) {
            return None;
        }
        let mut kept = Kept { day: counted.day, addresses: BTreeMap::new(), users: BTreeMap::new() };
        for (client, taken) in counted.taken.iter() {
            match client {
                Client::Network(address) => kept.addresses.insert(*address, *taken),
                Client::User(user) => kept.users.insert(user.to_string(), *taken),
            };
        }
        drop(counted);
        serde_json::to_string(&kept).ok()
    }

    /// Goes on from what was written down, unless that was another day.
    ///
    /// # Errors
    /// If it is not what [`Daily::to_write`] gave.
    pub(super) fn restore(&self, text: &str) -> Result<(), serde_json::Error> {
        let kept: Kept = serde_json::from_str(text)?;
        let mut counted = self.counted((self.now)());
        if kept.day != counted.day {
            return Ok(());
        }
        let addresses = kept.addresses.into_iter().map(|(address, taken)| (Client::Network(address), taken));
        let users = kept.users.into_iter().map(|(user, taken)| (Client::User(user.into()), taken));
        for (client, taken) in addresses.chain(users) {
            *counted.of(&client) = taken;
        }
        counted.unsaved = false;
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted today.
    fn counted(&self, now: SystemTime) -> MutexGuard<'_, Counted> {
        let mut counted = self.locked();
        let day = seconds(now) / DAY;
        if counted.day != day {
            counted.day = day;
            counted.taken.clear();
            counted.unsaved = true;
        }
        counted
    }
}

impl Counted {
    /// What a client has taken, to be changed.
    fn of(&mut self, client: &Client) -> &mut Taken {
        self.unsaved = true;
        self.taken.entry(client.clone(), Taken::default)
    }
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn rest_of_day(now: SystemTime) -> Duration {
    Duration::from_secs(DAY - seconds(now) % DAY)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const EMPTY: Quota = Quota { bytes: None, manifests: None };

    fn caller(address: &str, user: Option<&str>) -> Caller {
        Caller { address: address.parse().unwrap(), secure: false, user: user.map(Into::into) }
    }

    /// A clock that is set by hand.
    #[derive(Clone, Default)]
    struct Time(Arc<AtomicU64>);

    impl Time {
        fn set(&self, day: u64, second: u64) {
            self.0.store(day * DAY + second, Ordering::Relaxed);
        }

        fn clock(&self) -> Clock {
            let seconds = Arc::clone(&self.0);
            Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::Relaxed)))
        }
    }

    /// What `caller` may still pull; what it pulls is counted.
    fn pulls(daily: &Arc<Daily>, caller: &Caller) -> usize {
        (0..100).take_while(|_| daily.admit(caller, Pulled::Manifest).is_ok()).count()
    }

    #[test]
    fn manifests_are_counted_till_midnight() {
        let quota = Quota { manifests: Some(3), ..EMPTY };
        let time = Time::default();
        let daily = Daily::new(quota, EMPTY, time.clock()).unwrap();
        let one = caller("192.0.2.1", Some("ann"));
        time.set(9, 100);
        assert_eq!(pulls(&daily, &one), 3);
        let refused = daily.admit(&one, Pulled::Manifest).err().unwrap();
        assert_eq!(refused, Excess { of: Limit::Manifests(3), after: Duration::from_secs(DAY - 100) });
        // Its blobs may still be fetched; nothing of them is limited.
        assert!(daily.admit(&one, Pulled::Blob).unwrap().is_none());
        assert_eq!(pulls(&daily, &caller("192.0.2.2", None)), 3);
        time.set(9, DAY - 1);
        assert_eq!(pulls(&daily, &one), 0);
        time.set(10, 0);
        assert_eq!(pulls(&daily, &one), 3);
        assert!(Daily::new(EMPTY, EMPTY, time.clock()).is_none());
    }

    #[test]
    fn what_was_not_given_is_not_counted() {
        let quota = Quota { manifests: Some(1), ..EMPTY };
        let daily = Daily::new(quota, EMPTY, Time::default().clock()).unwrap();
        let one = caller("192.0.2.1", None);
        daily.admit(&one, Pulled::Manifest).unwrap().unwrap().give_back_manifest();
        assert_eq!(pulls(&daily, &one), 1);
    }

    #[test]
    fn users_are_counted_by_name_and_a_subscriber_as_one() {
        let (per_address, per_user) =
            (Quota { manifests: Some(1), ..EMPTY }, Quota { manifests: Some(2), ..EMPTY });
        let daily = Daily::new(per_address, per_user, Time::default().clock()).unwrap();
        assert_eq!(pulls(&daily, &caller("192.0.2.1", Some("ann"))), 2);
        assert_eq!(pulls(&daily, &caller("192.0.2.9", Some("ann"))), 0);
        assert_eq!(pulls(&daily, &caller("192.0.2.1", None)), 1);
        assert_eq!(pulls(&daily, &caller("2001:db8::1", None)), 1);
        assert_eq!(pulls(&daily, &caller("2001:db8::2", None)), 0);
    }

    #[test]
    fn bytes_are_counted_and_survive_a_restart() {
        let quota = Quota { bytes: Some(1000), ..EMPTY };
        let time = Time::default();
        let new = || Daily::new(quota, Quota { bytes: Some(10), ..EMPTY }, time.clock()).unwrap();
        let daily = new();
        assert_eq!(daily.to_write(), None);
        let (one, ann) = (caller("2001:db8::1", None), caller("192.0.2.1", Some("ann")));
        daily.admit(&one, Pulled::Blob).unwrap().unwrap().add(999);
        daily.admit(&one, Pulled::Blob).unwrap().unwrap().add(500);
        daily.admit(&ann, Pulled::Blob).unwrap().unwrap().add(10);
        let text = daily.to_write().unwrap();
        assert_eq!(daily.to_write(), None);
        let again = new();
        again.restore(&text).unwrap();
        assert_eq!(again.to_write(), None);
        for (caller, most) in [(&one, 1000), (&ann, 10)] {
            let refused = again.admit(caller, Pulled::Blob).err().unwrap();
            assert_eq!(refused.of, Limit::Bytes(most));
            assert!(again.admit(caller, Pulled::Manifest).is_err());
        }
        time.set(1, 0);
        let next_day = new();
        next_day.restore(&text).unwrap();
        assert!(next_day.admit(&one, Pulled::Blob).is_ok());
        assert!(new().restore("{").is_err());
    }
}
