use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How fast a count of bytes grew of late.
pub(super) struct Pace {
    over: Duration,
    samples: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Looks back as far as `over`.
    pub(super) fn new(over: Duration) -> Self {
        Self { over, samples: VecDeque::new() }
    }

    /// The count is `bytes` now; gives bytes per second.
    pub(super) fn at(&mut self, now: Instant, bytes: u64) -> f64 {
        if self.samples.back().is_some_and(|(_, before)| *before > bytes) {
            // What is counted began afresh.
            self.samples.clear();
        }
        self.samples.push_back((now, bytes));
        // One from before the time that is looked at stays, to count from.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= self.over) {
            self.samples.pop_front();
        }
        let Some((first, from)) = self.samples.front() else { return 0.0 };
        let seconds = now.duration_since(*first).as_secs_f64();
        if seconds > 0.0 { (bytes - from) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_samples_do_not_count() {
        let mut pace = Pace::new(Duration::from_secs(2));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.at(at(0), 50), 0.0);
        assert_eq!(pace.at(at(1), 150), 100.0);
        assert_eq!(pace.at(at(2), 150), 50.0);
        assert_eq!(pace.at(at(3), 150), 0.0);
        assert_eq!(pace.at(at(4), 350), 100.0);
        assert_eq!(pace.at(at(5), 0), 0.0, "it began afresh");
        assert_eq!(pace.at(at(6), 10), 10.0);
    }
}
