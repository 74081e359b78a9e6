use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::{Algorithm, Descriptor, Digest, Malformed, descriptor, media_type, shape};

/// The largest manifest that ferry accepts, in bytes. Registries take 4 MiB; reading a little more is harmless.
pub const MAX_MANIFEST_SIZE: u64 = 4 * 1024 * 1024;

/// The most entries of an index, and the most layers of an image, that are followed.
const MAX_ENTRIES: usize = 10_000;

/// A manifest: its verbatim bytes with the digest that they hash to, and a view of what they name.
#[derive(Debug, Clone)]
pub struct Manifest {
    bytes: Bytes,
    media_type: &'static str,
    digest: Digest,
    content: Content,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

/// What a manifest is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An index or manifest list: other manifests, usually one per platform.
    Index(Vec<Descriptor>),
    /// An image or artifact.
    Image {
        /// The configuration blob.
        config: Descriptor,
        /// The layer blobs, lowest first.
        layers: Vec<Descriptor>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default, deserialize_with = "descriptor::maybe_word")]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads `bytes`, which a peer labelled `content_type`, and names them under SHA-256.
    ///
    /// # Errors
    /// See [`Manifest::parse_as`].
    pub fn parse(content_type: Option<&str>, bytes: Bytes) -> Result<Self, Malformed> {
        Self::parse_as(Algorithm::Sha256, content_type, bytes)
    }

    /// Reads `bytes`, which a peer labelled `content_type`, and names them under `algorithm`.
    ///
    /// # Errors
    /// [`Malformed`] for what is not JSON, has a key twice or in a case that only some readers accept, exceeds [`MAX_MANIFEST_SIZE`], is of a type that ferry
    /// does not carry (schema 1 among them), whose `mediaType` contradicts the label, or which could be read both
    /// as an index and as an image (CVE-2021-41190).
    pub fn parse_as(
        algorithm: Algorithm,
        content_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<Self, Malformed> {
        let bad = |reason: String| Malformed::new("manifest", &String::from_utf8_lossy(&bytes), reason);
        if bytes.len() as u64 > MAX_MANIFEST_SIZE {
            return Err(bad(format!("larger than {MAX_MANIFEST_SIZE} bytes")));
        }
        let keys = shape::keys(&bytes).map_err(|e| bad(e.to_string()))?;
        let view: View = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        let media_type = decide_type(&view, content_type).map_err(bad)?;
        reject_ambiguous(&keys, media_type).map_err(bad)?;
        let content = if media_type::is_index(media_type) {
            Content::Index(view.manifests.unwrap_or_default())
        } else {
            let config = view.config.ok_or_else(|| bad("an image manifest has a config".to_owned()))?;
            Content::Image { config, layers: view.layers.unwrap_or_default() }
        };
        let entries = match &content {
            Content::Index(entries) => entries.len(),
            Content::Image { layers, .. } => layers.len(),
        };
        if entries > MAX_ENTRIES {
            return Err(bad(format!("{entries} entries are more than {MAX_ENTRIES}")));
        }
        Ok(Self {
            digest: Digest::of(algorithm, &bytes),
            media_type,
            content,
            subject: view.subject,
            artifact_type: view.artifact_type.filter(|t| !t.is_empty()),
            annotations: view.annotations,
            bytes,
        })
    }

    /// The bytes as they were received; nothing else may ever be stored or sent.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// One of [`media_type::MANIFESTS`].
    pub fn media_type(&self) -> &'static str {
        self.media_type
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the manifest is made of.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The manifest that this one refers to, if it is a referrer.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// What kind of artifact it is, if it says so.
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// The manifests that this one contains; empty for an image.
    pub fn children(&self) -> &[Descriptor] {
        match &self.content {
            Content::Index(children) => children,
            Content::Image { .. } => &[],
        }
    }

    /// The blobs that the repository must hold for this manifest: configuration and layers, each once, without those
    /// that live elsewhere by their media type.
    pub fn blobs(&self) -> Vec<&Descriptor> {
        let Content::Image { config, layers } = &self.content else { return Vec::new() };
        let mut seen = HashSet::new();
        std::iter::once(config)
            .chain(layers)
            .filter(|blob| !blob.is_nondistributable() && seen.insert(blob.digest))
            .collect()
    }

    /// The descriptor under which a referrers listing shows this manifest (distribution-spec, "Listing Referrers"):
    /// with its annotations and its artifact type, for an image without one the type of its configuration.
    pub fn referrer_descriptor(&self) -> Descriptor {
        let fallback = match &self.content {
            Content::Image { config, .. } => Some(config.media_type.clone()),
            Content::Index(_) => None,
        };
        Descriptor {
            artifact_type: self.artifact_type.clone().or(fallback),
            annotations: self.annotations.clone(),
            ..Descriptor::new(self.media_type, self.digest, self.bytes.len() as u64)
        }
    }
}

