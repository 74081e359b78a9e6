use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ferry_store::{Error, Kind, Result};
use tokio::time::Instant;

/// Whoever has another answer waits this part of the usual patience for an upstream that was silent lately.
const LESS: u32 = 10;

/// Whether the upstream says nothing at all, to whatever it is asked. Those who have another answer then wait for it no
/// more, so that a dead upstream is waited for once and not once for every tag.
pub(super) struct Silence {
    patience: Duration,
    remember: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    noticed: Option<SystemTime>,
    /// When it said something last.
    heard: Option<Instant>,
}

impl Silence {
    pub(super) fn new(patience: Duration, remember: Duration) -> Self {
        Self { patience, remember, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait for the upstream. `None` while it need not be asked: it was silent a moment ago.
    pub(super) fn patience(&self, now: SystemTime) -> Option<Duration> {
        match self.lock().noticed {
            None => Some(self.patience),
            // A clock that was set back makes nothing young.
            Some(then) if now.duration_since(then).is_ok_and(|age| age < self.remember) => None,
            Some(_) => Some(self.patience / LESS),
        }
    }

    /// What became of a question.
    pub(super) fn note<T>(&self, answer: &Result<T>, now: SystemTime) {
        let mut state = self.lock();
        if answer.as_ref().is_err_and(|error| error.kind() == Kind::Stalled) {
            state.noticed = Some(now);
        } else {
            (state.noticed, state.heard) = (None, Some(Instant::now()));
        }
    }

    /// A question that was asked then has no answer yet. That says nothing if others were answered since.
    pub(super) fn unanswered(&self, asked: Instant, now: SystemTime) {
        let mut state = self.lock();
        if state.heard.is_none_or(|heard| heard < asked) {
            state.noticed = Some(now);
        }
    }
}

/// What those get who do not ask.
pub(super) fn silent() -> Error {
    Error::new(Kind::Stalled, "ask", "upstream", "it does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_the_upstream_is_heard() {
        let silence = Silence::new(Duration::from_secs(5), Duration::from_secs(10));
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let patience = |seconds| silence.patience(at(seconds)).map(|patience| patience.as_millis());
        assert_eq!(patience(100), Some(5000));
        silence.note(&Err::<(), _>(silent()), at(100));
        assert_eq!((patience(100), patience(109), patience(110)), (None, None, Some(500)));
        assert_eq!(patience(99), Some(500), "the clock was set back");
        let refused = Error::not_found("read", "x");
        silence.note(&Err::<(), _>(refused), at(110));
        assert_eq!(patience(110), Some(5000), "it says something");
        silence.note(&Err::<(), _>(silent()), at(120));
        silence.note(&Ok(()), at(121));
        assert_eq!(patience(121), Some(5000));
        let asked = Instant::now();
        silence.unanswered(asked, at(130));
        assert_eq!(patience(130), None);
        silence.note(&Ok(()), at(131));
        silence.unanswered(asked, at(132));
        assert_eq!(patience(132), Some(5000), "it answered somebody who asked later");
    }
}
