use crate::Malformed;

/// One authentication challenge (RFC 9110 section 11.6.1): a scheme and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`, …
    pub scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter; names are compared without case, the first occurrence counts.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Reads the value of one `WWW-Authenticate` header, which may hold several challenges.
///
/// # Errors
/// [`Malformed`] when the text is not a list of challenges.
pub fn parse_challenges(header: &str) -> Result<Vec<Challenge>, Malformed> {
    let mut parser = Parser { text: header, at: 0 };
    parser.challenges().ok_or_else(|| {
        Malformed::new(
            "WWW-Authenticate header",
            header,
            format!("unexpected text at character {}", parser.at),
        )
    })
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn challenges(&mut self) -> Option<Vec<Challenge>> {
        let mut found: Vec<Challenge> = Vec::new();
        loop {
            self.skip(|b| matches!(b, b' ' | b'\t' | b','));
            if self.at == self.text.len() {
                return Some(found);
            }
            let word = self.token()?.to_owned();
            if self.at_equals() {
                let value = self.value()?;
                found.last_mut()?.params.push((word, value));
            } else {
                found.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new() });
                self.token68();
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn token(&mut self) -> Option<&'a str> {
        let token = self.skip(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        (!token.is_empty()).then_some(token)
    }

    /// Whether `=` follows, and if so moves past it.
    fn at_equals(&mut self) -> bool {
        let before = self.at;
        self.skip(|b| matches!(b, b' ' | b'\t'));
        if self.peek() == Some(b'=') {
            self.at += 1;
            self.skip(|b| matches!(b, b' ' | b'\t'));
            return true;
        }
        self.at = before;
        false
    }

    /// Skips credentials in the one-token form (`Negotiate YWJj==`), which no registry uses for its own schemes.
    fn token68(&mut self) {
        let before = self.at;
        self.skip(|b| b == b' ');
        let token = self.skip(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        self.skip(|b| b == b'=');
        let ends = matches!(self.peek(), None | Some(b','));
        self.skip(|b| matches!(b, b' ' | b'\t'));
        if token.is_empty() || !(ends || matches!(self.peek(), None | Some(b','))) {
            self.at = before;
        }
    }

    fn value(&mut self) -> Option<String> {
        if self.peek() != Some(b'"') {
            // Unquoted URLs occur in the wild, so more than a token is taken here.
            let value = self.skip(|b| !matches!(b, b',' | b' ' | b'\t' | b'"'));
            return Some(value.to_owned());
        }
        self.at += 1;
        let mut value = String::new();
        let mut characters = self.text[self.at..].char_indices();
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' => {
                    self.at += offset + 1;
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                _ => value.push(character),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bearer() {
        let header = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let found = parse_challenges(header).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].param("Realm"), Some("https://auth.docker.io/token"));
        assert_eq!(found[0].param("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(found[0].param("error"), None);
    }

    #[test]
    fn several_in_one_header() {
        let found = parse_challenges(
            r#"Bearer realm="https://x/token",service="s",scope="*",Basic realm="a \"b\", c""#,
        )
        .unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].scheme, "basic");
        assert_eq!(found[1].param("realm"), Some(r#"a "b", c"#));
    }

    #[test]
    fn odd_but_seen() {
        let unquoted = parse_challenges("bearer realm=https://x/token,service = y").unwrap();
        assert_eq!(unquoted[0].param("realm"), Some("https://x/token"));
        assert_eq!(unquoted[0].param("service"), Some("y"));
        let negotiate = parse_challenges("Negotiate YWJj==, Basic realm=\"r\"").unwrap();
        assert_eq!(negotiate.len(), 2);
        assert_eq!(parse_challenges("Basic").unwrap().len(), 1);
        assert!(parse_challenges("").unwrap().is_empty());
        assert!(parse_challenges(r#"Bearer realm="open"#).is_err());
        assert!(parse_challenges("=x").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "\\PC{0,120}") {
            let _ = parse_challenges(&text);
        }

        #[test]
        fn quoted_values_survive(value in "[^\"\\\\]{0,40}") {
            let found = parse_challenges(&format!("Bearer realm=\"{value}\", service=x")).unwrap();
            proptest::prop_assert_eq!(found[0].param("realm"), Some(value.as_str()));
            proptest::prop_assert_eq!(found[0].param("service"), Some("x"));
        }
    }
}
