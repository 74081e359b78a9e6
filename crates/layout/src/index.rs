use ferry_oci::{Descriptor, Digest, Manifest, Tag};
use serde_json::{Map, Value, json};

use crate::name::{ImageName, Label};

/// The annotation that names an entry (image-spec `annotations.md`, "Pre-Defined Annotation Keys").
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation that holds the whole name of an entry, as containerd, buildx and `docker save` write it.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The annotation of the index that lists the archives which an incremental one builds on, as a JSON list of file names.
const EXCEPT: &str = "io.github.ferry-mirror.except";

/// `index.json`, edited in place: what is not understood stays as it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Index {
    document: Map<String, Value>,
    entries: Vec<Value>,
}

impl Index {
    /// An index without entries.
    pub(crate) fn empty() -> Self {
        let mut document = Map::new();
        document.insert("schemaVersion".to_owned(), json!(2));
        document.insert("mediaType".to_owned(), json!(ferry_oci::media_type::OCI_INDEX));
        document.insert("manifests".to_owned(), json!([]));
        Self { document, entries: Vec::new() }
    }

    /// Reads `index.json`.
    ///
    /// # Errors
    /// Why it is not an index.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut document: Map<String, Value> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        match document.get_mut("manifests") {
            Some(Value::Array(entries)) => {
                let entries = std::mem::take(entries);
                Ok(Self { document, entries })
            }
            _ => Err("it has no list of manifests".to_owned()),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut document = self.document.clone();
        document.insert("manifests".to_owned(), Value::Array(self.entries.clone()));
        Value::Object(document).to_string().into_bytes()
    }

    /// The entries that ferry can read.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = Descriptor> {
        self.entries.iter().filter_map(descriptor)
    }

    /// The entries that ferry can read, with what they are called.
    pub(crate) fn labelled(&self) -> impl Iterator<Item = (Label, Descriptor)> {
        self.entries.iter().filter_map(|entry| Some((label(entry), descriptor(entry)?)))
    }

    /// What `tag` of `name` points at: the first such entry. Who asks without a name also gets the only image of the tag
    /// if that has a name.
    pub(crate) fn by_tag(&self, name: Option<&ImageName>, tag: &Tag) -> Option<Descriptor> {
        let exact = self.entries.iter().find(|entry| is_called(entry, name, tag));
        let entry = exact.or_else(|| {
            let mut others = self.entries.iter().filter(|entry| label(entry).tag.as_ref() == Some(tag));
            others.next().filter(|_| name.is_none() && others.next().is_none())
        });
        entry.and_then(descriptor)
    }

    pub(crate) fn by_digest(&self, digest: &Digest) -> Option<Descriptor> {
        self.descriptors().find(|found| found.digest == *digest)
    }

    /// All tags of `name` with what they point at, sorted, each once.
    pub(crate) fn tags(&self, name: Option<&ImageName>) -> Vec<(Tag, Digest)> {
        let mut tags: Vec<(Tag, Digest)> = self
            .labelled()
            .filter(|(label, _)| label.name.as_ref() == name)
            .filter_map(|(label, found)| Some((label.tag?, found.digest)))
            .collect();
        // Stable, so that the first of several entries of a name is kept, as `by_tag` finds it.
        tags.sort_by(|a, b| a.0.cmp(&b.0));
        tags.dedup_by(|a, b| a.0 == b.0);
        tags
    }

    /// Makes `manifest` reachable, by `tag` of `name` if given. Whether anything had to change.
    pub(crate) fn put(&mut self, manifest: &Manifest, name: Option<&ImageName>, tag: Option<&Tag>) -> bool {
        let before = self.entries.clone();
        match tag {
            Some(tag) => self.put_tagged(manifest, name, tag),
            None if self.by_digest(&manifest.digest()).is_none() => {
                self.entries.push(entry(manifest, &Label::default()));
            }
            None => {}
        }
        self.drop_unneeded(manifest, tag.is_some());
        self.entries != before
    }

    fn put_tagged(&mut self, manifest: &Manifest, name: Option<&ImageName>, tag: &Tag) {
        let label = Label { name: name.cloned(), tag: Some(tag.clone()) };
        let of_tag = |entry: &Value| is_called(entry, name, tag);
        let Some(first) = self.entries.iter().position(of_tag) else {
            return self.entries.push(entry(manifest, &label));
        };
        let unchanged = descriptor(&self.entries[first])
            .is_some_and(|old| old.digest == manifest.digest() && old.media_type == manifest.media_type());
        if !unchanged {
            self.entries[first] = entry(manifest, &label);
        }
        let mut at = 0;
        self.entries.retain(|entry| {
            at += 1;
            at - 1 == first || !of_tag(entry)
        });
    }

    /// Calls the entry `digest` also `label`.
    pub(crate) fn call(&mut self, digest: &Digest, label: &Label) {
        let of_digest = |entry: &Value| descriptor(entry).is_some_and(|found| found.digest == *digest);
        let Some(at) = self.entries.iter().position(of_digest) else { return };
        let mut called = self.entries[at].clone();
        annotate(&mut called, label);
        match is_bare(&self.entries[at]) {
            true => self.entries[at] = called,
            false => self.entries.push(called),
        }
    }

    /// The file names of the archives that this one builds on. They are shown to people, so none may command a terminal.
    pub(crate) fn except(&self) -> Vec<String> {
        let annotation = self.document.get("annotations").and_then(|all| all.get(EXCEPT));
        let names = annotation.and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
        let mut names: Vec<String> = names.unwrap_or_default();
        names.retain(|name| !name.chars().any(char::is_control));
        names
    }

    /// Says on which archives this one builds.
    pub(crate) fn set_except(&mut self, names: &[String]) {
        let annotations = self.document.entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            annotations.insert(EXCEPT.to_owned(), json!(json!(names).to_string()));
        }
    }

    /// Removes entries that only kept reachable what is reachable without them: the children of `manifest` and, if it
    /// has a name now, `manifest` itself.
    fn drop_unneeded(&mut self, manifest: &Manifest, named: bool) {
        self.entries.retain(|entry| {
            let Some(found) = descriptor(entry).filter(|_| is_bare(entry)) else { return true };
            let is_child = manifest.children().iter().any(|child| child.digest == found.digest);
            let is_named = named && found.digest == manifest.digest();
            !(is_child || is_named)
        });
    }

    /// Removes a tag of `name`; whether there was one.
    pub(crate) fn remove_tag(&mut self, name: Option<&ImageName>, tag: &Tag) -> bool {
        self.remove(|entry| is_called(entry, name, tag))
    }

    /// Removes every entry of a manifest; whether there were any.
    pub(crate) fn remove_digest(&mut self, digest: &Digest) -> bool {
        self.remove(|entry| descriptor(entry).is_some_and(|found| found.digest == *digest))
    }

    fn remove(&mut self, unwanted: impl Fn(&Value) -> bool) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| !unwanted(entry));
        self.entries.len() < before
    }
}

