//! Percent-encoding and query strings.

use std::fmt::Write;

/// Decodes `%XX`. What cannot be decoded stays as it is: the grammar of the decoded text decides, and no grammar here
/// admits a `%`. A `+` stays a plus: it is part of nearly every artifact type, and nothing in this API has a blank.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Encodes everything but unreserved characters (RFC 3986 section 2.3).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The parameters of a query, decoded, in order.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(key, value)| (decode(key), decode(value)))
                .collect(),
        )
    }

    /// The first value of a parameter; `None` if it is absent or empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// All non-empty values of a parameter.
    pub(crate) fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, value)| k == key && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_once_and_keeps_the_rest() {
        assert_eq!(decode("sha256%3aabc"), "sha256:abc");
        assert_eq!(decode("a%253Ab"), "a%3Ab");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert_eq!(decode("a+b"), "a+b");
    }

    #[test]
    fn queries() {
        let query = Query::parse(Some("n=2&last=&tag=a&tag=b&flag&&artifactType=x%2Fy+json"));
        assert_eq!(query.get("n"), Some("2"));
        assert_eq!(query.get("last"), None);
        assert_eq!(query.get("flag"), None);
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(query.get("artifactType"), Some("x/y+json"));
        assert_eq!(Query::parse(None).get("n"), None);
    }

    proptest::proptest! {
        #[test]
        fn encoding_round_trips(text in "\\PC{0,40}") {
            proptest::prop_assert_eq!(decode(&encode(&text)), text);
        }
    }
}
