//! The file that says that files are an image layout.

use serde_json::Value;

/// Its name.
pub(crate) const FILE: &str = "oci-layout";

/// The one version of the image layout that there is.
const VERSION: &str = "1.0.0";

pub(crate) fn content() -> Vec<u8> {
    serde_json::json!({"imageLayoutVersion": VERSION}).to_string().into_bytes()
}

/// Reads the file.
///
/// # Errors
/// Why this is not a layout that ferry knows.
pub(crate) fn check(text: &[u8]) -> Result<(), String> {
    let mark: Value =
        serde_json::from_slice(text).map_err(|e| format!("its file oci-layout is not JSON: {e}"))?;
    match mark.get("imageLayoutVersion").and_then(Value::as_str) {
        Some(VERSION) => Ok(()),
        Some(other) => Err(format!("its version is {other:?}, known is {VERSION}")),
        None => Err("its file oci-layout has no imageLayoutVersion".to_owned()),
    }
}
