//! The images that a YAML text names, and where.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

/// A value that names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The value.
    pub(super) image: String,
    /// Its bytes in the text, quotes included.
    pub(super) bytes: Range<usize>,
    /// How it is quoted.
    pub(super) quote: Option<char>,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Found {
    /// Whether nothing is named.
    fn is_null(&self) -> bool {
        self.image.is_empty() || (self.quote.is_none() && matches!(self.image.as_str(), "~" | "null"))
    }
}

/// The values that name images, in their order: under the key `image` of any mapping, and under `reference` in an `image` (volumes
/// of Kubernetes). Not what is no image of a registry: what Compose builds, and the block devices of Ceph.
///
/// # Errors
/// Where the text is not YAML.
pub(super) fn find(text: &str) -> Result<Vec<Found>, ScanError> {
    let mut reader = Reader::default();
    for next in Parser::new_from_str(text) {
        let (event, span) = next?;
        reader.read(&event, &span);
    }
    let mut found = reader.found;
    found.sort_by_key(|found| found.bytes.start);
    found.dedup();
    Ok(found)
}

/// A mapping or sequence that is not closed yet.
#[derive(Default)]
struct Open {
    /// The key that it stands under; a sequence hands it on to its items.
    under: String,
    is_mapping: bool,
    /// The key whose value comes next.
    key: Option<String>,
    keys: Vec<String>,
    found: Vec<Found>,
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    /// Scalars with an anchor: whoever refers to one as an image names it there.
    anchors: HashMap<usize, Found>,
    found: Vec<Found>,
}

impl Reader {
    fn read(&mut self, event: &Event<'_>, span: &Span) {
        match event {
            Event::Scalar(value, style, anchor, _) => self.scalar(value, *style, *anchor, span),
            Event::Alias(anchor) => match self.anchors.get(anchor).cloned() {
                Some(found) if !self.is_key() => self.value(Some(found)),
                _ => self.node(String::new(), None),
            },
            Event::UnresolvedAlias(_) => self.node(String::new(), None),
            Event::MappingStart(..) => self.enter(true),
            Event::SequenceStart(..) => self.enter(false),
            Event::MappingEnd | Event::SequenceEnd => self.leave(),
            Event::DocumentStart(..) => self.anchors.clear(),
            _ => {}
        }
    }

    fn scalar(&mut self, value: &str, style: ScalarStyle, anchor: usize, span: &Span) {
        let quote = match style {
            ScalarStyle::Plain => None,
            ScalarStyle::SingleQuoted => Some('\''),
            ScalarStyle::DoubleQuoted => Some('"'),
            // Nobody writes an image in a block; what it ends with is not part of a name.
            _ => return self.node(value.to_owned(), None),
        };
        let found = span.byte_range().map(|bytes| Found {
            image: value.to_owned(),
            bytes,
            quote,
            line: span.start.line(),
            column: span.start.col() + 1,
        });
        if let (Some(found), 1..) = (&found, anchor) {
            self.anchors.insert(anchor, found.clone());
        }
        self.node(value.to_owned(), found);
    }

    fn is_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.is_mapping && open.key.is_none())
    }

    /// A node that is a key, or a value.
    fn node(&mut self, text: String, found: Option<Found>) {
        if !self.is_key() {
            return self.value(found);
        }
        if let Some(open) = self.open.last_mut() {
            open.keys.push(text.clone());
            open.key = Some(text);
        }
    }

    fn value(&mut self, found: Option<Found>) {
        let Some(open) = self.open.last_mut().filter(|open| open.is_mapping) else { return };
        let names_image = match open.key.take().as_deref() {
            Some("image") => open.under != "rbd",
            Some("reference") => open.under == "image",
            _ => false,
        };
        open.found.extend(found.filter(|found| names_image && !found.is_null()));
    }

    fn enter(&mut self, is_mapping: bool) {
        let under = match self.open.last_mut() {
            // A collection as a key is nothing that we know.
            Some(open) if open.is_mapping => match open.key.take() {
                Some(key) => key,
                None => {
                    open.key = Some(String::new());
                    String::new()
                }
            },
            Some(open) => open.under.clone(),
            None => String::new(),
        };
        self.open.push(Open { under, is_mapping, ..Open::default() });
    }

    fn leave(&mut self) {
        let Some(closed) = self.open.pop() else { return };
        let is_service = self.open.last().is_some_and(|parent| parent.under == "services");
        // What Compose builds is called so by whoever builds it.
        if !(is_service && closed.keys.iter().any(|key| key == "build")) {
            self.found.extend(closed.found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(text: &str) -> Vec<(String, String)> {
        let found = find(text).unwrap();
        found.into_iter().map(|found| (found.image, text[found.bytes].to_owned())).collect()
    }

    #[test]
    fn images_are_found_where_they_stand() {
        let text = "\
kind: Pod # image: not-this
spec:
  initContainers:
  - {name: i, image: 'quay.io/a/b:1'}
  containers:
  - image: \"quay.io/é/c\"   # kept
    args: [--image=quay.io/not/this]
  - name: image
    image:
      quay.io/a/d@sha256:0
  volumes:
  - image:
      reference: quay.io/a/volume:v1
      pullPolicy: Always
  - rbd: {image: disk, monitors: []}
---
services:
  web: {image: quay.io/a/web}
  own: {build: ., image: mine}
  other:
    image: &shared quay.io/a/shared
  third: {image: *shared}
---
x: &later quay.io/a/later
image: *later
---
[1, {? [image] : x}, image, {image: }, {image: |
  quay.io/in/block
}]
";
        let text = text.replace("{image: |\n  quay.io/in/block\n}", "{image: ''}");
        let expected = [
            ("quay.io/a/b:1", "'quay.io/a/b:1'"),
            ("quay.io/é/c", "\"quay.io/é/c\""),
            ("quay.io/a/d@sha256:0", "quay.io/a/d@sha256:0"),
            ("quay.io/a/volume:v1", "quay.io/a/volume:v1"),
            ("quay.io/a/web", "quay.io/a/web"),
            ("quay.io/a/shared", "quay.io/a/shared"),
            ("quay.io/a/later", "quay.io/a/later"),
        ];
        assert_eq!(images(&text), expected.map(|(image, text)| (image.to_owned(), text.to_owned())));
        let found = find(&text).unwrap();
        assert_eq!((found[0].line, found[0].column), (4, 22));
        assert_eq!(images(r#"{"spec":{"image":"quay.io/a/b"}}"#).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "([ \\-{}\\[\\]:,&*'\"|>#?\n]|image|services|build|é|a/b:1){0,40}") {
            if let Ok(found) = find(&text) {
                let mut before = 0;
                for Found { bytes, .. } in found {
                    proptest::prop_assert!(bytes.start >= before && bytes.end > bytes.start);
                    proptest::prop_assert!(text.get(bytes.clone()).is_some());
                    before = bytes.end;
                }
            }
        }
    }

    #[test]
    fn what_is_no_yaml_is_an_error() {
        for bad in ["image: {{ .Values.image }}\nx: [", "a: b: c", "image: \"open"] {
            assert!(find(bad).is_err(), "{bad:?}");
        }
    }
}
