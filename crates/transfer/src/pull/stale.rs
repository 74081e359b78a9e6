//! When what is known counts, and when it stands in for what cannot be had.

use std::time::{Duration, SystemTime};

use ferry_store::{Error, Kind, Result, Scope, Told};

use super::Pulled;
use super::once::Asked;
use super::silence::silent;

/// Whether the upstream does not want to answer; otherwise it cannot.
pub(super) fn is_refusal(kind: Kind) -> bool {
    matches!(kind, Kind::NotFound | Kind::Unauthorized | Kind::Denied)
}

impl Pulled {
    /// Whether something was confirmed so lately. An answer from the future, of a clock that was set back, is not young.
    pub(super) fn is_younger(&self, confirmed: SystemTime, than: Duration) -> bool {
        self.core.now().duration_since(confirmed).is_ok_and(|age| age < than)
    }

    /// How an answer came about that the cache gives.
    pub(super) fn told(&self, confirmed: SystemTime, stale: bool) -> Told {
        let age = self.core.now().duration_since(confirmed).unwrap_or_default();
        Told { age, stale, renewed: false }
    }

    /// Asks the upstream, together with all who ask now; not for long if there is another answer.
    pub(super) async fn wait_for<T: Clone>(
        &self,
        has_another: bool,
        ask: impl FnOnce() -> Asked<T>,
    ) -> Result<T> {
        if !has_another {
            return ask().answer().await;
        }
        let silence = &self.core.silence;
        let patience = silence.patience(self.core.now()).ok_or_else(silent)?;
        let asked = ask();
        let begun = asked.begun();
        let answer = asked.answer_within(patience).await;
        if answer.as_ref().is_err_and(|error| error.kind() == Kind::Stalled) {
            silence.unanswered(begun, self.core.now());
        }
        answer
    }

    /// How long what the upstream refuses is shown: it may be what only an account was ever meant to see.
    pub(super) fn keeps_withdrawn(&self) -> Duration {
        match self.core.options.scope {
            Scope::Upstream { account: None, .. } => self.core.options.keep_withdrawn,
            Scope::Upstream { account: Some(_), .. } | Scope::Hosted => Duration::ZERO,
        }
    }

    /// Whether what is known, and was withdrawn then, may be shown in place of `error`.
    pub(super) fn stands_in(&self, withdrawn: Option<SystemTime>, error: &Error) -> bool {
        let now = self.core.now();
        let since = withdrawn.or(is_refusal(error.kind()).then_some(now));
        since.is_none_or(|since| now.duration_since(since).unwrap_or_default() < self.keeps_withdrawn())
    }
}
