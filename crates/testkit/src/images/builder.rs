use std::collections::BTreeMap;

use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Platform, Tag, media_type};
use ferry_store::{Begun, Expect, Mount, RepositoryMut, Result};
use serde_json::{Value, json};

use super::Layer;

/// Bytes handed to a store at once, so that a push is more than one write.
const WRITE_CHUNK: usize = 256 * 1024;

/// Which family of media types an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaTypes {
    /// `application/vnd.oci.image.…`
    Oci,
    /// `application/vnd.docker.…`
    Docker,
}

impl MediaTypes {
    /// The types of index, manifest, configuration and layer.
    fn all(self) -> [&'static str; 4] {
        use media_type as t;
        match self {
            Self::Oci => [t::OCI_INDEX, t::OCI_MANIFEST, t::OCI_CONFIG, t::OCI_LAYER_GZIP],
            Self::Docker => [t::DOCKER_LIST, t::DOCKER_MANIFEST, t::DOCKER_CONFIG, t::DOCKER_LAYER_GZIP],
        }
    }
}

/// An image, whole: every manifest and every blob that its root names.
#[derive(Debug, Clone)]
pub struct Image {
    /// Configurations and layers.
    pub blobs: BTreeMap<Digest, Bytes>,
    /// All manifests, children before parents; the last is the root.
    pub manifests: Vec<Manifest>,
    /// The manifest that a tag points at.
    pub root: Manifest,
}

impl Image {
    /// An artifact of one payload that refers to `subject` (image-spec `manifest.md`, "Guidelines for Artifact
    /// Usage"), as a signature or a bill of materials does.
    pub fn artifact(subject: &Manifest, artifact_type: &str, payload: impl Into<Bytes>) -> Self {
        let (empty, payload) = (Bytes::from_static(b"{}"), payload.into());
        let root = manifest(&json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": artifact_type,
            "config": describe(media_type::OCI_EMPTY, &empty),
            "layers": [describe(artifact_type, &payload)],
            "subject": describe(subject.media_type(), subject.bytes()),
            "annotations": {"org.opencontainers.image.created": "1970-01-01T00:00:00Z"},
        }));
        let blobs = [empty, payload].into_iter().map(|b| (Digest::sha256(&b), b)).collect();
        Self { blobs, manifests: vec![root.clone()], root }
    }

    /// Size of everything in bytes, shared content once.
    pub fn size(&self) -> u64 {
        let manifests: usize = self.manifests.iter().map(|m| m.bytes().len()).sum();
        (self.blobs.values().map(Bytes::len).sum::<usize>() + manifests) as u64
    }

    /// Writes everything into `target`, what it names before each manifest, the tag last.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn push_to(&self, target: &dyn RepositoryMut, tag: Option<&Tag>) -> Result<()> {
        for (digest, bytes) in &self.blobs {
            push_blob(target, digest, bytes).await?;
        }
        for manifest in &self.manifests {
            let root = manifest.digest() == self.root.digest();
            target.put_manifest(manifest, tag.filter(|_| root)).await?;
        }
        Ok(())
    }
}

async fn push_blob(target: &dyn RepositoryMut, digest: &Digest, bytes: &Bytes) -> Result<()> {
    let expect =
        Expect { digest: Some(*digest), size: Some(bytes.len() as u64), mount: Mount::From(Vec::new()) };
    let Begun::Upload(mut upload) = target.begin(expect).await? else { return Ok(()) };
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        upload.write(rest.split_to(rest.len().min(WRITE_CHUNK))).await?;
    }
    upload.commit(digest).await
}

/// Puts an [`Image`] together.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    types: MediaTypes,
    shared: Vec<Layer>,
    platforms: Vec<(Platform, Vec<Layer>)>,
    attestations: bool,
}

impl ImageBuilder {
    /// An image of these media types, with no platform yet.
    pub fn new(types: MediaTypes) -> Self {
        Self { types, shared: Vec::new(), platforms: Vec::new(), attestations: false }
    }

    /// Adds layers that are the lowest of every platform.
    #[must_use]
    pub fn shared(mut self, layers: impl IntoIterator<Item = Layer>) -> Self {
        self.shared.extend(layers);
        self
    }

    /// Adds a platform, written `OS/ARCHITECTURE[/VARIANT]`, with the layers that it adds to the shared ones.
    #[must_use]
    pub fn platform(mut self, platform: &str, layers: impl IntoIterator<Item = Layer>) -> Self {
        let mut parts = platform.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let platform = Platform { architecture, os, os_version: None, variant: parts.next() };
        self.platforms.push((platform, layers.into_iter().collect()));
        self
    }

    /// Adds to every platform an attestation as BuildKit writes it: an entry of platform `unknown/unknown` that names
    /// the platform's manifest in annotations (buildkit `docs/attestations/attestation-storage.md`).
    #[must_use]
    pub fn attestations(mut self) -> Self {
        self.attestations = true;
        self
    }

    /// The image as an index of all its platforms.
    pub fn build(self) -> Image {
        let mut parts = Parts::default();
        let mut images = Vec::new();
        let mut attestations = Vec::new();
        for (platform, own) in &self.platforms {
            let image = parts.image(self.types, platform, self.shared.iter().chain(own));
            let mut entry = describe(image.media_type(), image.bytes());
            entry["platform"] = json!(platform);
            images.push(entry);
            if self.attestations {
                attestations.push(parts.attestation(self.types, &image));
            }
        }
        images.append(&mut attestations);
        let index = self.types.all()[0];
        let root = manifest(&json!({"schemaVersion": 2, "mediaType": index, "manifests": images}));
        parts.finish(root)
    }

