use serde_json::{Value, json};

/// Error codes of the distribution specification ("Error Codes") and the few that implementations add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// A blob is not in the repository.
    BlobUnknown,
    /// An upload cannot go on as asked.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// A digest is malformed or does not match the content.
    DigestInvalid,
    /// A manifest names content that the repository does not hold.
    ManifestBlobUnknown,
    /// A manifest cannot be read.
    ManifestInvalid,
    /// A manifest is not in the repository.
    ManifestUnknown,
    /// A repository name is malformed.
    NameInvalid,
    /// The registry does not know the repository.
    NameUnknown,
    /// A length does not match the content.
    SizeInvalid,
    /// Credentials are needed, or those given do not suffice.
    Unauthorized,
    /// Access is refused.
    Denied,
    /// The operation is not offered.
    Unsupported,
    /// Too many requests; wait.
    TooManyRequests,
    /// A range cannot be satisfied (implementations, not the specification).
    RangeInvalid,
    /// A tag is malformed or fixed (implementations, not the specification).
    TagInvalid,
    /// The registry cannot answer at present (implementations, not the specification).
    Unavailable,
    /// Anything else (implementations, not the specification).
    Unknown,
}

const CODES: [(ErrorCode, &str); 18] = [
    (ErrorCode::BlobUnknown, "BLOB_UNKNOWN"),
    (ErrorCode::BlobUploadInvalid, "BLOB_UPLOAD_INVALID"),
    (ErrorCode::BlobUploadUnknown, "BLOB_UPLOAD_UNKNOWN"),
    (ErrorCode::DigestInvalid, "DIGEST_INVALID"),
    (ErrorCode::ManifestBlobUnknown, "MANIFEST_BLOB_UNKNOWN"),
    (ErrorCode::ManifestInvalid, "MANIFEST_INVALID"),
    (ErrorCode::ManifestUnknown, "MANIFEST_UNKNOWN"),
    (ErrorCode::NameInvalid, "NAME_INVALID"),
    (ErrorCode::NameUnknown, "NAME_UNKNOWN"),
    (ErrorCode::SizeInvalid, "SIZE_INVALID"),
    (ErrorCode::Unauthorized, "UNAUTHORIZED"),
    (ErrorCode::Denied, "DENIED"),
    (ErrorCode::Unsupported, "UNSUPPORTED"),
    (ErrorCode::TooManyRequests, "TOOMANYREQUESTS"),
    (ErrorCode::RangeInvalid, "RANGE_INVALID"),
    (ErrorCode::TagInvalid, "TAG_INVALID"),
    (ErrorCode::Unavailable, "UNAVAILABLE"),
    (ErrorCode::Unknown, "UNKNOWN"),
];

impl ErrorCode {
    /// The code on the wire.
    pub fn as_str(self) -> &'static str {
        CODES.iter().find(|(code, _)| *code == self).map_or("UNKNOWN", |(_, text)| text)
    }

    fn parse(text: &str) -> Self {
        CODES.iter().find(|(_, code)| *code == text).map_or(Self::Unknown, |(code, _)| *code)
    }
}

/// One error of an error body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// The code; [`ErrorCode::Unknown`] if it is none that we know.
    pub code: ErrorCode,
    /// The message for people; may be empty.
    pub message: String,
}

impl ErrorBody {
    /// The JSON document with this one error.
    pub fn to_json(&self) -> String {
        json!({"errors": [{"code": self.code.as_str(), "message": self.message}]}).to_string()
    }
}

/// Reads the errors from the body of a failed answer, which in practice may be plain text, HTML or empty: then the
/// list is empty, or holds one [`ErrorCode::Unknown`] for a short plain text.
pub fn parse_error_body(body: &[u8]) -> Vec<ErrorBody> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let Ok(document) = serde_json::from_slice::<Value>(body) else { return plain_text(body) };
    match document.get("errors").and_then(Value::as_array) {
        Some(errors) => errors
            .iter()
            .map(|error| ErrorBody {
                code: ErrorCode::parse(&text(error.get("code"))),
                message: text(error.get("message")),
            })
            .collect(),
        None => {
            let message = text(document.get("details").or_else(|| document.get("message")));
            if message.is_empty() {
                Vec::new()
            } else {
                vec![ErrorBody { code: ErrorCode::Unknown, message }]
            }
        }
    }
}

fn plain_text(body: &[u8]) -> Vec<ErrorBody> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.is_empty() || text.starts_with('<') || text.len() > 300 {
        return Vec::new();
    }
    vec![ErrorBody { code: ErrorCode::Unknown, message: text.to_owned() }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_lenience() {
        let error = ErrorBody { code: ErrorCode::ManifestBlobUnknown, message: "no \"x\"".to_owned() };
        assert_eq!(parse_error_body(error.to_json().as_bytes()), vec![error]);
        let odd = parse_error_body(br#"{"errors":[{"code":"NEW_ONE","detail":{}}]}"#);
        assert_eq!(odd, vec![ErrorBody { code: ErrorCode::Unknown, message: String::new() }]);
        assert_eq!(parse_error_body(br#"{"details":"bad login"}"#)[0].message, "bad login");
        assert_eq!(parse_error_body(b" too many requests\n")[0].message, "too many requests");
        assert!(parse_error_body(b"<html>").is_empty());
        assert!(parse_error_body(b"").is_empty());
        assert!(parse_error_body(br#"{"errors":null}"#).is_empty());
        assert_eq!(CODES.len(), 18);
    }
}
