//! From answers and broken connections to errors whose kind says what to do next.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, SystemTime};

use ferry_oci::{ErrorBody, ErrorCode, parse_error_body};
use ferry_store::{Error, Kind};
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, Method, StatusCode};

use crate::address::Refused;

/// The longest message of a peer that is passed on.
const MAX_MESSAGE: usize = 300;
/// The longest detail of an error, which may repeat what a peer sent.
const MAX_DETAIL: usize = 600;

/// What is being done, to what.
#[derive(Debug, Clone)]
pub(crate) struct What {
    pub(crate) operation: &'static str,
    pub(crate) subject: String,
}

impl What {
    pub(crate) fn new(operation: &'static str, subject: impl ToString) -> Self {
        Self { operation, subject: subject.to_string() }
    }

    /// The error of `kind`, with what the peer or the system said.
    pub(crate) fn error(&self, kind: Kind, detail: impl Into<String>) -> Error {
        Error::new(kind, self.operation, &self.subject, harmless(&detail.into()))
    }

    /// The same as a failure without an answer.
    pub(crate) fn failure(&self, kind: Kind, detail: impl Into<String>) -> Failure {
        self.error(kind, detail).into()
    }
}

/// Text in which nothing commands a terminal, and not too much of it.
fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect()
}

/// The result of a request.
pub(crate) type Tried<T> = Result<T, Failure>;

/// A failed request: the error to report, and what the answer was if there was one.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Box<Error>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) retry_after: Option<Duration>,
    /// A quota is used up, which trying again does not change.
    pub(crate) quota: bool,
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        *self.error
    }

    pub(crate) fn is(&self, status: StatusCode) -> bool {
        self.status == Some(status)
    }

    /// Whether the registry does not offer the operation (distribution-spec, "Content Management").
    pub(crate) fn is_unsupported(&self) -> bool {
        self.is(StatusCode::METHOD_NOT_ALLOWED)
            || (self.status.is_some() && self.code == Some(ErrorCode::Unsupported))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error: Box::new(error), status: None, code: None, retry_after: None, quota: false }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.into_error()
    }
}

/// The failure that an answer with an error status stands for.
pub(crate) fn answered(
    what: &What,
    method: &Method,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Failure {
    let errors = parse_error_body(body);
    let retry_after = retry_after(headers, SystemTime::now());
    let kind = kind_of(method, status, &errors, retry_after);
    Failure {
        error: Box::new(what.error(kind, describe(status, &errors))),
        status: Some(status),
        code: errors.first().map(|error| error.code),
        retry_after,
        quota: false,
    }
}

fn kind_of(method: &Method, status: StatusCode, errors: &[ErrorBody], after: Option<Duration>) -> Kind {
    let says = |code| errors.iter().any(|error| error.code == code);
    if says(ErrorCode::ManifestBlobUnknown) {
        return Kind::Incomplete;
    }
    // A digest that the registry cannot read at all is no mismatch; only one that came with content can be.
    if says(ErrorCode::DigestInvalid) && *method == Method::PUT {
        return Kind::DigestMismatch;
    }
    match status {
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::UNAUTHORIZED => Kind::Unauthorized,
        StatusCode::FORBIDDEN => Kind::Denied,
        StatusCode::TOO_MANY_REQUESTS => Kind::RateLimited { after },
        StatusCode::INSUFFICIENT_STORAGE => Kind::Full,
        StatusCode::REQUEST_TIMEOUT => Kind::Unavailable,
        status if status.is_server_error() => Kind::Unavailable,
        _ => Kind::Invalid,
    }
}

/// The first message that says something, then the status in words.
fn describe(status: StatusCode, errors: &[ErrorBody]) -> String {
    let message = errors.iter().map(|error| error.message.trim()).find(|message| !message.is_empty());
    match message {
        Some(message) => {
            let message: String = message.chars().take(MAX_MESSAGE).collect();
            format!("{message} ({status})")
        }
        None => status.to_string(),
    }
}

/// How long a peer asks to wait: seconds, or a date that is read against the peer's own clock if it shows one
/// (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(at.duration_since(now).unwrap_or_default())
}

