use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use ferry_store::{Error, Kind};

/// How often and how soon an operation that failed in a way that may pass is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Tries after the first; progress in between starts the count afresh.
    pub times: usize,
    /// The first pause; each later one is twice as long, with jitter.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 6, first: Duration::from_millis(200), longest: Duration::from_secs(15) }
    }
}

/// The pauses that are left for one operation.
pub(crate) struct Pauses {
    policy: Retry,
    left: ExponentialBackoff,
}

impl Pauses {
    pub(crate) fn new(policy: Retry) -> Self {
        Self { policy, left: build(policy) }
    }

    /// Starts afresh because the operation got further.
    pub(crate) fn reset(&mut self) {
        self.left = build(self.policy);
    }

    /// How long to wait before trying again after `error`; `None` if that is of no use or the tries are used up.
    pub(crate) fn after(&mut self, error: &Error) -> Option<Duration> {
        if !error.kind().is_transient() {
            return None;
        }
        let pause = self.left.next()?;
        Some(match error.kind() {
            Kind::RateLimited { after: Some(asked) } => pause.max(asked),
            _ => pause,
        })
    }
}

fn build(policy: Retry) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(policy.first)
        .with_max_delay(policy.longest)
        .with_max_times(policy.times)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let mut pauses = Pauses::new(Retry { times: 2, ..Retry::default() });
        assert!(pauses.after(&Error::not_found("x", "y")).is_none());
        let reset = Error::new(Kind::Unavailable, "x", "y", "reset");
        assert!(pauses.after(&reset).is_some() && pauses.after(&reset).is_some());
        assert!(pauses.after(&reset).is_none());
        pauses.reset();
        let limited = Error::new(Kind::RateLimited { after: Some(Duration::from_secs(99)) }, "x", "y", "");
        assert!(pauses.after(&limited).is_some_and(|pause| pause >= Duration::from_secs(99)));
    }
}