    /// The image of the first platform alone, without an index.
    pub fn build_single(self) -> Image {
        let mut parts = Parts::default();
        let (platform, own) = self.platforms.into_iter().next().unwrap_or_else(|| {
            let linux = Platform {
                architecture: "amd64".to_owned(),
                os: "linux".to_owned(),
                os_version: None,
                variant: None,
            };
            (linux, Vec::new())
        });
        let root = parts.image(self.types, &platform, self.shared.iter().chain(&own));
        parts.manifests.pop();
        parts.finish(root)
    }
}

/// What was made so far.
#[derive(Default)]
struct Parts {
    blobs: BTreeMap<Digest, Bytes>,
    manifests: Vec<Manifest>,
}

impl Parts {
    fn image<'a>(
        &mut self,
        types: MediaTypes,
        platform: &Platform,
        layers: impl Iterator<Item = &'a Layer>,
    ) -> Manifest {
        let [_, manifest_type, config_type, layer_type] = types.all();
        let layers: Vec<&Layer> = layers.collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id()).collect();
        let mut config = json!({
            "architecture": platform.architecture, "os": platform.os, "created": "1970-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "ferry-testkit"})).collect::<Vec<_>>(),
        });
        if let Some(variant) = &platform.variant {
            config["variant"] = json!(variant);
        }
        let config = Bytes::from(config.to_string());
        let made = manifest(&json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": describe(config_type, &config),
            "layers": layers.iter().map(|layer| describe(layer_type, layer.bytes())).collect::<Vec<_>>(),
        }));
        self.blobs.insert(Digest::sha256(&config), config);
        self.blobs.extend(layers.iter().map(|layer| (layer.digest(), layer.bytes().clone())));
        self.manifests.push(made.clone());
        made
    }

    /// Makes the attestation of `image` and returns its index entry.
    fn attestation(&mut self, types: MediaTypes, image: &Manifest) -> Value {
        let [_, manifest_type, config_type, _] = types.all();
        let statement = Bytes::from(
            json!({"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://slsa.dev/provenance/v0.2",
                "subject": [{"name": "image", "digest": {"sha256": image.digest().hex()}}], "predicate": {}})
            .to_string(),
        );
        let config = Bytes::from(
            json!({"architecture": "unknown", "os": "unknown", "config": {},
                "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&statement)]}})
            .to_string(),
        );
        let mut layer = describe("application/vnd.in-toto+json", &statement);
        layer["annotations"] = json!({"in-toto.io/predicate-type": "https://slsa.dev/provenance/v0.2"});
        let made = manifest(&json!({"schemaVersion": 2, "mediaType": manifest_type,
            "config": describe(config_type, &config), "layers": [layer]}));
        let mut entry = describe(made.media_type(), made.bytes());
        entry["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image.digest()});
        entry["platform"] = json!({"architecture": "unknown", "os": "unknown"});
        self.blobs.extend([config, statement].map(|bytes| (Digest::sha256(&bytes), bytes)));
        self.manifests.push(made);
        entry
    }

    fn finish(mut self, root: Manifest) -> Image {
        self.manifests.push(root.clone());
        // Platforms that are equal but for their entry share a manifest.
        let mut seen = std::collections::BTreeSet::new();
        self.manifests.retain(|manifest| seen.insert(manifest.digest()));
        Image { blobs: self.blobs, manifests: self.manifests, root }
    }
}

fn describe(media_type: &str, bytes: &Bytes) -> Value {
    json!(Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64))
}

fn manifest(value: &Value) -> Manifest {
    match Manifest::parse(None, Bytes::from(value.to_string())) {
        Ok(manifest) => manifest,
        Err(e) => unreachable!("a generated manifest is well-formed: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_platforms(types: MediaTypes) -> ImageBuilder {
        ImageBuilder::new(types)
            .shared([Layer::random(1, 1000)])
            .platform("linux/amd64", [Layer::random(2, 1000)])
            .platform("linux/arm64/v8", [Layer::random(3, 1000)])
    }

    #[test]
    fn an_index_names_exactly_what_the_image_holds() {
        for types in [MediaTypes::Oci, MediaTypes::Docker] {
            let image = two_platforms(types).attestations().build();
            assert_eq!(image.manifests.len(), 5);
            assert_eq!(image.root.media_type(), types.all()[0]);
            let named: std::collections::BTreeSet<Digest> =
                image.manifests.iter().flat_map(|m| m.blobs()).map(|blob| blob.digest).collect();
            assert!(named.iter().eq(image.blobs.keys()), "3 layers, 2 configurations, 2 of each attestation");
            assert_eq!(named.len(), 9);
            let entry = &image.root.children()[1];
            assert_eq!(entry.platform.as_ref().unwrap().variant.as_deref(), Some("v8"));
            let attested = &image.root.children()[3].annotations.as_ref().unwrap();
            assert_eq!(attested["vnd.docker.reference.digest"], entry.digest.to_string());
        }
    }

    #[test]
    fn a_single_image_and_its_artifact() {
        let image = two_platforms(MediaTypes::Oci).build_single();
        assert_eq!((image.manifests.len(), image.blobs.len()), (1, 3));
        let artifact = Image::artifact(&image.root, "application/vnd.example.sbom", "{}x");
        assert_eq!(artifact.root.subject().unwrap().digest, image.root.digest());
        assert_eq!(artifact.blobs.len(), 2);
    }
}