/// The failure of a connection. The URL stays out of the text: its query may be a signature.
pub(crate) fn broken(what: &What, host: &str, error: &reqwest::Error) -> Failure {
    let mut cause: &(dyn StdError + 'static) = error;
    loop {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refused_address(what, refused.clone());
        }
        if let Some(tls) = inside(cause) {
            return what.failure(Kind::Invalid, format!("{host}: {tls}"));
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    let doing = if error.is_connect() { "cannot connect to" } else { "lost the connection to" };
    what.failure(Kind::Unavailable, format!("{doing} {host}: {cause}"))
}

/// A registry referred us to where we do not go.
pub(crate) fn refused_address(what: &What, refused: Refused) -> Failure {
    what.error(Kind::Misdirected, refused.to_string()).caused_by(refused).into()
}

/// A certificate that does not hold; trying again does not change it. I/O errors hide what they wrap from `source()`,
/// and here one wraps another.
fn inside<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut error = error;
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    let tls = error.downcast_ref::<rustls::Error>();
    tls.filter(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(method: Method, status: u16, body: &str) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        answered(&What::new("test", "x"), &method, status, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn answers_become_kinds() {
        let code = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#);
        for (method, status, body, kind) in [
            (Method::GET, 404, String::new(), Kind::NotFound),
            (Method::GET, 401, String::new(), Kind::Unauthorized),
            (Method::GET, 403, code("DENIED"), Kind::Denied),
            (Method::GET, 429, String::new(), Kind::RateLimited { after: None }),
            (Method::GET, 408, String::new(), Kind::Unavailable),
            (Method::GET, 502, "<html>".to_owned(), Kind::Unavailable),
            (Method::PUT, 507, String::new(), Kind::Full),
            (Method::PUT, 413, String::new(), Kind::Invalid),
            (Method::PUT, 400, code("MANIFEST_BLOB_UNKNOWN"), Kind::Incomplete),
            (Method::PUT, 404, code("MANIFEST_BLOB_UNKNOWN"), Kind::Incomplete),
            (Method::PUT, 400, code("DIGEST_INVALID"), Kind::DigestMismatch),
            (Method::GET, 400, code("DIGEST_INVALID"), Kind::Invalid),
            (Method::GET, 416, String::new(), Kind::Invalid),
        ] {
            assert_eq!(failure(method, status, &body).error.kind(), kind, "{status} {body}");
        }
    }

    #[test]
    fn the_detail_is_for_people() {
        let body = r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m entry"}]}"#;
        assert_eq!(failure(Method::GET, 403, body).error.detail(), "no[31m entry (403 Forbidden)");
        assert_eq!(failure(Method::GET, 500, "").error.detail(), "500 Internal Server Error");
    }

    #[test]
    fn unsupported_is_told_by_status_or_code() {
        assert!(failure(Method::DELETE, 405, "").is_unsupported());
        assert!(failure(Method::DELETE, 400, r#"{"errors":[{"code":"UNSUPPORTED"}]}"#).is_unsupported());
        assert!(!failure(Method::DELETE, 400, "").is_unsupported());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |pairs: &[(http::HeaderName, &str)]| {
            let headers = pairs.iter().map(|(k, v)| (k.clone(), v.parse().unwrap())).collect();
            retry_after(&headers, SystemTime::UNIX_EPOCH)
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[(RETRY_AFTER, "soon")]), None);
        assert_eq!(read(&[(RETRY_AFTER, " 7 ")]), Some(Duration::from_secs(7)));
        let at = "Thu, 01 Jan 1970 00:01:30 GMT";
        assert_eq!(read(&[(RETRY_AFTER, at)]), Some(Duration::from_secs(90)));
        let date = "Thu, 01 Jan 1970 00:01:00 GMT";
        assert_eq!(read(&[(RETRY_AFTER, at), (DATE, date)]), Some(Duration::from_secs(30)));
        let late = "Thu, 01 Jan 1970 00:02:00 GMT";
        assert_eq!(read(&[(RETRY_AFTER, at), (DATE, late)]), Some(Duration::ZERO));
    }

    proptest::proptest! {
        #[test]
        fn any_retry_after_is_read(text in "[ -~]{0,40}|[0-9]{1,21}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT") {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            let after = retry_after(&headers, SystemTime::now());
            if let Ok(seconds) = text.trim().parse::<u64>() {
                proptest::prop_assert_eq!(after, Some(Duration::from_secs(seconds)));
            }
        }

        #[test]
        fn details_are_short_and_command_no_terminal(detail: String, body: Vec<u8>) {
            let what = What::new("test", "x");
            let failed = answered(&what, &Method::GET, StatusCode::BAD_REQUEST, &HeaderMap::new(), &body);
            for detail in [what.error(Kind::Invalid, detail).detail(), failed.error.detail()] {
                proptest::prop_assert!(!detail.chars().any(char::is_control));
                proptest::prop_assert!(detail.chars().count() <= MAX_DETAIL);
            }
        }
    }
}
