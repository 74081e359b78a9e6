use std::time::Duration;

use ferry_store::Kind;
use tokio::time::Instant;
use tracing::debug;

use crate::ClientOptions;
use crate::error::{Failure, Tried};

/// Which failures of a request are worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// All that may pass.
    Transient,
    /// Those without an answer, and rate limits: some registries answer a mount that they cannot do with a 5xx.
    Unanswered,
    /// None.
    Never,
}

/// The attempts of one request.
pub(crate) struct Attempts<'a> {
    options: &'a ClientOptions,
    retry: Retry,
    made: u32,
    begun: Instant,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(options: &'a ClientOptions, retry: Retry) -> Self {
        Self { options, retry, made: 1, begun: Instant::now() }
    }

    /// Waits before the next attempt, or gives the failure back if there is to be none.
    pub(crate) async fn after(&mut self, failure: Failure) -> Tried<()> {
        let Some(pause) = self.pause(&failure) else { return Err(failure) };
        self.made += 1;
        let jitter = rand::random_range(0.5..1.0);
        let pause = failure.retry_after.unwrap_or_default().max(pause.mul_f64(jitter));
        debug!(error = %failure.error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Our own pause before jitter; `None` if the failure is to be reported.
    fn pause(&self, failure: &Failure) -> Option<Duration> {
        let kind = failure.error.kind();
        let limited = matches!(kind, Kind::RateLimited { .. });
        let wanted = match self.retry {
            Retry::Transient => kind.is_transient(),
            Retry::Unanswered => kind.is_transient() && (limited || failure.status.is_none()),
            Retry::Never => false,
        };
        let too_long = failure.retry_after.is_some_and(|after| after > self.options.max_retry_after);
        let too_late = self.options.persistence.is_some_and(|limit| self.begun.elapsed() >= limit);
        if !wanted || too_long || too_late || self.made >= self.options.attempts {
            return None;
        }
        let doubled = self.options.backoff.saturating_mul(1 << (self.made - 1).min(16));
        Some(doubled.min(self.options.max_backoff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::What;

    fn failure(kind: Kind) -> Failure {
        What::new("test", "x").failure(kind, "")
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_not_kept_for_too_long() {
        let options =
            ClientOptions { persistence: Some(Duration::from_secs(20)), ..ClientOptions::default() };
        let attempts = Attempts::new(&options, Retry::Transient);
        tokio::time::advance(Duration::from_secs(19)).await;
        assert!(attempts.pause(&failure(Kind::Stalled)).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(attempts.pause(&failure(Kind::Stalled)).is_none());
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let options = ClientOptions { attempts: 20, ..ClientOptions::default() };
        let mut attempts = Attempts::new(&options, Retry::Transient);
        let mut pauses = Vec::new();
        for made in 1..=8 {
            attempts.made = made;
            pauses.push(attempts.pause(&failure(Kind::Unavailable)).unwrap().as_millis());
        }
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        attempts.made = 20;
        assert!(attempts.pause(&failure(Kind::Unavailable)).is_none());
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        let options = ClientOptions::default();
        let attempts = Attempts::new(&options, Retry::Transient);
        assert!(attempts.pause(&failure(Kind::NotFound)).is_none());
        assert!(attempts.pause(&failure(Kind::Denied)).is_none());
        let after = Some(Duration::from_secs(61));
        let long = Failure { retry_after: after, ..failure(Kind::RateLimited { after }) };
        assert!(attempts.pause(&long).is_none());
    }

    #[test]
    fn an_answer_to_a_mount_is_final() {
        let options = ClientOptions::default();
        let attempts = Attempts::new(&options, Retry::Unanswered);
        assert!(attempts.pause(&failure(Kind::Unavailable)).is_some());
        let status = Some(http::StatusCode::BAD_GATEWAY);
        assert!(attempts.pause(&Failure { status, ..failure(Kind::Unavailable) }).is_none());
        let limited = Failure { status, ..failure(Kind::RateLimited { after: None }) };
        assert!(attempts.pause(&limited).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_retry_after_is_waited_for() {
        let options = ClientOptions::default();
        let mut attempts = Attempts::new(&options, Retry::Transient);
        let after = Some(Duration::from_secs(30));
        let begun = tokio::time::Instant::now();
        let limited = Failure { retry_after: after, ..failure(Kind::RateLimited { after }) };
        attempts.after(limited).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(30));
    }
}
