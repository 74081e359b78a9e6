use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far the flow may lag behind and catch up: timers are not exact.
const SLACK: Duration = Duration::from_millis(50);

/// A body goes on about so many times a second: smooth enough for people and their timeouts, and few timers.
const PORTIONS: u64 = 4;
/// Smaller portions would cost more than they carry.
const LEAST_PORTION: u64 = 512;

/// Lets so many bytes pass in a second, from whomever they come, in the order in which they are asked for. A body takes no
/// second portion before its first has passed, so all have the same part.
pub(super) struct Pacer {
    /// Bytes a second.
    rate: u64,
    begun: Instant,
    /// When, since `begun`, the bytes that were let pass so far will have passed.
    free: Mutex<Duration>,
}

impl Pacer {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), begun: Instant::now(), free: Mutex::default() }
    }

    /// When it was last needed, as a weight.
    pub(super) fn recency(&self) -> u64 {
        let free = *self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = free.as_secs_f64();
        let begun = self.begun.elapsed().as_secs_f64();
        // Pacers begin at different times; what counts is how long ago each was free.
        (1e9 * (1.0 + seconds - begun).max(0.0)) as u64
    }

    /// When `bytes` more may pass.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let earliest = now.saturating_duration_since(self.begun).saturating_sub(SLACK);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*free).max(earliest);
        *free = begin + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.begun + begin
    }
}

/// The pace of one body: that of all its pacers.
pub(crate) struct Pace(Vec<Arc<Pacer>>);

impl Pace {
    /// `None` if nothing is to be kept to.
    pub(super) fn new(pacers: impl IntoIterator<Item = Arc<Pacer>>) -> Option<Self> {
        let pacers: Vec<_> = pacers.into_iter().collect();
        (!pacers.is_empty()).then_some(Self(pacers))
    }

    /// At most so many bytes are to be let pass at once; the fewer, the more bodies share.
    pub(super) fn portion(&self) -> usize {
        let portions = self.0.iter().map(|pacer| {
            // One holder is the limiter itself, if it is shared at all.
            let sharers = (Arc::strong_count(pacer) as u64).saturating_sub(1).max(1);
            (pacer.rate / PORTIONS / sharers).max(LEAST_PORTION)
        });
        portions.min().and_then(|portion| usize::try_from(portion).ok()).unwrap_or(usize::MAX)
    }

    /// When `bytes` more may pass.
    pub(super) fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        self.0.iter().map(|pacer| pacer.reserve(bytes, now)).max().unwrap_or(now)
    }

    /// Waits until `bytes` that have arrived may count as arrived. They are there already, so this is in one piece.
    pub(crate) async fn take(&self, bytes: usize) {
        let now = Instant::now();
        let at = self.reserve(bytes, now);
        if at > now {
            tokio::time::sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn portions(pace: &Pace, times: usize) -> Duration {
        let begun = Instant::now();
        for _ in 0..times {
            pace.take(pace.portion()).await;
        }
        begun.elapsed()
    }

    fn near(taken: Duration, seconds: f64) -> bool {
        (seconds - 0.3..seconds + 0.3).contains(&taken.as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn one_keeps_to_the_rate() {
        let pace = Pace::new([Arc::new(Pacer::new(20_000))]).unwrap();
        assert_eq!(pace.portion(), 5_000);
        // The first portion need not wait.
        let taken = portions(&pace, 41).await;
        assert!(near(taken, 10.0), "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_keep_to_the_rate_and_have_the_same_part() {
        let shared = Arc::new(Pacer::new(20_000));
        let [one, other] = [(); 2].map(|()| Pace::new([Arc::clone(&shared)]).unwrap());
        assert_eq!(one.portion(), 2_500);
        let (first, second) = tokio::join!(portions(&one, 41), portions(&other, 41));
        assert!(near(first, 10.0) && near(second, 10.0), "{first:?} {second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_slowest_decides() {
        let pace = Pace::new([Arc::new(Pacer::new(1_000_000)), Arc::new(Pacer::new(10_000))]).unwrap();
        assert_eq!(pace.portion(), 2_500);
        let taken = portions(&pace, 41).await;
        assert!(near(taken, 10.0), "{taken:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_is_not_saved_up() {
        let pacer = Arc::new(Pacer::new(1_000));
        let pace = Pace::new([Arc::clone(&pacer)]).unwrap();
        pace.take(1_000).await;
        let busy = pacer.recency();
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(pacer.recency() < busy);
        let begun = Instant::now();
        pace.take(1_000).await;
        pace.take(1_000).await;
        assert!(begun.elapsed() >= Duration::from_millis(900));
        assert!(Pace::new([]).is_none());
    }
}