fn descriptor(entry: &Value) -> Option<Descriptor> {
    serde_json::from_value(entry.clone()).ok()
}

fn annotation<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry.get("annotations")?.get(key)?.as_str()
}

fn label(entry: &Value) -> Label {
    Label::read(annotation(entry, IMAGE_NAME), annotation(entry, REF_NAME))
}

fn is_called(entry: &Value, name: Option<&ImageName>, tag: &Tag) -> bool {
    let label = label(entry);
    label.tag.as_ref() == Some(tag) && label.name.as_ref() == name
}

/// Whether an entry says nothing but which manifest it is.
fn is_bare(entry: &Value) -> bool {
    let known = |key: &String| matches!(key.as_str(), "mediaType" | "digest" | "size");
    entry.as_object().is_some_and(|map| map.keys().all(known))
}

fn entry(manifest: &Manifest, label: &Label) -> Value {
    let size = manifest.bytes().len() as u64;
    let mut entry = json!(Descriptor::new(manifest.media_type(), manifest.digest(), size));
    annotate(&mut entry, label);
    entry
}

fn annotate(entry: &mut Value, label: &Label) {
    let Some(tag) = &label.tag else { return };
    if let Some(name) = &label.name {
        entry["annotations"][IMAGE_NAME] = json!(name.with_tag(Some(tag.clone())).to_string());
    }
    entry["annotations"][REF_NAME] = json!(tag.as_str());
}

