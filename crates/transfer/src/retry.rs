use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use ferry_store::{Error, Kind};

/// How often and how soon an operation that failed in a way that may pass is tried again. Progress in between starts the
/// counts afresh.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Tries after a peer was not there or broke off.
    pub unavailable: usize,
    /// Tries after a peer fell silent; each has cost the time of noticing it already.
    pub stalled: usize,
    /// Tries after a peer asked for patience.
    pub limited: usize,
    /// The first pause; each later one is twice as long, with jitter.
    pub first: Duration,
    /// The longest pause that is not the peer's own wish.
    pub longest: Duration,
    /// The longest wish of a peer that is granted.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            unavailable: 6,
            stalled: 4,
            limited: 8,
            first: Duration::from_millis(200),
            longest: Duration::from_secs(15),
            patience: Duration::from_secs(120),
        }
    }
}

/// The pauses that are left for one operation.
pub(crate) struct Pauses {
    policy: Retry,
    left: Retry,
    delays: ExponentialBackoff,
}

impl Pauses {
    pub(crate) fn new(policy: Retry) -> Self {
        Self { policy, left: policy, delays: delays(policy) }
    }

    /// Starts afresh because the operation got further.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.policy);
    }

    /// How long to wait before trying again after `error`; `None` if that is of no use or the tries are used up.
    pub(crate) fn after(&mut self, error: &Error) -> Option<Duration> {
        let left = match error.kind() {
            Kind::RateLimited { after: Some(asked) } if asked > self.policy.patience => return None,
            Kind::Unavailable => &mut self.left.unavailable,
            Kind::Stalled => &mut self.left.stalled,
            Kind::RateLimited { .. } => &mut self.left.limited,
            _ => return None,
        };
        *left = left.checked_sub(1)?;
        let pause = self.delays.next()?;
        Some(match error.kind() {
            Kind::RateLimited { after: Some(asked) } => pause.max(asked),
            _ => pause,
        })
    }
}

fn delays(policy: Retry) -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(policy.first)
        .with_max_delay(policy.longest)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let mut pauses = Pauses::new(Retry { unavailable: 2, stalled: 1, ..Retry::default() });
        assert!(pauses.after(&Error::not_found("x", "y")).is_none());
        let error = |kind| Error::new(kind, "x", "y", "");
        let (reset, silent) = (error(Kind::Unavailable), error(Kind::Stalled));
        assert!(pauses.after(&reset).is_some() && pauses.after(&reset).is_some());
        assert!(pauses.after(&reset).is_none());
        assert!(pauses.after(&silent).is_some(), "each kind has tries of its own");
        assert!(pauses.after(&silent).is_none());
        pauses.reset();
        let limited = error(Kind::RateLimited { after: Some(Duration::from_secs(99)) });
        assert!(pauses.after(&limited).is_some_and(|pause| pause >= Duration::from_secs(99)));
        assert!(pauses.after(&reset).is_some());
        let hour = Some(Duration::from_secs(3600));
        assert!(pauses.after(&error(Kind::RateLimited { after: hour })).is_none(), "nobody waits for that");
    }
}
