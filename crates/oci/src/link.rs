/// The target of the link with `rel="next"` in a `Link` header (RFC 8288 section 3), as it was written: absolute or
/// relative. `None` when there is no such link.
pub fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let (params, next) = split(after, ',');
        if has_rel_next(params) {
            return Some(target);
        }
        rest = next;
    }
}

fn has_rel_next(mut params: &str) -> bool {
    while !params.is_empty() {
        let (param, rest) = split(params, ';');
        if is_rel_next(param) {
            return true;
        }
        params = rest;
    }
    false
}

/// What is before and after the first `separator` that is not quoted.
fn split(text: &str, separator: char) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => return (&text[..at], &text[at + 1..]),
            _ => {}
        }
    }
    (text, "")
}

fn is_rel_next(param: &str) -> bool {
    param.split_once('=').is_some_and(|(key, value)| {
        key.trim().eq_ignore_ascii_case("rel")
            && value
                .trim()
                .trim_matches('"')
                .split_ascii_whitespace()
                .any(|rel| rel.eq_ignore_ascii_case("next"))
    })
}

/// A `Link` header that names `target` as the next page. The target must be percent-encoded already.
pub fn format_next_link(target: &str) -> String {
    format!("<{target}>; rel=\"next\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_page() {
        assert_eq!(
            next_link(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#),
            Some("/v2/a/tags/list?n=2&last=b")
        );
        assert_eq!(next_link("<https://x/y>; title=\"a, b\"; rel=next"), Some("https://x/y"));
        assert_eq!(next_link(r#"<a>; rel="prev", <b>; rel="last next""#), Some("b"));
        assert_eq!(next_link(r#"<a>; rel="prev""#), None);
        assert_eq!(next_link(r#"<a>; title="x; rel=next""#), None);
        assert_eq!(next_link(r#"<a>; title="\", <b>; rel=next", <c>; rel=next"#), Some("c"));
        assert_eq!(next_link("nonsense"), None);
        assert_eq!(next_link("<open"), None);
        assert_eq!(next_link(&format_next_link("/c?d=e")), Some("/c?d=e"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "\\PC{0,80}") {
            let _ = next_link(&text);
        }
    }
}
