//! `manifest.json` for `docker load`, which before Docker 25 reads nothing else (moby, `image/tarexport`).

use ferry_oci::{Content, Descriptor, Manifest, Platform, media_type};
use ferry_store::{Error, Kind, Result};

use super::region::blob_path;
use super::saved::Saved;
use crate::files::Files;
use crate::manifests;
use crate::name::Label;

/// How deep indexes in indexes are followed.
const MAX_DEPTH: usize = 4;

/// What layers of images are, whoever can read them.
const LAYERS: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];

/// What every `docker load` unpacks.
const READABLE: [&str; 4] = [
    media_type::OCI_LAYER,
    media_type::OCI_LAYER_GZIP,
    media_type::DOCKER_LAYER,
    media_type::DOCKER_LAYER_GZIP,
];

/// The images that have a tag, each once with all its names.
pub(super) fn images(files: &dyn Files, platform: &Platform) -> Result<Vec<Saved>> {
    let mut images: Vec<Saved> = Vec::new();
    for (label, entry) in files.index()?.labelled() {
        let Some(image) = image(files, &label, &entry, platform)? else { continue };
        let same = |other: &&mut Saved| other.config == image.config && other.layers == image.layers;
        match images.iter_mut().find(same) {
            Some(known) => known.tags.get_or_insert_default().extend(image.tags.into_iter().flatten()),
            None => images.push(image),
        }
    }
    Ok(images)
}

/// What `docker load` reads of one entry; nothing if that is no image, or none that has a tag.
///
/// # Errors
/// [`Kind::Invalid`] if `docker load` could not read it.
pub(super) fn image(
    files: &dyn Files,
    label: &Label,
    entry: &Descriptor,
    platform: &Platform,
) -> Result<Option<Saved>> {
    let Some(tag) = &label.tag else { return Ok(None) };
    let Some(manifest) = of_platform(files, entry, platform)? else { return Ok(None) };
    let Content::Image { config, layers } = manifest.content() else { return Ok(None) };
    if is_artifact(&manifest, config, layers) {
        return Ok(None);
    }
    if let Some(layer) = layers.iter().find(|layer| !READABLE.contains(&layer.media_type.as_str())) {
        let detail = format!(
            "docker load cannot read its layers of type {}; write oci-archive: instead",
            layer.media_type
        );
        return Err(Error::new(Kind::Invalid, "write docker archive", tag, detail));
    }
    let name = label.name.as_ref().map(|name| vec![format!("{}:{tag}", name.familiar())]);
    let layers = layers.iter().map(|layer| blob_path(&layer.digest)).collect();
    Ok(Some(Saved { config: blob_path(&config.digest), tags: name, layers }))
}

/// Signatures, SBOMs, charts: what `docker load` would not take for an image.
fn is_artifact(manifest: &Manifest, config: &Descriptor, layers: &[Descriptor]) -> bool {
    let of_image = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config.media_type.as_str());
    let is_layer = |layer: &Descriptor| LAYERS.iter().any(|prefix| layer.media_type.starts_with(prefix));
    let of_layers = layers.is_empty() || layers.iter().any(is_layer);
    manifest.subject().is_some() || manifest.artifact_type().is_some() || !of_image || !of_layers
}

/// The image manifest of an entry, that for `platform` if there are several.
fn of_platform(files: &dyn Files, entry: &Descriptor, platform: &Platform) -> Result<Option<Manifest>> {
    let mut wanted = entry.clone();
    for _ in 0..MAX_DEPTH {
        let found = manifests::read(files, &wanted.digest, Some(&wanted.media_type))?;
        let Some(manifest) = found else { return Ok(None) };
        if manifest.children().is_empty() {
            return Ok(Some(manifest));
        }
        match choose(files, manifest.children(), platform)? {
            Some(child) => wanted = child.clone(),
            None => break,
        }
    }
    let detail = format!("its index has no image for {platform} or another platform");
    Err(Error::new(Kind::Invalid, "write docker archive", entry.digest, detail))
}

/// Of the children that are here the one for `platform`, else the first one for Linux, else the first one that is an
/// image.
fn choose<'a>(
    files: &dyn Files,
    children: &'a [Descriptor],
    platform: &Platform,
) -> Result<Option<&'a Descriptor>> {
    let mut here = Vec::new();
    for child in children {
        let is_image = child.platform.as_ref().is_none_or(|of| of.os != "unknown");
        if is_image && files.size_of(&child.digest)?.is_some() {
            here.push(child);
        }
    }
    let find = |fits: &dyn Fn(&Platform) -> bool| {
        here.iter().copied().find(|child| child.platform.as_ref().is_some_and(fits))
    };
    let same_cpu = |of: &Platform| of.os == platform.os && of.architecture == platform.architecture;
    let exact = find(&|of| same_cpu(of) && platform.variant.is_some() && of.variant == platform.variant);
    let chosen = exact.or_else(|| find(&same_cpu)).or_else(|| find(&|of| of.os == "linux"));
    Ok(chosen.or(here.first().copied()))
}
