use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How far the flow may lag behind and catch up: timers are not exact.
const SLACK: Duration = Duration::from_millis(50);

/// Lets so many bytes pass in a second, from whomever they come.
pub(crate) struct Pacer {
    rate: Option<u64>,
    /// When the bytes that were let pass so far will have passed.
    free: Mutex<Option<Instant>>,
}

impl Pacer {
    /// `None` lets everything pass.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.map(|rate| rate.max(1)), free: Mutex::default() }
    }

    /// At most so many bytes are to be taken at once, so that they flow evenly.
    pub(crate) fn portion(&self) -> usize {
        self.rate.map_or(usize::MAX, |rate| usize::try_from(rate / 4).unwrap_or(usize::MAX).max(256))
    }

    /// Waits until `bytes` more may have passed.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let passed = {
            let now = Instant::now();
            let earliest = now.checked_sub(SLACK).unwrap_or(now);
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = free.map_or(now, |free| free.max(earliest));
            *free.insert(begin + Duration::from_secs_f64(bytes as f64 / rate as f64))
        };
        sleep_until(passed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_together_keep_to_the_rate() {
        let pacer = Pacer::new(Some(20_000));
        let begun = Instant::now();
        let one = async {
            for _ in 0..20 {
                pacer.take(5_000).await;
            }
        };
        let other = async {
            for _ in 0..20 {
                pacer.take(5_000).await;
            }
        };
        tokio::join!(one, other);
        let taken = begun.elapsed();
        assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&taken), "{taken:?}");
        assert_eq!(pacer.portion(), 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_is_not_saved_up() {
        let pacer = Pacer::new(Some(1_000));
        pacer.take(1_000).await;
        tokio::time::advance(Duration::from_secs(100)).await;
        let begun = Instant::now();
        pacer.take(1_000).await;
        assert!(begun.elapsed() >= Duration::from_millis(900));
        Pacer::new(None).take(usize::MAX).await;
    }
}
