//! What a manifest must not leave open to its readers: keys that stand twice, keys that only those take for a field who
//! ignore case (Go's decoder does), lists where an object belongs.
//!
//! Nothing is built while looking: a few bytes of JSON can become a hundred times as many in memory.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The most values of a manifest. One of 10,000 entries that are all annotated has half of them.
const MAX_VALUES: usize = 500_000;

/// The keys of the object that `bytes` are, if its shape is that of a manifest.
pub(crate) fn keys(bytes: &[u8]) -> Result<HashSet<String>, serde_json::Error> {
    let left = Cell::new(MAX_VALUES);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let keys = Look { place: Place::Manifest, left: &left }.deserialize(&mut json)?;
    json.end().map(|()| keys)
}

/// Where in a manifest a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Manifest,
    Descriptors,
    Descriptor,
    Platform,
    /// Where keys are free: annotations, and everything that is not specified.
    Free,
}

impl Place {
    /// The keys that mean something here.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Manifest => &[
                "schemaVersion",
                "mediaType",
                "artifactType",
                "config",
                "layers",
                "manifests",
                "subject",
                "annotations",
                "fsLayers",
                "history",
            ],
            Self::Descriptor => {
                &["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"]
            }
            Self::Platform => &["architecture", "os", "os.version", "os.features", "variant", "features"],
            Self::Descriptors | Self::Free => &[],
        }
    }

    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Manifest, "config" | "subject") => Self::Descriptor,
            (Self::Manifest, "layers" | "manifests") => Self::Descriptors,
            (Self::Descriptor, "platform") => Self::Platform,
            _ => Self::Free,
        }
    }

    fn is_object(self) -> bool {
        matches!(self, Self::Manifest | Self::Descriptor | Self::Platform)
    }

    /// The field that some readers take `key` for. By upper case, because `ſ` is an `s` to them as well.
    fn taken_for(self, key: &str) -> Option<&'static str> {
        let folded = key.to_uppercase();
        let mut fields = self.fields().iter().copied();
        fields.find(|field| *field != key && folded.eq_ignore_ascii_case(field))
    }
}

/// Looks at one value; gives back the keys if it is an object.
#[derive(Clone, Copy)]
struct Look<'a> {
    place: Place,
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Look<'_> {
    type Value = HashSet<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let left = self.left.get().checked_sub(1);
        let left = left.ok_or_else(|| D::Error::custom(format!("more than {MAX_VALUES} values")))?;
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

/// What has no parts.
impl Look<'_> {
    fn plain<E: de::Error>(self) -> Result<HashSet<String>, E> {
        if self.place == Place::Manifest { Err(E::custom("not a JSON object")) } else { Ok(HashSet::new()) }
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = HashSet<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        self.plain()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        self.plain()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        self.plain()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        self.plain()
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        self.plain()
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        self.plain()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let place = match self.place {
            Place::Descriptors => Place::Descriptor,
            place if place.is_object() => return Err(A::Error::custom("a list where an object belongs")),
            _ => Place::Free,
        };
        while list.next_element_seed(Look { place, ..self })?.is_some() {}
        Ok(HashSet::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            if let Some(field) = self.place.taken_for(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands where {field:?} is meant")));
            }
            object.next_value_seed(Look { place: self.place.below(&key), ..self })?;
            if let Some(twice) = keys.replace(key) {
                return Err(A::Error::custom(format!("the key {twice:?} stands twice")));
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(text: &str) -> bool {
        keys(text.as_bytes()).is_err()
    }

    #[test]
    fn a_key_that_some_take_for_a_field_is_refused_wherever_it_would_count() {
        for text in [
            r#"{"Layers":[]}"#,
            r#"{"layerſ":[]}"#,
            r#"{"MEDIATYPE":"x"}"#,
            r#"{"layers":[{"Digest":"x"}]}"#,
            r#"{"manifests":[{},{"platform":{"OS":"linux"}}]}"#,
            r#"{"config":{"ſize":1}}"#,
            r#"{"subject":{"urLs":[]}}"#,
        ] {
            assert!(is_refused(text), "{text}");
        }
        for text in [
            r#"{"annotations":{"Size":"1","size":"2"},"layers":[{"annotations":{"Digest":"x"}}]}"#,
            r#"{"org.example":{"Layers":[{"Digest":1,"digest":2}]},"layers":[{"x":{"Size":1}}]}"#,
            r#"{"layers":null,"config":null}"#,
        ] {
            assert!(!is_refused(text), "{text}");
        }
    }

    #[test]
    fn duplicates_are_refused_at_any_depth() {
        for text in
            [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"b":2,"a":3}]}"#, r#"{"x":{"y":{"\u0061":1,"a":1}}}"#]
        {
            assert!(is_refused(text), "{text}");
        }
        assert_eq!(keys(br#"{"a":{"b":1},"b":{"b":1}}"#).unwrap().len(), 2);
    }

    #[test]
    fn lists_and_words_are_no_objects() {
        for text in ["[]", "7", "null", r#""x""#, r#"{"config":["x","y",1]}"#, r#"{"layers":[["x","y",1]]}"#]
        {
            assert!(is_refused(text), "{text}");
        }
        assert!(is_refused("{} x") && is_refused("{") && is_refused(""));
    }

    #[test]
    fn depth_and_number_of_values_have_a_limit() {
        assert!(is_refused(&format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000))));
        let many = |count| format!(r#"{{"x":[{}0]}}"#, "0,".repeat(count));
        assert!(!is_refused(&many(MAX_VALUES - 10)) && is_refused(&many(MAX_VALUES)));
    }
}
