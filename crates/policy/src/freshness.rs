//! How long what an upstream said of a tag is believed.

mod version;

use std::time::Duration;

use ferry_oci::Tag;

use crate::pattern::Pattern;

pub use version::is_version_like;

/// How long a tag counts as confirmed, for one upstream. Content that is asked for by digest has no age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// For tags that move, as `latest` and `1.27` do.
    pub moving: Duration,
    /// For tags that look like a version that was released once; see [`is_version_like`].
    pub version_like: Duration,
    /// For tags that fit a pattern; the first that fits decides, before either of the above.
    pub rules: Vec<(Pattern, Duration)>,
}

impl Freshness {
    /// How long after its last confirmation the tag is served without asking. Zero means always ask.
    pub fn for_tag(&self, tag: &Tag) -> Duration {
        match self.rules.iter().find(|(pattern, _)| pattern.matches(tag.as_str())) {
            Some((_, duration)) => *duration,
            None if is_version_like(tag) => self.version_like,
            None => self.moving,
        }
    }
}

impl Default for Freshness {
    /// A minute for tags that move, a day for those that look like versions: asking costs one HEAD, which no registry
    /// counts, while a wrong answer is the wrong image.
    fn default() -> Self {
        Self {
            moving: Duration::from_secs(60),
            version_like: Duration::from_secs(24 * 60 * 60),
            rules: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_decides_and_the_sort_of_tag_where_there_is_none() {
        let seconds = Duration::from_secs;
        let rule = |pattern: &str, n| (pattern.parse::<Pattern>().unwrap(), seconds(n));
        let freshness = Freshness {
            moving: seconds(1),
            version_like: seconds(2),
            rules: vec![rule("latest", 0), rule("1.27*", 3), rule("1.*", 4)],
        };
        for (tag, expected) in
            [("latest", 0), ("1.27", 3), ("1.27.4", 3), ("1.28", 4), ("1.28.1", 4), ("v2.0.0", 2), ("2.0", 1)]
        {
            assert_eq!(freshness.for_tag(&tag.parse().unwrap()), seconds(expected), "{tag}");
        }
    }

    #[test]
    fn a_minute_and_a_day() {
        let freshness = Freshness::default();
        for (tag, expected) in [("latest", 60), ("3.20", 60), ("v1.8.6", 86_400)] {
            assert_eq!(freshness.for_tag(&tag.parse().unwrap()).as_secs(), expected, "{tag}");
        }
    }
}
