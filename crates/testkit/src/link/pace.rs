use std::time::Duration;

use tokio::time::Instant;

/// How far the line may lag behind its schedule and catch up: timers are not exact.
const SLACK: Duration = Duration::from_millis(20);

/// A line that carries so many bytes per second.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// When the bytes put on the line so far have left.
    free: Option<Instant>,
}

impl Bucket {
    /// Puts `bytes` on the line; they have left when the instant returned comes.
    pub(super) fn take(&mut self, bytes: usize, rate: u64, now: Instant) -> Instant {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let start = self.free.map_or(now, |free| free.max(earliest));
        let left = start + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        self.free = Some(left);
        left
    }
}

/// How many bytes to read at once under `rate`, so that they flow evenly: about 20 ms worth.
pub(super) fn chunk_size(rate: Option<u64>) -> usize {
    match rate {
        Some(rate) => (rate / 50).clamp(512, 16 * 1024) as usize,
        None => 64 * 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_queue_and_idle_time_is_not_saved_up() {
        let mut bucket = Bucket::default();
        let start = Instant::now();
        assert_eq!(bucket.take(500, 1000, start), start + Duration::from_millis(500));
        assert_eq!(bucket.take(500, 1000, start), start + Duration::from_secs(1));
        let later = start + Duration::from_secs(10);
        assert_eq!(bucket.take(1000, 1000, later), later + Duration::from_secs(1) - SLACK);
    }
}
