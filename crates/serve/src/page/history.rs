//! An hour of figures.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::figures::Figures;

/// Where figures come from. It is asked often and answers from memory.
pub type FigureSource = Arc<dyn Fn() -> Figures + Send + Sync>;

/// The figures of a server, and how they were within the last hour. It outlives the pages that show it.
pub struct Trend {
    source: FigureSource,
    history: Mutex<History>,
}

impl Trend {
    /// One that has seen nothing yet.
    pub fn new(source: FigureSource) -> Arc<Self> {
        Arc::new(Self { source, history: Mutex::default() })
    }

    /// Takes a sample every 15 seconds until `stop` is cancelled.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(Duration::from_secs(EVERY));
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.sample();
        }
    }

    /// The figures of this moment.
    pub(super) fn now(&self) -> Figures {
        (self.source)()
    }

    /// How they were.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sample(&self) {
        let figures = self.now();
        self.history().take(&figures);
    }
}

/// So many seconds are between samples.
pub(super) const EVERY: u64 = 15;

/// So many intervals make an hour.
pub(super) const INTERVALS: usize = (60 * 60 / EVERY) as usize;

/// Counts at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    uptime: Duration,
    served: u64,
    fetched: u64,
    hits: u64,
    misses: u64,
}

/// What happened between two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Interval {
    /// Bytes a second to clients.
    pub(super) served: f64,
    /// Bytes a second from upstreams.
    pub(super) fetched: f64,
    /// The part of requests that no upstream was asked for, from 0 to 1; `None` if there were no requests.
    pub(super) ratio: Option<f64>,
}

/// Samples, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

impl History {
    /// Adds a sample, and drops what is older than an hour.
    pub(super) fn take(&mut self, figures: &Figures) {
        let sum = |count: fn(&crate::UpstreamFigures) -> u64| figures.upstreams.iter().map(count).sum();
        if self.0.len() > INTERVALS {
            self.0.pop_front();
        }
        self.0.push_back(Sample {
            uptime: figures.uptime,
            served: figures.bytes_served,
            fetched: sum(|one| one.bytes_fetched),
            hits: sum(|one| one.hits),
            misses: sum(|one| one.misses),
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The intervals between the samples.
    pub(super) fn intervals(&self) -> Vec<Interval> {
        self.0.iter().zip(self.0.iter().skip(1)).map(|(before, after)| between(before, after)).collect()
    }
}

fn between(before: &Sample, after: &Sample) -> Interval {
    // As long as they should be where the clock tells nothing.
    let seconds = after.uptime.saturating_sub(before.uptime).as_secs_f64();
    let seconds = if seconds > 0.0 { seconds } else { EVERY as f64 };
    let more = |count: fn(&Sample) -> u64| count(after).saturating_sub(count(before)) as f64;
    let (hits, misses) = (more(|s| s.hits), more(|s| s.misses));
    Interval {
        served: more(|s| s.served) / seconds,
        fetched: more(|s| s.fetched) / seconds,
        ratio: (hits + misses > 0.0).then(|| hits / (hits + misses)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn samples_are_taken_until_it_ends() {
        let trend = Trend::new(Arc::new(Figures::default));
        let stop = CancellationToken::new();
        let watching = tokio::spawn({
            let (trend, stop) = (Arc::clone(&trend), stop.clone());
            async move { trend.watch(stop).await }
        });
        tokio::time::sleep(Duration::from_secs(31)).await;
        stop.cancel();
        watching.await.unwrap();
        assert_eq!(trend.history().len(), 3);
    }

    #[test]
    fn an_hour_is_kept() {
        let mut history = History::default();
        for number in 0..300 {
            let uptime = Duration::from_secs(EVERY * number);
            history.take(&Figures { uptime, bytes_served: number * number * EVERY, ..Figures::default() });
        }
        let intervals = history.intervals();
        assert_eq!((history.len(), intervals.len()), (241, 240));
        let last = Interval { served: (299 * 299 - 298 * 298) as f64, fetched: 0.0, ratio: None };
        assert_eq!(intervals.last(), Some(&last));
    }
}
