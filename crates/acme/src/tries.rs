//! Tries that were in vain: kept, so that a server that is started again and again does not ask again and again.

use std::time::{Duration, SystemTime};

use crate::renewal::LONGEST_WAIT;

/// Tries to get a certificate, one after the other in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tries {
    /// For which hosts. Who asks for others has changed something, and tries at once.
    pub(crate) names: Vec<String>,
    /// How many.
    pub(crate) failures: u32,
    /// When the last of them was.
    pub(crate) last: SystemTime,
    /// When the next may be.
    pub(crate) next: SystemTime,
}

impl Tries {
    /// As it is kept: a line of hosts, and one of numbers.
    pub(crate) fn to_text(&self) -> String {
        let [last, next] = [self.last, self.next]
            .map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs());
        format!("{}\n{} {last} {next}\n", self.names.join(" "), self.failures)
    }

    /// What [`Tries::to_text`] wrote; `None` if it is something else.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (names, numbers) = text.split_once('\n')?;
        let numbers: Vec<u64> =
            numbers.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let [failures, last, next] = numbers[..] else { return None };
        let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Some(Self {
            names: names.split_whitespace().map(str::to_owned).collect(),
            failures: u32::try_from(failures).ok()?,
            last: at(last)?,
            next: at(next)?,
        })
    }

    /// Whether they count at `now` for a certificate of these hosts. A clock that was wrong must not stop everything.
    pub(crate) fn count(&self, names: &[String], now: SystemTime) -> bool {
        self.names == names && self.last <= now + LONGEST_WAIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let names = vec!["a.test".to_owned(), "*.a.test".to_owned()];
        let tries = Tries { names: names.clone(), failures: 3, last: at(1_000), next: at(4_000) };
        assert_eq!(Tries::from_text(&tries.to_text()), Some(tries.clone()));
        for broken in [
            "",
            "a.test",
            "a.test\n",
            "a.test\n1 2\n",
            "a.test\n1 2 x\n",
            "a.test\n1 2 99999999999999999999\n",
        ] {
            assert_eq!(Tries::from_text(broken), None, "{broken:?}");
        }
        assert!(tries.count(&names, at(1_000)) && tries.count(&names, at(900)));
        assert!(!tries.count(&names[..1], at(1_000)), "other hosts");
        let far = Tries { last: at(10_000_000), ..tries };
        assert!(!far.count(&names, at(1_000)), "the clock was wrong");
    }
}
