//! What the page is made of beside its text.

use std::sync::LazyLock;

use bytes::Bytes;
use ferry_oci::Digest;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{Response, StatusCode};
use serde_json::json;

use crate::answer::{Headers, answer, header, is_tag, nothing};
use crate::body::{ResponseBody, full};

/// A file that is part of the program.
struct Asset {
    key: &'static str,
    path: &'static str,
    kind: &'static str,
    content: &'static [u8],
    /// Changes with the content.
    version: String,
}

static ASSETS: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    let asset = |key, path, kind, content: &'static [u8]| {
        let version = Digest::sha256(content).to_string();
        let version = version.trim_start_matches("sha256:").chars().take(16).collect();
        Asset { key, path, kind, content, version }
    };
    [
        asset("css", "/page/page.css", "text/css; charset=utf-8", include_bytes!("../../assets/page.css")),
        asset(
            "js",
            "/page/page.js",
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/page.js"),
        ),
        asset("icon", "/page/icon.svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
    ]
});

/// Where they are; the addresses change with the content, so that browsers may keep it for good.
pub(super) fn addresses() -> serde_json::Value {
    let address =
        |asset: &Asset| (asset.key.to_owned(), json!(format!("{}?v={}", asset.path, asset.version)));
    ASSETS.iter().map(address).collect::<serde_json::Map<_, _>>().into()
}

/// The file at a path, if there is one.
pub(super) fn find(path: &str, parts: &Parts) -> Option<Response<ResponseBody>> {
    let asset = ASSETS.iter().find(|asset| asset.path == path)?;
    let known = header(parts, IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|tag| is_tag(tag, &asset.version)));
    let response = match known {
        true => nothing(StatusCode::NOT_MODIFIED),
        false => {
            answer(StatusCode::OK, full(Bytes::from_static(asset.content))).with(CONTENT_TYPE, asset.kind)
        }
    };
    // Who asks for an older one gets this one, and shall not keep it as that.
    let named = parts.uri.query() == Some(&format!("v={}", asset.version));
    let keep = if named { "public, max-age=31536000, immutable" } else { "no-cache" };
    Some(
        response
            .with(ETAG, format_args!("\"{}\"", asset.version))
            .with(CACHE_CONTROL, keep)
            .with(X_CONTENT_TYPE_OPTIONS, "nosniff"),
    )
}
