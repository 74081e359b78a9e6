//! `manifest.json`, as `docker save` writes it, and images that were saved before there were image layouts.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;

use bytes::Bytes;
use ferry_oci::{Algorithm, Digest, MAX_MANIFEST_SIZE, Manifest, media_type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::names::Names;
use super::scan::{Damage, Scanned};
use crate::files::{digest_of, read_at};
use crate::name::Label;

/// The most images, layers and tags of `manifest.json`.
const MAX_ITEMS: usize = 10_000;

/// An image in `manifest.json` (moby, `image/tarexport`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// The file of its configuration.
    #[serde(rename = "Config")]
    pub(crate) config: String,
    /// Its names, `REPOSITORY:TAG` each.
    #[serde(rename = "RepoTags")]
    pub(crate) tags: Option<Vec<String>>,
    /// The files of its layers, lowest first.
    #[serde(rename = "Layers", default)]
    pub(crate) layers: Vec<String>,
}

impl Saved {
    /// Its names, as far as they are any.
    pub(crate) fn labels(&self) -> impl Iterator<Item = Label> {
        self.tags.iter().flatten().filter_map(|tag| Label::full(tag))
    }
}

/// Reads `manifest.json`.
///
/// # Errors
/// Why it is not the list that it should be.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Saved>, String> {
    let images: Vec<Saved> = serde_json::from_slice(bytes).map_err(|e| format!("manifest.json: {e}"))?;
    let tags = |image: &Saved| image.tags.as_ref().map_or(0, Vec::len);
    let items: usize = images.iter().map(|image| 1 + image.layers.len() + tags(image)).sum();
    match items > MAX_ITEMS {
        true => Err(format!("manifest.json: {items} images, layers and tags are more than {MAX_ITEMS}")),
        false => Ok(images),
    }
}

/// A manifest for an image that was saved without.
pub(crate) struct Made {
    pub(crate) manifest: Manifest,
    /// Its configuration and its layers, with their places in the archive.
    pub(crate) blobs: Vec<(Digest, Range<u64>)>,
}

/// Makes manifests for the images of one archive.
pub(crate) struct Maker<'a> {
    names: &'a Names,
    file: &'a File,
    /// The digests of compressed layers, by where they begin: each is read once, however many images name it.
    compressed: HashMap<u64, Digest>,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(names: &'a Names, file: &'a File) -> Self {
        Self { names, file, compressed: HashMap::new() }
    }

    /// Makes the manifest of `image`. Layers are named as its configuration does it, so that the same image has the
    /// same manifest in every archive; only layers that were compressed have to be read.
    pub(crate) fn make(&mut self, image: &Saved) -> Scanned<Made> {
        let config_place = self.place(&image.config)?;
        let config = self.names.read(self.file, &image.config, MAX_MANIFEST_SIZE)?.unwrap_or_default();
        let diff_ids = diff_ids(image, &config).map_err(Damage::Invalid)?;
        let config_digest = Digest::sha256(&config);
        let mut blobs = vec![(config_digest, config_place)];
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(diff_ids) {
            let place = self.place(name)?;
            let (media_type, digest) = self.layer(&place, diff_id)?;
            layers.push(descriptor(media_type, &digest, place.end - place.start));
            blobs.push((digest, place));
        }
        let document = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG, &config_digest, config.len() as u64),
            "layers": layers,
        });
        let manifest = Manifest::parse(Some(media_type::OCI_MANIFEST), Bytes::from(document.to_string()));
        let manifest = manifest.map_err(|malformed| Damage::Invalid(malformed.reason))?;
        Ok(Made { manifest, blobs })
    }

    /// Where the file `name` is, which `manifest.json` names.
    fn place(&self, name: &str) -> Scanned<Range<u64>> {
        let place = self.names.file(name).map_err(Damage::Invalid)?;
        place.ok_or_else(|| Damage::Invalid(format!("manifest.json names {name:?}, which is missing")))
    }

    /// The media type and the digest of a layer.
    fn layer(&mut self, place: &Range<u64>, diff_id: Digest) -> Scanned<(&'static str, Digest)> {
        let start = read_at(self.file, place.start..place.end.min(place.start + 4))?;
        let media_type = match &start[..] {
            [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => ZSTD,
            _ => return Ok((media_type::OCI_LAYER, diff_id)),
        };
        let digest = match self.compressed.get(&place.start) {
            Some(known) => *known,
            None => digest_of(self.file, place.clone(), Algorithm::Sha256)?,
        };
        self.compressed.insert(place.start, digest);
        Ok((media_type, digest))
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

/// The digests of the unpacked layers of an image (image-spec `config.md`, `rootfs`).
fn diff_ids(image: &Saved, config: &[u8]) -> Result<Vec<Digest>, String> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Option<Vec<Digest>>,
    }
    let read: Config = serde_json::from_slice(config)
        .map_err(|e| format!("the image configuration {:?} in it: {e}", image.config))?;
    let diff_ids = read.rootfs.diff_ids.unwrap_or_default();
    if diff_ids.len() != image.layers.len() {
        let (named, there) = (diff_ids.len(), image.layers.len());
        return Err(format!(
            "the configuration {:?} in it names {named} layers, there are {there}",
            image.config
        ));
    }
    Ok(diff_ids)
}

/// A layer that is compressed with zstd (image-spec `layer.md`).
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
