//! Texts in JSON, TOML and YAML.

/// A text as JSON, TOML (basic strings) and YAML (double-quoted scalars) all write it.
pub(super) fn quoted(text: &str) -> String {
    // Of what JSON leaves as it is, TOML takes all but this one.
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// Texts in brackets.
pub(super) fn list<T: ToString>(texts: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| quoted(&text.to_string())).collect();
    format!("[{}]", texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_breaks_out_of_a_text() {
        assert_eq!(quoted("a\"b\\c\n\u{1b}\u{7f}"), r#""a\"b\\c\n\u001b\u007f""#);
        assert_eq!(list(["a", "b\"]"]), r#"["a", "b\"]"]"#);
    }
}
