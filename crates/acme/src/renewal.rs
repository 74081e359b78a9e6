//! When to renew, and when to try again.

use std::ops::Range;
use std::time::{Duration, SystemTime};

/// The wait after the first failure. Let's Encrypt allows five failures of a host in an hour; with each wait three times as
/// long as the one before there are four.
const FIRST_WAIT: Duration = Duration::from_secs(5 * 60);

/// The longest wait between two tries.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(12 * 60 * 60);

/// When to renew a certificate that is good for `valid`: after two thirds of that time, or up to a thirtieth of it earlier,
/// as `share`, from 0 to 1, says. It is drawn once for each, so that not all come at once.
pub(crate) fn due(valid: &Range<SystemTime>, share: f64) -> SystemTime {
    let lifetime = valid.end.duration_since(valid.start).unwrap_or_default();
    valid.start + lifetime.mul_f64(2.0 / 3.0 - share.clamp(0.0, 1.0) / 30.0)
}

/// When to renew a certificate for which the authority suggests a window (RFC 9773 section 4.2).
pub(crate) fn within(window: &Range<SystemTime>, share: f64) -> SystemTime {
    let length = window.end.duration_since(window.start).unwrap_or_default();
    window.start + length.mul_f64(share.clamp(0.0, 1.0))
}

/// How long to wait after so many failures in a row; not less than was `asked` for.
pub(crate) fn pause(failures: u32, asked: Option<Duration>, share: f64) -> Duration {
    let factor = 3_u32.saturating_pow(failures.saturating_sub(1));
    let wait = FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT);
    let wait = wait.mul_f64(1.0 + share.clamp(0.0, 1.0) / 10.0);
    wait.max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn two_thirds_of_the_lifetime_are_used() {
        let valid = SystemTime::UNIX_EPOCH..SystemTime::UNIX_EPOCH + DAY * 90;
        let days = |share| {
            let due = due(&valid, share).duration_since(valid.start).unwrap();
            (due.as_secs_f64() / DAY.as_secs_f64()).round()
        };
        assert_eq!((days(0.0), days(0.2), days(1.0), days(7.0)), (60.0, 59.0, 57.0, 57.0));
        let (start, end) = (valid.start, valid.end);
        assert_eq!(due(&(end..start), 0.0), end, "a certificate that makes no sense is renewed");
    }

    #[test]
    fn a_window_is_kept_to() {
        let start = SystemTime::UNIX_EPOCH + DAY * 10;
        let window = start..start + DAY * 2;
        assert_eq!(within(&window, 0.0), start);
        assert_eq!(within(&window, 0.5), start + DAY);
        assert_eq!(within(&window, 1.0), window.end);
    }

    #[test]
    fn waits_grow_and_four_failures_fit_into_an_hour() {
        let minutes = |failures| pause(failures, None, 0.0).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5, 6, 60].map(minutes), [5, 15, 45, 135, 405, 720, 720]);
        assert!(minutes(1) + minutes(2) < 60 && minutes(1) + minutes(2) + minutes(3) > 60);
        assert_eq!(pause(1, None, 1.0), FIRST_WAIT + FIRST_WAIT / 10);
        assert_eq!(pause(1, Some(DAY), 0.3), DAY, "the authority knows best");
        assert_eq!(pause(6, Some(DAY / 24), 0.0), LONGEST_WAIT);
    }
}
