use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{Digest, media_type};

/// Names a piece of content: its type, digest and size (image-spec `descriptor.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content.
    #[serde(default, deserialize_with = "word")]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Length of the content in bytes.
    pub size: u64,
    /// What kind of artifact the content is, if it is a manifest that says so.
    #[serde(default, deserialize_with = "maybe_word", skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The platform that the content is for, in entries of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// A descriptor with type, digest and size only.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            artifact_type: None,
            platform: None,
            annotations: None,
        }
    }

    /// Whether the content may rightly be absent from the repository.
    pub fn is_nondistributable(&self) -> bool {
        media_type::is_nondistributable(&self.media_type)
    }
}

/// The platform of an index entry (image-spec `image-index.md`, `platform`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture, in the words of `GOARCH`.
    #[serde(default, deserialize_with = "word")]
    pub architecture: String,
    /// Operating system, in the words of `GOOS`.
    #[serde(default, deserialize_with = "word")]
    pub os: String,
    /// Version of the operating system, used by Windows images.
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "maybe_word",
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// Variant of the CPU, such as `v8`.
    #[serde(default, deserialize_with = "maybe_word", skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform that the configuration of an image is for (image-spec `config.md`, "Properties"). `None` for what
    /// is no such document.
    pub fn of_config(config: &[u8]) -> Option<Self> {
        serde_json::from_slice(config).ok()
    }
}

impl fmt::Display for Platform {
    /// `linux/arm64/v8`, as every tool writes it; the version of Windows follows after a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        match &self.os_version {
            Some(version) => write!(f, ":{version}"),
            None => Ok(()),
        }
    }
}

/// A media type or a part of a platform. They are shown to people, so none may command a terminal.
fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.chars().any(char::is_control) {
        true => Err(de::Error::custom(format!("{text:?} has characters that cannot be shown"))),
        false => Ok(text),
    }
}

/// The same, if there is one.
pub(crate) fn maybe_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    struct Word(#[serde(deserialize_with = "word")] String);
    Ok(Option::<Word>::deserialize(deserializer)?.map(|word| word.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_says_its_platform() {
        let config =
            json!({"architecture": "arm", "os": "linux", "variant": "v6", "config": {}, "rootfs": {}});
        let platform = Platform::of_config(config.to_string().as_bytes()).unwrap();
        assert_eq!(platform.to_string(), "linux/arm/v6");
        assert_eq!(Platform::of_config(b"{}").map(|p| p.os), Some(String::new()));
        assert_eq!(Platform::of_config(b"no JSON"), None);
        assert_eq!(Platform::of_config(br#"{"os": "\u001b[2J"}"#), None);
    }

    #[test]
    fn nothing_that_is_shown_commands_a_terminal() {
        let good = json!({
            "mediaType": "m", "digest": Digest::sha256(b""), "size": 0, "artifactType": null,
            "platform": {"os": "linux", "architecture": "é", "variant": "v8", "os.version": "10"},
        });
        assert!(serde_json::from_value::<Descriptor>(good.clone()).is_ok());
        for place in [
            "/mediaType",
            "/artifactType",
            "/platform/os",
            "/platform/architecture",
            "/platform/variant",
            "/platform/os.version",
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(place).unwrap() = json!("\u{1b}[2J");
            assert!(serde_json::from_value::<Descriptor>(bad).is_err(), "{place}");
        }
    }
}
