//! What a peer sends is read without panic, and what is accepted is what the specifications allow: their regular
//! expressions are written out here by hand once more, or generate the text.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use bytes::Bytes;
use ferry_oci::{
    Algorithm, Content, ContentRange, Descriptor, Digest, ErrorBody, ErrorCode, ImageReference, Manifest,
    Name, Reference, Registry, Tag, UploadRange, fallback_tag, format_next_link, media_type, next_link,
    parse_challenges, parse_error_body, parse_range,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// Text as a peer may send it: anything, nearly right, or right but for one place.
fn text() -> impl Strategy<Value = String> {
    let right = prop_oneof![
        "[a-z0-9]{1,4}([._/-]{1,2}[a-z0-9]{1,4}){0,2}",
        "(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})",
        "(\\[::[0-9a-f]{1,4}\\]|[a-z0-9]{1,9}(\\.[a-z]{2,4}){1,2})(:[0-9]{1,5})?",
        "(bytes )?[0-9]{1,3}-[0-9]{1,20}(/([0-9]{1,20}|\\*))?",
        "([a-z]{1,5}\\.io/)?[a-z]{1,5}(:[a-z0-9.]{1,5})?(@sha256:[0-9a-f]{64})?",
    ];
    let flaws = vec![
        ".", "..", "/../", "//", "_", "___", "-", "%2f", "%00", "\0", "\\", ":", "@", " ", "\n", "A", "F",
        "é", "?", "#", "+", "[", "0",
    ];
    let flawed = (right, any::<prop::sample::Index>(), select(flaws), any::<bool>());
    let flawed = flawed.prop_map(|(mut text, place, flaw, instead)| {
        let at = place.index(text.len());
        text.replace_range(at..at + usize::from(instead), flaw);
        text
    });
    prop_oneof![1 => any::<String>(), 1 => "[a-zA-Z0-9._:/@%-]{0,40}", 6 => flawed]
}

/// What is accepted prints as something that is read as the same.
fn round_trip<T: FromStr + Display + Debug + PartialEq>(text: &str) -> Result<Option<T>, TestCaseError>
where
    T::Err: Debug,
{
    let Ok(read) = text.parse::<T>() else { return Ok(None) };
    let again = read.to_string().parse::<T>().ok();
    prop_assert_eq!(again.as_ref(), Some(&read));
    Ok(Some(read))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` in each part.
fn is_name(text: &str) -> bool {
    let separators = ['.', '_', '-'];
    text.split('/').all(|part| {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let edge = |c: Option<char>| c.is_some_and(word);
        let good = part.chars().all(|c| word(c) || separators.contains(&c));
        let mut between = part.split(word).filter(|run| !run.is_empty());
        let apart = between.all(|run| matches!(run, "." | "_" | "__") || run.trim_matches('-').is_empty());
        good && apart && edge(part.chars().next()) && edge(part.chars().last())
    })
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// `sha256:[a-f0-9]{64}` or `sha512:[a-f0-9]{128}`.
fn is_digest(text: &str) -> bool {
    let hex =
        |rest: &str, length| rest.len() == length && rest.chars().all(|c| "0123456789abcdef".contains(c));
    text.strip_prefix("sha256:").is_some_and(|rest| hex(rest, 64))
        || text.strip_prefix("sha512:").is_some_and(|rest| hex(rest, 128))
}

/// Nothing in it ends a part of a path, leaves it, or means something else in a URL.
fn stays_in_its_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/".contains(c);
    text.chars().all(plain) && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn names_tags_and_digests_are_those_of_the_specification(text in text()) {
        if let Some(name) = round_trip::<Name>(&text)? {
            prop_assert!(is_name(name.as_str()) && name.as_str() == text && text.len() <= 255);
        }
        if let Some(tag) = round_trip::<Tag>(&text)? {
            prop_assert!(is_tag(tag.as_str()) && tag.as_str() == text);
        }
        if let Some(digest) = round_trip::<Digest>(&text)? {
            prop_assert!(is_digest(&text) && digest.to_string() == text);
        }
        if let Some(reference) = round_trip::<Reference>(&text)? {
            prop_assert!(stays_in_its_path(&reference.to_string()));
        }
    }

    #[test]
    fn registries_and_references_are_read_back(text in text()) {
        if let Some(registry) = round_trip::<Registry>(&text)? {
            let host = registry.as_str();
            prop_assert!(host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c)), "{host}");
            prop_assert!(host.starts_with(registry.host()));
        }
        if let Some(image) = round_trip::<ImageReference>(&text)? {
            prop_assert!(is_name(image.repository.as_str()));
        }
    }

    #[test]
    fn ranges_are_read_back(text in text(), size: u64) {
        parse_range(&text, size);
        if let Some(part) = round_trip::<ContentRange>(&text)? {
            prop_assert!(part.range.start < part.range.end);
            prop_assert!(part.total.is_none_or(|total| part.range.end <= total));
        }
        if let Some(UploadRange(range)) = round_trip::<UploadRange>(&text)? {
            prop_assert!(range.start < range.end);
        }
    }
}

proptest! {
    #[test]
    fn all_names_of_the_specification_are_accepted(
        text in "[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,3}(/[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,3}){0,3}",
    ) {
        prop_assert!(text.parse::<Name>().is_ok() && is_name(&text) && stays_in_its_path(&text));
    }

    #[test]
    fn all_tags_of_the_specification_are_accepted(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
        prop_assert!(text.parse::<Tag>().is_ok() && is_tag(&text) && stays_in_its_path(&text));
    }

    #[test]
    fn digests_are_read_back_and_their_fallback_tags_are_tags(content: Vec<u8>) {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, &content);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
            prop_assert!(is_tag(fallback_tag(&digest).as_str()));
        }
    }

    #[test]
    fn content_ranges_round_trip(start in 0u64..1 << 60, length in 1u64..1 << 60, more in 0u64..1 << 60, told: bool) {
        let end = start + length;
        let range = ContentRange { range: start..end, total: told.then_some(end + more) };
        prop_assert_eq!(range.to_string().parse(), Ok(range));
    }

    #[test]
    fn links_are_found_again(target in "[!-;=?-~]{0,60}", before in "(<[a-z/]{0,9}>; (rel=prev|rel=\"prev\"|title=\"[a-z<>;,=]{0,9}; rel=next\"), ?){0,3}") {
        let header = format!("{before}{}", format_next_link(&target));
        prop_assert_eq!(next_link(&header), Some(target.as_str()));
    }

    #[test]
    fn a_link_is_a_part_of_its_header(header in prop_oneof![any::<String>(), "[<>;,\"= a-z/?]{0,60}"]) {
        if let Some(target) = next_link(&header) {
            let written = format!("<{target}>");
            prop_assert!(header.contains(&written) && !target.contains('>'));
        }
    }

    #[test]
    fn challenges_are_read_as_they_are_written(
        schemes in vec(("[A-Za-z][A-Za-z0-9-]{0,8}", btree_map("[a-z]{1,8}", any::<String>(), 1..4)), 0..4),
    ) {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let written: Vec<String> = schemes
            .iter()
            .map(|(scheme, params)| {
                let params: Vec<String> =
                    params.iter().map(|(key, value)| format!("{key}=\"{}\"", quoted(value))).collect();
                format!("{scheme} {}", params.join(", "))
            })
            .collect();
        let read = parse_challenges(&written.join(", ")).unwrap();
        prop_assert_eq!(read.len(), schemes.len());
        for (read, (scheme, params)) in read.iter().zip(&schemes) {
            prop_assert_eq!(&read.scheme, &scheme.to_ascii_lowercase());
            for (key, value) in params {
                prop_assert_eq!(read.param(key), Some(value.as_str()));
            }
        }
    }

    #[test]
    fn any_challenge_is_handled(header in prop_oneof![any::<String>(), "[A-Za-z=\", \\\\/]{0,80}"]) {
        if let Ok(found) = parse_challenges(&header) {
            prop_assert!(found.iter().all(|one| !one.scheme.is_empty()));
        }
    }

    #[test]
    fn any_error_body_is_handled(body in prop_oneof![any::<Vec<u8>>(), json_value().prop_map(|v| v.to_string().into())]) {
        parse_error_body(&body);
    }

    #[test]
    fn errors_are_read_back(message: String) {
        let error = ErrorBody { code: ErrorCode::Denied, message };
        prop_assert_eq!(parse_error_body(error.to_json().as_bytes()), vec![error]);
    }

    #[test]
    fn complaints_are_short_and_command_no_terminal(text: String, key: String, document in json_value()) {
        let written = document.to_string().replacen("\"a\"", &json!(key).to_string(), 1);
        let complaints = [
            text.parse::<Name>().err(),
            text.parse::<Digest>().err(),
            text.parse::<ImageReference>().err(),
            Manifest::parse(Some(&text), Bytes::from(written)).err(),
        ];
        for complaint in complaints.into_iter().flatten() {
            prop_assert!(complaint.reason.chars().count() <= 301 && complaint.input.chars().count() <= 121);
            prop_assert!(!complaint.to_string().chars().any(char::is_control), "{}", complaint);
        }
    }
}

/// Any JSON, with keys that mean something in a manifest more often than not.
fn json_value() -> impl Strategy<Value = Value> {
    let keys = select(vec![
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "Layers",
        "subject",
        "digest",
        "size",
        "platform",
        "annotations",
        "a",
        "b",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(2)),
        select(media_type::MANIFESTS.to_vec()).prop_map(Value::from),
        any::<[u8; 1]>().prop_map(|seed| json!(Digest::sha256(&seed))),
        // Without braces, so that every brace of the text opens an object.
        any::<String>().prop_map(|text| Value::from(text.replace('{', ""))),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((keys.clone(), inner), 0..5).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let annotations = proptest::option::of(btree_map(any::<String>(), any::<String>(), 0..3));
    (any::<[u8; 4]>(), 0..u64::MAX, "[a-z/.+-]{0,20}", annotations).prop_map(
        |(content, size, media_type, annotations)| Descriptor {
            annotations,
            ..Descriptor::new(media_type, Digest::sha256(&content), size)
        },
    )
}

proptest! {
    #[test]
    fn any_document_is_handled(
        document in json_value(),
        label in proptest::option::of(select(media_type::MANIFESTS.to_vec())),
        bytes: Vec<u8>,
    ) {
        let text = Bytes::from(document.to_string());
        if let Ok(manifest) = Manifest::parse(label, text.clone()) {
            prop_assert_eq!(manifest.bytes(), &text);
            prop_assert!(label.is_none_or(|label| label == manifest.media_type()));
            let own = document.get("mediaType").and_then(Value::as_str);
            prop_assert!(own.is_none_or(|own| own == manifest.media_type()));
        }
        prop_assert!(Manifest::parse(label, Bytes::from(bytes)).is_err());
    }

    #[test]
    fn what_a_manifest_names_is_what_was_written(
        config in descriptor(),
        layers in vec(descriptor(), 0..6),
        subject in proptest::option::of(descriptor()),
        is_index: bool,
    ) {
        let mut document = match is_index {
            true => json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": &layers}),
            false => json!({
                "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": &config, "layers": &layers,
            }),
        };
        if let Some(subject) = &subject {
            document["subject"] = json!(subject);
        }
        let manifest = Manifest::parse(None, Bytes::from(document.to_string())).unwrap();
        prop_assert_eq!(manifest.subject(), subject.as_ref());
        match manifest.content() {
            Content::Index(children) => prop_assert_eq!((children, is_index), (&layers, true)),
            Content::Image { config: read, layers: found } => prop_assert_eq!((read, found), (&config, &layers)),
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_wherever_it_is(document in json_value(), place: prop::sample::Index) {
        let whole = json!({
            "schemaVersion": 2, "config": {"digest": Digest::sha256(b""), "size": 0}, "x": {"y": [document]},
        });
        let text = whole.to_string();
        let opened: Vec<usize> = text.match_indices('{').map(|(at, _)| at).collect();
        let at = opened[place.index(opened.len())] + 1;
        let comma = if text[at..].starts_with('}') { "" } else { "," };
        let twice = format!(r#"{}"\u0061":1,"a":2{comma}{}"#, &text[..at], &text[at..]);
        let once = format!(r#"{}"twice":1{comma}{}"#, &text[..at], &text[at..]);
        prop_assert!(Manifest::parse(None, Bytes::from(once)).is_ok());
        prop_assert!(Manifest::parse(None, Bytes::from(twice)).is_err());
    }
}
