//! Numbers as people read them.

use std::time::Duration;

use ferry_policy::clients::Language;

/// Bytes with three digits: `1.23 GB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    // What would be shown as 1000 is one of the next unit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Bytes a second.
pub(super) fn rate(per_second: f64) -> String {
    format!("{}/s", bytes(per_second.round() as u64))
}

/// A part of a whole in percent, cut so that only all is 100; a dash if there is no whole.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "–".to_owned(),
        whole => format!("{} %", share(part, whole)),
    }
}

/// A part of a whole in percent, at most 100.
pub(super) fn share(part: u64, whole: u64) -> u64 {
    let share = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(100).min(100)
}

/// A count with its thousands apart.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| std::str::from_utf8(part).ok()).collect();
    parts.join("\u{202f}")
}

/// A time in its two largest units.
pub(super) fn time(time: Duration, language: Language) -> String {
    let seconds = time.as_secs();
    let [days, hours, minutes] = match language {
        Language::English => ["d", "h", "min"],
        Language::Chinese => ["天", "小时", "分钟"],
    };
    let (d, h, m) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (d, h) {
        (0, 0) => format!("{m} {minutes}"),
        (0, _) => format!("{h} {hours} {m} {minutes}"),
        _ => format!("{d} {days} {h} {hours}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (2_500_000_000, "2.50 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        assert_eq!(
            (percent(1, 0), percent(999, 1000), percent(3, 3)),
            ("–".into(), "99 %".into(), "100 %".into())
        );
        assert_eq!(share(u64::MAX, 1), 100);
        assert_eq!((count(0), count(1_234_567)), ("0".into(), "1\u{202f}234\u{202f}567".into()));
        let hours = Duration::from_secs(49 * 3600 + 61);
        assert_eq!(
            (time(hours, Language::English), time(hours, Language::Chinese)),
            ("2 d 1 h".into(), "2 天 1 小时".into())
        );
        assert_eq!(time(Duration::from_secs(59), Language::English), "0 min");
        assert_eq!(time(Duration::from_secs(3700), Language::English), "1 h 1 min");
    }
}
