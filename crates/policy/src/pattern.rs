//! Patterns: how configuration means many names with one text.

use std::fmt;
use std::str::FromStr;

use ferry_oci::Malformed;

use crate::cut;

/// A text in which `*` stands for any characters but `/`, and `**` for any characters at all; both also for none.
///
/// It describes the whole of a text, letter for letter: `library/*` is everything directly below `library`, and
/// `team/**` everything below `team` at any depth, but not `team` itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// How many bytes come before the first `*`.
    literal: usize,
    rest: Vec<Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Is(char),
    /// `*`
    Part,
    /// `**`
    Any,
}

impl Pattern {
    /// Whether `text` is what the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        let (literal, _) = self.text.split_at(self.literal);
        text.strip_prefix(literal).is_some_and(|rest| follows(&self.rest, rest))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pattern {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bad = |reason: &str| Malformed { what: "pattern", input: cut(text), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(bad("it is empty; ** stands for everything"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("a pattern has no blanks"));
        }
        // Nothing that a pattern describes has these; elsewhere they mean something, and here they would never fit.
        if text.contains(['?', '{', '}', '[', ']', '\\', '!', '^', '$']) {
            return Err(bad("only * (any characters but /) and ** (any characters) have a meaning here"));
        }
        let literal = text.find('*').unwrap_or(text.len());
        Ok(Self { text: text.to_owned(), literal, rest: pieces(&text[literal..]) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `text` is what `pattern` says, for patterns that stand in tables.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    follows(&pieces(pattern), text)
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(pattern.len());
    for c in pattern.chars() {
        match (c, pieces.last_mut()) {
            ('*', Some(last)) if *last == Piece::Part => *last = Piece::Any,
            ('*', _) => pieces.push(Piece::Part),
            (c, _) => pieces.push(Piece::Is(c)),
        }
    }
    pieces
}

/// Keeps the set of places in the pattern that the text read so far may have led to, so that no pattern and no text
/// costs more than the product of their lengths.
fn follows(pieces: &[Piece], text: &str) -> bool {
    let mut places = vec![false; pieces.len() + 1];
    places[0] = true;
    skip_wildcards(pieces, &mut places);
    for c in text.chars() {
        // From the end, so that one character moves no place twice.
        for at in (0..=pieces.len()).rev() {
            if !places[at] {
                continue;
            }
            let (stays, moves) = match pieces.get(at) {
                Some(Piece::Is(wanted)) => (false, *wanted == c),
                Some(Piece::Part) => (c != '/', false),
                Some(Piece::Any) => (true, false),
                None => (false, false),
            };
            places[at] = stays;
            if moves {
                places[at + 1] = true;
            }
        }
        skip_wildcards(pieces, &mut places);
        if !places.contains(&true) {
            return false;
        }
    }
    places[pieces.len()]
}

/// A wildcard may stand for nothing.
fn skip_wildcards(pieces: &[Piece], places: &mut [bool]) {
    for (at, piece) in pieces.iter().enumerate() {
        if places[at] && !matches!(piece, Piece::Is(_)) {
            places[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_describe_whole_texts() {
        for (pattern, text, expected) in [
            ("library/alpine", "library/alpine", true),
            ("library/alpine", "library/alpine2", false),
            ("library/alpine", "a/library/alpine", false),
            ("library/*", "library/alpine", true),
            ("library/*", "library/a/b", false),
            ("library/*", "library", false),
            ("*", "alpine", true),
            ("*", "", true),
            ("*", "a/b", false),
            ("**", "a/b/c", true),
            ("team/**", "team/a/b", true),
            ("team/**", "team", false),
            ("team/**", "teams/a", false),
            ("team**", "team", true),
            ("**/debug", "a/b/debug", true),
            ("*/debug", "a/b/debug", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*a*/b", "xay/b", true),
            ("*a*/b", "x/ab", false),
            ("**/x/*", "a/x/x/y", true),
            ("**/x/*", "a/x/y/z", false),
            ("***", "a/b", true),
            ("1.27*", "1.27", true),
            ("1.27*", "1.27.4-alpine", true),
            ("A", "a", false),
            ("镜*", "镜像", true),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(text), expected, "{pattern} {text}");
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
            assert_eq!(parsed.to_string(), pattern);
        }
    }

    #[test]
    fn what_would_mean_something_elsewhere_is_refused() {
        for bad in ["", "a b", "a\n", "v[0-9]", "{a,b}", "a?", "!a", "a\\*", "^a$"] {
            let error = bad.parse::<Pattern>().unwrap_err();
            assert_eq!(error.what, "pattern", "{bad:?}");
        }
    }

    /// Recursion over the stars would take longer than anybody waits.
    #[test]
    fn many_stars_cost_little() {
        let pattern: Pattern = "*a".repeat(60).parse::<Pattern>().unwrap();
        assert!(!pattern.matches(&format!("{}b", "a".repeat(255))));
        assert!(pattern.matches(&"a".repeat(255)));
    }

    /// The definition, said as simply as can be.
    fn slowly(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', '*', rest @ ..] => (0..=text.len()).any(|n| slowly(rest, &text[n..])),
            ['*', rest @ ..] => {
                (0..=text.len()).take_while(|n| !text[..*n].contains(&'/')).any(|n| slowly(rest, &text[n..]))
            }
            [c, rest @ ..] => {
                text.split_first().is_some_and(|(first, text)| first == c && slowly(rest, text))
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_the_definition_says(pattern in "[ab/*]{1,8}", text in "[ab/]{0,8}") {
            let parsed: Pattern = pattern.parse().unwrap();
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            proptest::prop_assert_eq!(parsed.matches(&text), slowly(&chars(&pattern), &chars(&text)));
        }

        #[test]
        fn any_text_is_handled(pattern in "\\PC{0,30}", text in "\\PC{0,60}") {
            if let Ok(parsed) = pattern.parse::<Pattern>() {
                proptest::prop_assert!(!parsed.matches(&text) || fits(&pattern, &text));
            }
        }
    }
}
