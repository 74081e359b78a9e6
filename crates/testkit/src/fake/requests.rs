use http::header::{AUTHORIZATION, RANGE};
use http::request::Parts;

/// What sort of request it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `GET /v2/`.
    Ping,
    /// A request for a token.
    Token,
    /// A page of tags or of repositories.
    Listing,
    /// A page of referrers.
    Referrers,
    /// `HEAD` of a manifest.
    ManifestHead,
    /// `GET` of a manifest.
    ManifestGet,
    /// `PUT` of a manifest.
    ManifestPut,
    /// `HEAD` of a blob.
    BlobHead,
    /// `GET` of a blob, or of a part of it.
    BlobGet,
    /// `POST` that begins an upload or asks for a mount.
    UploadPost,
    /// `PATCH` of an upload.
    UploadPatch,
    /// `PUT` that ends an upload.
    UploadPut,
    /// `GET` of an upload's status.
    UploadGet,
    /// `DELETE` of anything.
    Delete,
    /// Anything else.
    Other,
}

impl Kind {
    pub(super) fn of(method: &str, path: &str) -> Self {
        let has = |part: &str| path.contains(part);
        match method {
            _ if path == "/token" => Self::Token,
            "GET" if matches!(path, "/v2" | "/v2/") => Self::Ping,
            "DELETE" => Self::Delete,
            "POST" if has("/blobs/uploads") => Self::UploadPost,
            "PATCH" if has("/blobs/uploads/") => Self::UploadPatch,
            "PUT" if has("/blobs/uploads/") => Self::UploadPut,
            "GET" if has("/blobs/uploads/") => Self::UploadGet,
            "GET" if has("/tags/list") || has("/_catalog") => Self::Listing,
            "GET" if has("/referrers/") => Self::Referrers,
            "HEAD" if has("/manifests/") => Self::ManifestHead,
            "GET" if has("/manifests/") => Self::ManifestGet,
            "PUT" if has("/manifests/") => Self::ManifestPut,
            "HEAD" if has("/blobs/") => Self::BlobHead,
            "GET" if has("/blobs/") => Self::BlobGet,
            _ => Self::Other,
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What sort it was.
    pub kind: Kind,
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Path and query as sent.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// Whether it came with credentials.
    pub authorized: bool,
}

impl Recorded {
    pub(super) fn of(parts: &Parts) -> Self {
        let range = parts.headers.get(RANGE).and_then(|value| value.to_str().ok());
        Self {
            kind: Kind::of(parts.method.as_str(), parts.uri.path()),
            method: parts.method.to_string(),
            path: parts.uri.to_string(),
            range: range.map(str::to_owned),
            authorized: parts.headers.contains_key(AUTHORIZATION),
        }
    }
}

/// The repository that a path is about.
pub(super) fn repository(path: &str) -> Option<&str> {
    let words = ["/manifests/", "/blobs/", "/referrers/", "/tags/list"];
    let end = words.into_iter().filter_map(|word| path.rfind(word)).max()?;
    path.get("/v2/".len()..end)
}
