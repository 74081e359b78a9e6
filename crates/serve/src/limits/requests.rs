use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::table::{CLIENTS, Table};
use super::{Excess, Limit, RequestLimit};

/// Counts the requests of each address by the generic cell rate algorithm (ITU-T I.371): all that is remembered of one is
/// when its requests so far would be over if they had come evenly.
pub(super) struct Requests {
    limit: RequestLimit,
    begun: Instant,
    over: Mutex<Table<IpAddr, Duration>>,
}

impl Requests {
    pub(super) fn new(limit: RequestLimit) -> Self {
        let weight = |over: &Duration| u64::try_from(over.as_nanos()).unwrap_or(u64::MAX);
        Self { limit, begun: Instant::now(), over: Mutex::new(Table::new(CLIENTS, weight)) }
    }

    /// Counts a request, unless it is one too many; those cost nothing further.
    pub(super) fn take(&self, network: IpAddr, now: Instant) -> Result<(), Excess> {
        let every = Duration::from_secs(60) / self.limit.per_minute.get();
        let window = every * self.limit.burst.get();
        let now = now.saturating_duration_since(self.begun);
        let mut table = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let over = table.entry(network, || now);
        let next = (*over).max(now) + every;
        match next.saturating_sub(now).checked_sub(window).filter(|ahead| !ahead.is_zero()) {
            Some(after) => Err(Excess { of: Limit::Requests(self.limit.per_minute), after }),
            None => {
                *over = next;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_evenly() {
        let limit = RequestLimit { per_minute: 60.try_into().unwrap(), burst: 3.try_into().unwrap() };
        let requests = Requests::new(limit);
        let at = |millis| requests.begun + Duration::from_millis(millis);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..3 {
            assert_eq!(requests.take(one, at(0)), Ok(()));
        }
        for _ in 0..5 {
            let refused = requests.take(one, at(400)).unwrap_err();
            assert_eq!((refused.after, refused.seconds()), (Duration::from_millis(600), 1));
        }
        assert_eq!(requests.take(other, at(400)), Ok(()));
        assert_eq!(requests.take(one, at(1000)), Ok(()));
        assert!(requests.take(one, at(1001)).is_err());
        // Who was away has the burst again, and no more.
        let admitted = (0..10).filter(|_| requests.take(one, at(1_000_000)).is_ok()).count();
        assert_eq!(admitted, 3);
    }
}
