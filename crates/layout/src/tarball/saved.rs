//! `manifest.json`, as `docker save` writes it, and images that were saved before there were image layouts.

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

/// Makes the manifest of `image`. Layers are named as its configuration does it, so that the same image has the same
/// manifest in every archive; only layers that were compressed have to be read.
pub(crate) fn make(image: &Saved, names: &Names, file: &File) -> Scanned<Made> {
    let missing = |name: &str| Damage::Invalid(format!("manifest.json names {name:?}, which is missing"));
    let config = names.read(file, &image.config, MAX_MANIFEST_SIZE)?.ok_or_else(|| missing(&image.config))?;
    let diff_ids = diff_ids(image, &config).map_err(Damage::Invalid)?;
    let config_digest = Digest::sha256(&config);
    let config_place = names.file(&image.config).map_err(Damage::Invalid)?;
    let mut blobs: Vec<_> = config_place.map(|place| (config_digest, place)).into_iter().collect();
    let mut layers = Vec::new();
    for (name, diff_id) in image.layers.iter().zip(diff_ids) {
        let place = names.file(name).map_err(Damage::Invalid)?.ok_or_else(|| missing(name))?;
        let (media_type, digest) = layer(file, &place, diff_id)?;
        layers.push(descriptor(media_type, &digest, place.end - place.start));
        blobs.push((digest, place));
    }
    let document = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, &config_digest, config.len() as u64),
        "layers": layers,
    });
    let bytes = Bytes::from(document.to_string());
    let manifest = Manifest::parse(Some(media_type::OCI_MANIFEST), bytes);
    let manifest = manifest.map_err(|malformed| Damage::Invalid(malformed.reason))?;
    Ok(Made { manifest, blobs })
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

/// The media type and the digest of a layer.
fn layer(file: &File, place: &Range<u64>, diff_id: Digest) -> Scanned<(&'static str, Digest)> {
    let start = read_at(file, place.start..place.end.min(place.start + 4))?;
    let media_type = match &start[..] {
        [0x1f, 0x8b, ..] => media_type::OCI_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => ZSTD,
        _ => return Ok((media_type::OCI_LAYER, diff_id)),
    };
    Ok((media_type, digest_of(file, place.clone(), Algorithm::Sha256)?))
}

/// A layer that is compressed with zstd (image-spec `layer.md`).
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