#[cfg(test)]
mod tests {
    use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes};

    use super::*;

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn image(seed: u64) -> ferry_testkit::images::Image {
        ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(seed, 10)]).build()
    }

    /// What other tools may have written.
    const FOREIGN: &str = r#"{"schemaVersion":2,"x-unknown":{"b":1,"a":[2.5]},"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":3,"x":null,"annotations":{"org.opencontainers.image.ref.name":"docker.io/library/alpine:3","other":"kept"}},{"digest":"blake3:unknown","size":1},{"mediaType":"","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":3,"annotations":{"org.opencontainers.image.ref.name":"v1"}}],"annotations":{"z":"y"}}"#;

    #[test]
    fn what_others_wrote_is_kept_to_the_byte() {
        let mut index = Index::parse(FOREIGN.as_bytes()).unwrap();
        assert_eq!(index.to_bytes(), FOREIGN.as_bytes());
        assert_eq!(index.tags(None).iter().map(|(tag, _)| tag.as_str()).collect::<Vec<_>>(), ["v1"]);
        assert!(index.put(&image(1).root, None, Some(&tag("new"))));
        assert!(index.remove_tag(None, &tag("new")));
        assert!(!index.remove_tag(None, &tag("new")));
        assert_eq!(index.to_bytes(), FOREIGN.as_bytes());
        assert!(Index::parse(b"[]").is_err());
        assert!(Index::parse(b"{\"manifests\":{}}").is_err());
    }

    #[test]
    fn a_tag_moves_in_its_place() {
        let mut index = Index::parse(FOREIGN.as_bytes()).unwrap();
        let root = image(1).root;
        assert!(index.put(&root, None, Some(&tag("v1"))));
        assert!(!index.put(&root, None, Some(&tag("v1"))), "nothing left to do");
        assert_eq!(index.entries.len(), 3);
        assert_eq!(index.by_tag(None, &tag("v1")).unwrap().digest, root.digest());
        assert_eq!(index.by_digest(&root.digest()).unwrap().media_type, root.media_type());
        // A name that stands twice is replaced as a whole.
        index.entries.push(index.entries[2].clone());
        assert!(index.put(&image(2).root, None, Some(&tag("v1"))));
        assert_eq!(index.entries.len(), 3);
    }

    #[test]
    fn an_untagged_manifest_has_an_entry_until_it_is_part_of_another() {
        let (image, mut index) = (image(1), Index::empty());
        let [child, root] = &image.manifests[..] else { panic!("one platform and the index") };
        assert!(index.put(child, None, None));
        assert!(!index.put(child, None, None));
        assert!(index.by_digest(&child.digest()).is_some() && index.tags(None).is_empty());
        assert!(index.put(root, None, None));
        assert!(index.by_digest(&child.digest()).is_none(), "reachable through the index");
        assert_eq!(index.entries.len(), 1);
        assert!(index.put(root, None, Some(&tag("t"))));
        assert_eq!(index.entries.len(), 1, "the entry without a name has served");
        assert!(index.put(child, None, Some(&tag("child"))));
        index.put(root, None, Some(&tag("t")));
        assert_eq!(index.entries.len(), 2, "an entry with a name stays");
        assert!(index.remove_digest(&root.digest()));
        assert!(!index.remove_digest(&root.digest()));
    }
}
