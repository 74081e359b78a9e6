//! When a download that still brings bytes has stalled all the same.
//!
//! A connection that is stuck to a bad server of a network, or that a middlebox has slowed down to a trickle, is given up
//! if other downloads from the same host show that it could be otherwise. A thin link alone is no reason.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Over how much time of waiting a download is judged.
const WINDOW: Duration = Duration::from_secs(10);
/// Under this part of what the others bring a download has stalled.
const LEAST: f64 = 0.05;

/// The downloads from one host.
#[derive(Default)]
pub(crate) struct Downloads(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    next: u64,
    running: HashMap<u64, Gauge>,
}

/// Bytes and the time that was spent waiting for them, in this half of the window and in the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Gauge {
    now: Half,
    before: Half,
}

#[derive(Debug, Clone, Copy, Default)]
struct Half {
    bytes: u64,
    waited: Duration,
}

impl Gauge {
    fn add(&mut self, bytes: u64, waited: Duration) {
        if self.now.waited >= WINDOW / 2 {
            self.before = std::mem::take(&mut self.now);
        }
        self.now.bytes += bytes;
        self.now.waited += waited;
    }

    fn waited(&self) -> Duration {
        self.now.waited + self.before.waited
    }

    /// Bytes per second of waiting; none if it has run for too short a time to say.
    fn rate(&self, least: Duration) -> Option<f64> {
        let waited = self.waited();
        (waited >= least)
            .then(|| (self.now.bytes + self.before.bytes) as f64 / waited.as_secs_f64().max(1e-3))
    }
}

impl Downloads {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot leave the numbers half-written, so the poison is of no account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A download begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Download {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.running.insert(id, Gauge::default());
        Download { downloads: Arc::clone(self), id }
    }
}

/// A download under way.
pub(crate) struct Download {
    downloads: Arc<Downloads>,
    id: u64,
}

impl Download {
    /// Counts bytes and how long was waited for them; only the peer's time counts, not our own.
    pub(crate) fn add(&self, bytes: usize, waited: Duration) {
        if let Some(gauge) = self.downloads.lock().running.get_mut(&self.id) {
            gauge.add(bytes as u64, waited);
        }
    }

    /// Whether it brings far less than the others do.
    pub(crate) fn has_stalled(&self) -> bool {
        let inner = self.downloads.lock();
        let Some(own) = inner.running.get(&self.id).and_then(|gauge| gauge.rate(WINDOW)) else {
            return false;
        };
        let others = inner.running.iter().filter(|(id, _)| **id != self.id);
        let rates: Vec<f64> = others.filter_map(|(_, gauge)| gauge.rate(WINDOW / 10)).collect();
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        !rates.is_empty() && own < LEAST * mean
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.downloads.lock().running.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_thin_link_alone_is_no_stall() {
        let downloads = Arc::new(Downloads::default());
        let only = downloads.begin();
        for _ in 0..100 {
            only.add(20_000, SECOND);
            assert!(!only.has_stalled());
        }
    }

    #[test]
    fn one_that_brings_far_less_than_the_others_has_stalled() {
        let downloads = Arc::new(Downloads::default());
        let (slow, fast) = (downloads.begin(), downloads.begin());
        for second in 1..=10 {
            fast.add(1_000_000, SECOND);
            slow.add(20_000, SECOND);
            assert_eq!(slow.has_stalled(), second >= 10, "{second}");
            assert!(!fast.has_stalled());
        }
        drop(fast);
        assert!(!slow.has_stalled(), "there is nothing to compare with any more");
    }

    #[test]
    fn a_fair_share_of_a_thin_link_is_no_stall() {
        let downloads = Arc::new(Downloads::default());
        let all: Vec<Download> = (0..32).map(|_| downloads.begin()).collect();
        for _ in 0..20 {
            for (place, download) in all.iter().enumerate() {
                download.add(2_000 + 100 * place, SECOND);
            }
        }
        assert!(all.iter().all(|download| !download.has_stalled()));
    }

    #[test]
    fn our_own_slowness_does_not_count() {
        let downloads = Arc::new(Downloads::default());
        let (held_up, fast) = (downloads.begin(), downloads.begin());
        for _ in 0..100 {
            fast.add(1_000_000, SECOND);
            // Little was read, but the peer had it ready.
            held_up.add(1_000, Duration::from_micros(10));
        }
        assert!(!held_up.has_stalled());
    }

    #[test]
    fn one_that_gets_stuck_later_is_noticed() {
        let downloads = Arc::new(Downloads::default());
        let (slow, fast) = (downloads.begin(), downloads.begin());
        for _ in 0..100 {
            fast.add(1_000_000, SECOND);
            slow.add(1_000_000, SECOND);
        }
        let mut seconds = 0;
        while !slow.has_stalled() {
            fast.add(1_000_000, SECOND);
            slow.add(1_000, SECOND);
            seconds += 1;
        }
        assert!((5..=15).contains(&seconds), "{seconds}");
    }
}