/// A body that says its type must agree with its label; one that does not is typed by a label that means something,
/// else by what it contains (some registries answer `text/plain` or `application/json`).
fn decide_type(view: &View, content_type: Option<&str>) -> Result<&'static str, String> {
    let known = |text: &str| {
        let known = media_type::MANIFESTS.into_iter().find(|t| *t == text);
        known.ok_or_else(|| format!("{text:?} is not a manifest type that can be carried"))
    };
    if view.schema_version != Some(2) {
        return Err(
            "schemaVersion is not 2; a schema 1 image must be pushed again by a current client".to_owned()
        );
    }
    let label = content_type
        .map(media_type::essence)
        .filter(|t| !matches!(*t, "" | "application/json" | "text/plain"));
    match (&view.media_type, label) {
        (Some(own), Some(label)) if label != own => {
            Err(format!("it says to be {own:?} but is labelled {label:?}"))
        }
        (Some(own), _) => known(own),
        (None, Some(label)) => known(label),
        (None, None) if view.manifests.is_some() => Ok(media_type::OCI_INDEX),
        (None, None) => Ok(media_type::OCI_MANIFEST),
    }
}

/// Refuses top-level fields of the other kind.
fn reject_ambiguous(keys: &HashSet<String>, media_type: &str) -> Result<(), String> {
    let foreign: &[&str] = if media_type::is_index(media_type) {
        &["config", "layers", "fsLayers", "history"]
    } else {
        &["manifests", "fsLayers", "history"]
    };
    match foreign.iter().find(|key| keys.contains(**key)) {
        Some(key) => Err(format!("{key:?} does not belong into {media_type}")),
        None => Ok(()),
    }
}

/// The bytes of an OCI index that lists `referrers` (distribution-spec, "Listing Referrers").
pub fn referrers_index(referrers: &[Descriptor]) -> Bytes {
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": referrers});
    Bytes::from(index.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn parse(label: Option<&str>, value: &Value) -> Result<Manifest, Malformed> {
        Manifest::parse(label, Bytes::from(value.to_string()))
    }

    fn descriptor(kind: &str) -> Value {
        json!({"mediaType": kind, "digest": Digest::sha256(kind.as_bytes()), "size": 3})
    }

    fn image() -> Value {
        json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": descriptor("c"),
            "layers": [descriptor("l"), descriptor("l"),
                descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")],
            "org.example.unknown": {"kept": true},
        })
    }

    #[test]
    fn bytes_and_digest_are_those_received() {
        let text = format!("  {}\n", image());
        let manifest = Manifest::parse(None, Bytes::from(text.clone())).unwrap();
        assert_eq!(manifest.bytes(), text.as_bytes());
        assert_eq!(manifest.digest(), Digest::sha256(text.as_bytes()));
        assert_eq!(manifest.blobs().len(), 2, "a repeated layer once, a foreign layer not at all");
    }

    #[test]
    fn label_and_body_must_agree() {
        assert!(parse(Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"), &image()).is_ok());
        assert!(parse(Some("text/plain"), &image()).is_ok());
        assert!(parse(Some(media_type::DOCKER_MANIFEST), &image()).is_err());
        assert!(parse(Some(media_type::OCI_INDEX), &image()).is_err());
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        for key in ["manifests", "Manifests", "fsLayers"] {
            let mut both = image();
            both[key] = json!([]);
            assert!(parse(None, &both).is_err(), "{key}");
        }
        let mut cased = image();
        cased["Layers"] = json!([]);
        assert!(parse(None, &cased).is_err());
        let hidden =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "Manifests": [descriptor("m")]});
        assert!(parse(None, &hidden).is_err(), "an index that is empty to us and not to others");
        let mut two_in_one = image();
        two_in_one["layers"][0]["Digest"] = json!(Digest::sha256(b"other"));
        assert!(parse(None, &two_in_one).is_err());
        let mut list = image();
        list["config"] = json!(["c", Digest::sha256(b"c"), 3]);
        assert!(parse(None, &list).is_err(), "a list is no descriptor");
        let index =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [], "layers": []});
        assert!(parse(None, &index).is_err());
    }

    #[test]
    fn schema_1_and_nonsense_are_refused() {
        assert!(parse(None, &json!({"schemaVersion": 1, "fsLayers": []})).is_err());
        assert!(parse(None, &json!([])).is_err());
        let negative = json!({"schemaVersion": 2, "config": {"digest": Digest::sha256(b""), "size": -1}});
        assert!(parse(Some(media_type::OCI_MANIFEST), &negative).is_err());
        assert!(Manifest::parse(None, Bytes::from(vec![b' '; 5 << 20])).is_err());
    }

    #[test]
    fn what_a_peer_writes_is_not_repeated_as_it_is() {
        let long = format!("\u{1b}[31m{}", "x".repeat(100_000));
        for key in ["mediaType", "config"] {
            let mut hostile = image();
            hostile[key] = json!(long);
            let error = parse(None, &hostile).unwrap_err();
            assert!(error.reason.len() < 400 && !error.reason.contains('\u{1b}'), "{key}");
        }
    }

    #[test]
    fn referrers_show_type_and_annotations() {
        let mut referrer = image();
        referrer["annotations"] = json!({"a": "b"});
        let shown = parse(None, &referrer).unwrap().referrer_descriptor();
        assert_eq!(shown.artifact_type.as_deref(), Some("c"));
        assert_eq!(shown.annotations.unwrap()["a"], "b");
        let listing = Manifest::parse(None, referrers_index(&[])).unwrap();
        assert!(listing.children().is_empty());
    }
}
