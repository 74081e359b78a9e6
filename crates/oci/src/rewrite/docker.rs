use serde_json::{Map, Value};

use super::{Inexpressible, edit, objects};
use crate::media_type as t;
use crate::{Content, Descriptor, Manifest};

/// The manifest or index in Docker's types: image manifest version 2 schema 2, or a manifest list (distribution
/// `docs/content/spec/manifest-v2-2.md`). One that is of Docker's types already comes back as it is. The children of an
/// index are rewritten first, see [`super::with_children`].
///
/// What schema 2 does not have is dropped where it says nothing about the content: `annotations`, `data`, and `urls` but
/// those of layers (image-spec `media-types.md`, "Compatibility Matrix": "only present in OCI"). A reader of schema 2
/// ignores them, and one that is strict enough to refuse OCI types need not.
///
/// # Errors
/// [`Inexpressible`] for an artifact (`artifactType`, `subject`, a configuration that is not an image's), a layer that is
/// compressed with zstd or of an unknown type, and an index with entries that are not Docker image manifests for a
/// platform.
pub fn to_docker_types(manifest: &Manifest) -> Result<Manifest, Inexpressible> {
    if matches!(manifest.media_type(), t::DOCKER_LIST | t::DOCKER_MANIFEST) {
        return Ok(manifest.clone());
    }
    refuse_artifact(manifest)?;
    match manifest.content() {
        Content::Index(entries) => {
            entries.iter().try_for_each(check_entry)?;
            edit(manifest, |document| {
                set_type(document, t::DOCKER_LIST);
                objects(document, "manifests").for_each(drop_unknown_and_urls);
            })
        }
        Content::Image { config, layers } => {
            check_config(config)?;
            let types = layers.iter().map(layer_type).collect::<Result<Vec<_>, _>>()?;
            edit(manifest, |document| {
                set_type(document, t::DOCKER_MANIFEST);
                if let Some(config) = document.get_mut("config").and_then(Value::as_object_mut) {
                    config.insert("mediaType".to_owned(), t::DOCKER_CONFIG.into());
                    drop_unknown_and_urls(config);
                }
                for (layer, media_type) in objects(document, "layers").zip(types) {
                    layer.insert("mediaType".to_owned(), media_type.into());
                    drop_unknown(layer);
                }
            })
        }
    }
}

fn refuse_artifact(manifest: &Manifest) -> Result<(), Inexpressible> {
    let what = || format!("manifest {}", manifest.digest());
    if let Some(kind) = manifest.artifact_type() {
        return Err(Inexpressible::new(
            what(),
            format!("it is an artifact ({kind}), and schema 2 knows images only"),
        ));
    }
    match manifest.subject() {
        None => Ok(()),
        Some(subject) => {
            let reason = format!("it refers to {}, and schema 2 has no subject", subject.digest);
            Err(Inexpressible::new(what(), reason))
        }
    }
}

fn check_config(config: &Descriptor) -> Result<(), Inexpressible> {
    match config.media_type.as_str() {
        t::OCI_CONFIG | t::DOCKER_CONFIG => Ok(()),
        other => {
            let reason = format!("it is of type {other:?}, and schema 2 knows configurations of images only");
            Err(Inexpressible::new(format!("configuration {}", config.digest), reason))
        }
    }
}

fn check_entry(entry: &Descriptor) -> Result<(), Inexpressible> {
    let what = format!("entry {}", entry.digest);
    match (entry.media_type.as_str(), &entry.platform) {
        (t::DOCKER_MANIFEST, Some(_)) => Ok(()),
        (t::DOCKER_MANIFEST, None) => Err(Inexpressible::new(
            what,
            "it names no platform, and each entry of a manifest list is for one",
        )),
        (other, _) => {
            let reason =
                format!("it is of type {other:?}, and a manifest list holds {} only", t::DOCKER_MANIFEST);
            Err(Inexpressible::new(what, reason))
        }
    }
}

/// Docker's type of the same bytes.
fn layer_type(layer: &Descriptor) -> Result<&'static str, Inexpressible> {
    Ok(match layer.media_type.as_str() {
        t::OCI_LAYER_GZIP | t::DOCKER_LAYER_GZIP => t::DOCKER_LAYER_GZIP,
        t::OCI_LAYER | t::DOCKER_LAYER => t::DOCKER_LAYER,
        t::OCI_FOREIGN_GZIP | t::DOCKER_FOREIGN_GZIP => t::DOCKER_FOREIGN_GZIP,
        t::OCI_FOREIGN | t::DOCKER_FOREIGN => t::DOCKER_FOREIGN,
        other => {
            let reason = if other.ends_with("zstd") {
                "it is compressed with zstd, for which schema 2 has no type".to_owned()
            } else {
                format!("it is of type {other:?}, which schema 2 does not have")
            };
            return Err(Inexpressible::new(format!("layer {}", layer.digest), reason));
        }
    })
}

/// Schema 2 always names its type, which OCI documents need not; where it is missing it comes after the version.
fn set_type(document: &mut Map<String, Value>, media_type: &str) {
    drop_unknown(document);
    if !document.contains_key("mediaType") {
        document.shift_insert(1, "mediaType".to_owned(), Value::Null);
    }
    document.insert("mediaType".to_owned(), media_type.into());
}

fn drop_unknown(object: &mut Map<String, Value>) {
    for key in ["annotations", "artifactType", "data", "subject"] {
        object.shift_remove(key);
    }
}

fn drop_unknown_and_urls(object: &mut Map<String, Value>) {
    drop_unknown(object);
    object.shift_remove("urls");
}
