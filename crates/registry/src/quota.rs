//! How many pulls a registry still allows (Docker Hub, `docs.docker.com/docker-hub/usage/pulls`).

use std::time::Duration;

use http::HeaderMap;

use crate::request::text;

/// A published quota, as the last answer told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many manifests may be read in a window.
    pub limit: u64,
    /// How many of them are left.
    pub remaining: u64,
    /// The window.
    pub window: Duration,
}

impl Quota {
    /// Reads `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`; `None` if the answer tells none.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let (limit, window) = parse(text(headers, "ratelimit-limit")?)?;
        let (remaining, _) = parse(text(headers, "ratelimit-remaining")?)?;
        Some(Self { limit, remaining, window })
    }
}

/// A number, and the window that it is of: six hours if it is not told.
fn parse(text: &str) -> Option<(u64, Duration)> {
    const USUAL: u64 = 6 * 60 * 60;
    let mut parts = text.split(';').map(str::trim);
    let number = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok()).unwrap_or(USUAL);
    Some((number, Duration::from_secs(window)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(limit: &str, remaining: &str) -> Option<Quota> {
        let mut headers = HeaderMap::new();
        for (name, value) in [("ratelimit-limit", limit), ("ratelimit-remaining", remaining)] {
            headers.insert(name, value.parse().unwrap());
        }
        Quota::read(&headers)
    }

    #[test]
    fn the_headers_of_docker_hub() {
        let quota = Quota { limit: 100, remaining: 76, window: Duration::from_secs(21600) };
        assert_eq!(read("100;w=21600", "76;w=21600"), Some(quota));
        assert_eq!(read("100", "76"), Some(quota));
        assert_eq!(read(" 100 ; x=1; w=60", "0").unwrap().window, Duration::from_secs(60));
        for bad in ["", "many", "-1", ";w=5", "99999999999999999999999"] {
            assert_eq!(read(bad, "76"), None, "{bad}");
            assert_eq!(read("100", bad), None, "{bad}");
        }
        assert_eq!(Quota::read(&HeaderMap::new()), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read(limit in "[ -~]{0,30}", remaining in "[0-9]{0,21};w=[0-9]{0,21}") {
            if let Some(quota) = read(&limit, &remaining) {
                proptest::prop_assert!(remaining.starts_with(&quota.remaining.to_string()) || remaining.starts_with('0'));
            }
        }

        #[test]
        fn quotas_are_read_back(limit: u64, remaining: u64, seconds: u64) {
            let quota = Quota { limit, remaining, window: Duration::from_secs(seconds) };
            let text = |number: u64| format!("{number};w={seconds}");
            proptest::prop_assert_eq!(read(&text(limit), &text(remaining)), Some(quota));
        }
    }
}
