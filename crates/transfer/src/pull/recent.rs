use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ferry_oci::{Digest, Name, Reference};
use ferry_store::Error;

use super::tasks::again;

/// So many refusals are remembered at most; forgetting one costs a request.
const MOST: usize = 10_000;

/// Something that was asked for in vain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    Manifest(Name, Reference),
    Blob(Name, Digest),
    Listing(Name, String),
}

/// What the upstream would not give a moment ago.
pub(super) struct Recent {
    remember: Duration,
    refused: Mutex<HashMap<Wanted, (SystemTime, Arc<Error>)>>,
}

impl Recent {
    pub(super) fn new(remember: Duration) -> Self {
        Self { remember, refused: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Wanted, (SystemTime, Arc<Error>)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something of that time still counts. A clock that was set back makes nothing young.
    fn counts(&self, then: SystemTime, now: SystemTime) -> bool {
        now.duration_since(then).is_ok_and(|age| age < self.remember)
    }

    pub(super) fn remember(&self, wanted: Wanted, now: SystemTime, error: &Error) {
        let mut refused = self.lock();
        if refused.len() >= MOST {
            refused.retain(|_, (then, _)| self.counts(*then, now));
        }
        if refused.len() >= MOST {
            refused.clear();
        }
        refused.insert(wanted, (now, Arc::new(again(error))));
    }

    pub(super) fn recall(&self, wanted: &Wanted, now: SystemTime) -> Option<Error> {
        let refused = self.lock();
        let (then, error) = refused.get(wanted)?;
        self.counts(*then, now).then(|| again(error))
    }
}

#[cfg(test)]
mod tests {
    use ferry_store::Kind;

    use super::*;

    #[test]
    fn it_is_remembered_for_a_time_and_not_without_bounds() {
        let recent = Recent::new(Duration::from_secs(5));
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let wanted = |n: usize| Wanted::Blob("a".parse().unwrap(), Digest::sha256(&n.to_ne_bytes()));
        let error = Error::not_found("read blob", "x");
        recent.remember(wanted(0), start, &error);
        let at = |seconds| recent.recall(&wanted(0), start + Duration::from_secs(seconds));
        assert_eq!(at(4).map(|error| error.kind()), Some(Kind::NotFound));
        assert!(at(5).is_none() && recent.recall(&wanted(1), start).is_none());
        assert!(recent.recall(&wanted(0), start - Duration::from_secs(1)).is_none());
        for n in 0..=MOST {
            recent.remember(wanted(n), start, &error);
        }
        assert!(recent.lock().len() <= MOST);
        assert!(recent.recall(&wanted(MOST), start).is_some());
    }
}
