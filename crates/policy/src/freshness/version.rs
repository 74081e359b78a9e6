use ferry_oci::Tag;

/// Words that make a moving tag even of a full version: `1.2.3-SNAPSHOT` is whatever was built last.
const MOVING: [&str; 21] = [
    "canary", "current", "daily", "dev", "devel", "edge", "head", "latest", "main", "master", "next",
    "nightly", "preview", "rolling", "snapshot", "stable", "testing", "tip", "trunk", "unstable", "weekly",
];

/// Words after which a commit follows, as CI systems write it.
const BEFORE_COMMITS: [&str; 3] = ["commit", "git", "sha"];

/// Whether a tag looks as if it was given once and then left alone: a version of at least three numbers (`v1.2.3`,
/// `1.27.4-alpine`, `17.0.9_9-jdk`, `3.13.0rc1`), a date (`2024-01-01`, `bookworm-20240110`), or a commit (`sha-3f2a91c`, or all
/// 40 or 64 digits).
///
/// In doubt it is not: being asked too often costs a request, being asked too seldom serves what is old. So two numbers
/// (`1.27`, `22.04`) are a moving tag, for they follow the third number, and so is a version with a word such as `nightly` or
/// `SNAPSHOT`, unless a date or a commit pins that too. `sha256-…` is no commit: referrers and signatures are kept under such
/// tags, and get more.
pub fn is_version_like(tag: &Tag) -> bool {
    let lower = tag.as_str().to_ascii_lowercase();
    let words: Vec<&str> = lower.split(['-', '_']).collect();
    has_date(&lower) || has_commit(&lower, &words) || has_version(&words)
}

/// `2024-01-01`, `2024.01.01`, `20240101`, with or without a time (`20240101T101500Z`), between whatever else there is.
fn has_date(tag: &str) -> bool {
    let parts: Vec<&str> = tag.split(['-', '_', '.']).collect();
    let written_out = parts.windows(3).any(|three| match three {
        [year, month, day] => is_date(year, month, day.split('t').next().unwrap_or_default()),
        _ => false,
    });
    written_out || parts.iter().any(|part| is_timestamp(part))
}

fn is_timestamp(part: &str) -> bool {
    let (Some(date), Some(rest)) = (part.get(..8), part.get(8..)) else {
        return false;
    };
    let time = rest.strip_prefix('t').unwrap_or(rest);
    let time = time.strip_suffix('z').unwrap_or(time);
    let is_time = matches!(time.len(), 0 | 4 | 6) && digits(time);
    // The text is cut at bytes, which are digits where it matters.
    is_time && digits(date) && is_date(&date[..4], &date[4..6], &date[6..])
}

fn is_date(year: &str, month: &str, day: &str) -> bool {
    let number = |text: &str, length: usize| {
        (text.len() == length && digits(text)).then(|| text.parse::<u32>().ok()).flatten()
    };
    match (number(year, 4), number(month, 2), number(day, 2)) {
        (Some(year), Some(month), Some(day)) => {
            (2000..2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)
        }
        _ => false,
    }
}

fn has_commit(tag: &str, words: &[&str]) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let named = |two: &[&str]| match two {
        [word, commit] => BEFORE_COMMITS.contains(word) && (7..=64).contains(&commit.len()) && hex(commit),
        _ => false,
    };
    matches!(tag.len(), 40 | 64) && hex(tag) || words.windows(2).any(named)
}

/// The first word that begins with a number is the version; what comes later is of something else (`1.27-alpine3.18.2`).
fn has_version(words: &[&str]) -> bool {
    let number = |word: &&&str| {
        let word = word.strip_prefix('v').unwrap_or(word);
        word.starts_with(|c: char| c.is_ascii_digit())
    };
    let version = words.iter().find(number).map(|word| word.strip_prefix('v').unwrap_or(word));
    version.is_some_and(is_full)
        && !words.iter().flat_map(|word| word.split('.')).any(|word| MOVING.contains(&word))
}

/// At least three parts, of which those after the second may go on with letters: `3.13.0rc1`.
fn is_full(version: &str) -> bool {
    let parts: Vec<&str> = version.split('.').collect();
    let (numbers, more) = parts.split_at(parts.len().min(2));
    let begins = |part: &&str| part.starts_with(|c: char| c.is_ascii_digit());
    numbers.iter().all(|part| !part.is_empty() && digits(part)) && more.first().is_some_and(begins)
}

fn digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_dates_and_commits() {
        for tag in [
            "1.2.3",
            "v1.2.3",
            "V1.2.3",
            "1.27.4-alpine",
            "1.27.4-alpine3.18",
            "1.2.3.4",
            "v1.30.0-rc.1",
            "3.13.0rc1",
            "17.0.9_9-jdk",
            "jdk-17.0.9",
            "release-1.2.3",
            "2024-01-01",
            "2024.01.01",
            "2024_12_31",
            "20240101",
            "20240101T101500Z",
            "20240101101500",
            "nightly-2024-01-01",
            "bookworm-20240110-slim",
            "RELEASE.2024-01-01T16-36-33Z",
            "sha-3f2a91c",
            "git-3f2a91c0",
            "main-sha-3f2a91c",
            "1.2.3-SNAPSHOT-20240101",
            "0123456789abcdef0123456789abcdef01234567",
        ] {
            assert!(is_version_like(&tag.parse().unwrap()), "{tag}");
        }
    }

    #[test]
    fn what_moves() {
        let signature = format!("sha256-{}.sig", "a".repeat(64));
        let referrers = format!("sha256-{}", "a".repeat(64));
        for tag in [
            "latest",
            "stable",
            "main",
            "1",
            "v1",
            "1.2",
            "v1.27",
            "22.04",
            "3.20-alpine",
            "1.27-alpine3.18.2",
            "alpine3.18.2",
            "1.2.x",
            "1..2.3",
            "a.b.c",
            "1.2.3-SNAPSHOT",
            "1.2.3-dev",
            "1.2.3-nightly.4",
            "2024",
            "2024-01",
            "20241301",
            "20240132",
            "19991231",
            "99999999",
            "2024010112",
            "20240101TZ12",
            "sha-xyz1234",
            "sha-3f2a91",
            "main-3f2a91c",
            "deadbeef",
            "_",
            "___",
            "v",
            signature.as_str(),
            referrers.as_str(),
        ] {
            assert!(!is_version_like(&tag.parse().unwrap()), "{tag}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_tag_is_handled(tag in "[A-Za-z0-9_][A-Za-z0-9._-]{0,60}", date in "[0-9a-ftz.-]{1,24}") {
            for text in [tag, date] {
                if let Ok(tag) = text.parse::<Tag>() {
                    is_version_like(&tag);
                }
            }
        }

        #[test]
        fn three_numbers_are_a_version(a in 0u32..999, b in 0u32..999, c in 0u32..999, v in "v?") {
            let two: Tag = format!("{v}{a}.{b}").parse().unwrap();
            let three: Tag = format!("{two}.{c}").parse().unwrap();
            proptest::prop_assert!(is_version_like(&three) && !is_version_like(&two));
        }
    }
}
