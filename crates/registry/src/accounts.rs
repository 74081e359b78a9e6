//! Who asks a registry, and what each of them may still read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_oci::{Digest, Name};
use ferry_store::Side;
use http::HeaderMap;
use tokio::time::Instant;

use crate::credential::Identity;
use crate::quota::Quota;

/// For how many repositories it is remembered who asks.
const MAX_KNOWN: usize = 4096;

/// How long it is believed that nothing of a quota is left.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// For what credentials were looked up.
pub(crate) type Purpose = (Option<Side>, Option<Name>);

/// The accounts of one registry by what they are used for, in order of preference, and their quotas.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    known: Mutex<HashMap<Purpose, Vec<Arc<Identity>>>>,
    quotas: Mutex<HashMap<Digest, (Quota, Instant)>>,
}

impl Accounts {
    /// The accounts that were found for a purpose; never empty.
    pub(crate) fn known(&self, purpose: &Purpose) -> Option<Vec<Arc<Identity>>> {
        lock(&self.known).get(purpose).cloned()
    }

    pub(crate) fn remember(&self, purpose: Purpose, found: Vec<Arc<Identity>>) {
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(purpose, found);
    }

    pub(crate) fn forget(&self, purpose: &Purpose) {
        lock(&self.known).remove(purpose);
    }

    /// The first of `accounts` that may still read, else the first.
    pub(crate) fn choose(&self, accounts: &[Arc<Identity>]) -> Option<Arc<Identity>> {
        accounts.iter().find(|account| !self.is_used_up(&account.key)).or(accounts.first()).cloned()
    }

    /// Keeps what an answer tells of the quota of whoever asked.
    pub(crate) fn note(&self, account: Digest, headers: &HeaderMap) {
        if let Some(quota) = Quota::read(headers) {
            lock(&self.quotas).insert(account, (quota, Instant::now()));
        }
    }

    /// Nothing is left of an account's quota, whatever was told last: answers may overtake each other. False if it has
    /// none.
    pub(crate) fn use_up(&self, account: &Digest) -> bool {
        let mut quotas = lock(&self.quotas);
        let quota = quotas.get_mut(account);
        let some = quota.is_some();
        if let Some((quota, seen)) = quota {
            (quota.remaining, *seen) = (0, Instant::now());
        }
        some
    }

    fn is_used_up(&self, account: &Digest) -> bool {
        self.used_up(account).is_some()
    }

    /// The quota of an account of which nothing is left.
    pub(crate) fn used_up(&self, account: &Digest) -> Option<Quota> {
        let quotas = lock(&self.quotas);
        let (quota, seen) = quotas.get(account)?;
        (quota.remaining == 0 && seen.elapsed() < TOLD_FOR).then_some(*quota)
    }

    /// What all accounts together may still read; `None` as long as one of them has not told.
    pub(crate) fn left(&self) -> Option<Quota> {
        let known = lock(&self.known);
        let quotas = lock(&self.quotas);
        let mut accounts: Vec<Digest> = known.values().flatten().map(|account| account.key).collect();
        accounts.sort_unstable();
        accounts.dedup();
        if accounts.is_empty() {
            accounts.extend(quotas.keys());
        }
        let of_each = accounts.iter().map(|account| quotas.get(account).map(|(quota, _)| *quota));
        let of_each = of_each.collect::<Option<Vec<Quota>>>()?;
        of_each.into_iter().reduce(|sum, one| Quota {
            limit: sum.limit.saturating_add(one.limit),
            remaining: sum.remaining.saturating_add(one.remaining),
            window: sum.window.max(one.window),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Credential, Secret};

    fn account(name: &str) -> Arc<Identity> {
        let credential = Credential::Password { username: name.to_owned(), password: Secret::new("x") };
        Arc::new(Identity::new(Some(credential)))
    }

    fn told(remaining: u64) -> HeaderMap {
        let header =
            |name: &'static str, value: u64| (name.parse().unwrap(), value.to_string().parse().unwrap());
        [header("ratelimit-limit", 10), header("ratelimit-remaining", remaining)].into_iter().collect()
    }

    #[test]
    fn any_numbers_can_be_added() {
        let accounts = Accounts::default();
        for name in ["one", "two"] {
            accounts.note(account(name).key, &told(u64::MAX));
        }
        assert_eq!(accounts.left().unwrap().remaining, u64::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_account_steps_in_and_the_first_comes_back() {
        let (one, two) = (account("one"), account("two"));
        let both = vec![Arc::clone(&one), Arc::clone(&two)];
        let accounts = Accounts::default();
        accounts.remember((None, None), both.clone());
        let chosen = || accounts.choose(&both).unwrap().key;
        assert_eq!((chosen(), accounts.left()), (one.key, None));
        accounts.note(one.key, &told(0));
        assert_eq!((chosen(), accounts.left()), (two.key, None), "the other has not told");
        accounts.note(two.key, &told(4));
        assert_eq!(accounts.left().unwrap().remaining, 4);
        assert!(accounts.use_up(&two.key));
        assert_eq!(chosen(), one.key, "nobody is left");
        tokio::time::advance(TOLD_FOR).await;
        accounts.note(two.key, &told(0));
        assert_eq!(chosen(), one.key);
        assert!(!accounts.use_up(&account("three").key), "it has no quota");
    }
}
