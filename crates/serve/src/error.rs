//! The one place where failures become status codes and error bodies.

use std::fmt;

use ferry_oci::{Digest, ErrorBody, ErrorCode, Malformed, Name, Registry};
use ferry_policy::upstream::Unknown;
use ferry_store::{Error, Kind, UploadToken};
use http::header::{ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::access::Refusal;
use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::limits::Excess;
use crate::uploads::show_progress;

/// What a store was asked about; it decides which "unknown" and which "invalid" the client hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thing {
    Repository,
    Manifest,
    Blob,
    Upload,
}

/// Why a request cannot be answered as wished.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store said so.
    Store(Thing, Error),
    /// The store that answers for an upstream said so.
    Upstream(Box<AtUpstream>),
    /// There is no such upstream.
    UnknownUpstream(Unknown),
    /// An upstream is only pulled from.
    OnlyPulled(Registry),
    /// The tags of an upstream are not listed.
    Unlisted(Registry),
    /// A part of the request does not follow its grammar.
    Malformed(ErrorCode, Malformed),
    /// There is nothing at this path.
    NoSuchPath,
    /// There is, but not for this method.
    Method { allow: &'static str },
    /// The store does not do this.
    Unsupported(&'static str),
    /// `n` is not a number.
    PageSize,
    /// More tags in one push than are set.
    TooManyTags { most: usize },
    /// A manifest is not what its digest in the path says.
    OtherDigest { actual: Digest },
    /// A manifest, or whatever has to be held as a whole, is larger than is accepted, in bytes.
    TooLarge { most: usize },
    /// A range begins beyond the end of a blob of this size, or ends before it begins.
    Range { size: u64 },
    /// A chunk does not begin where the upload ends.
    OutOfOrder { name: Name, token: UploadToken, offset: u64 },
    /// The body is not as long as the headers say.
    Length,
    /// The client ended the connection within the body.
    BodyCut,
    /// The client has sent nothing for too long.
    BodyIdle,
    /// The client has taken what it may.
    Excess(Excess),
    /// The client may not.
    Access(Box<Refusal>),
}

/// What the store that answers for an upstream said about a thing.
#[derive(Debug)]
pub(crate) struct AtUpstream {
    registry: Registry,
    thing: Thing,
    error: Error,
}

impl Failure {
    /// For `map_err`: what a store said about a thing.
    pub(crate) fn of(thing: Thing) -> impl Fn(Error) -> Self {
        move |error| Self::Store(thing, error)
    }

    /// What went wrong with content of an upstream.
    pub(crate) fn at_upstream(self, registry: &Registry) -> Self {
        match self {
            Self::Store(thing, error) => {
                Self::Upstream(Box::new(AtUpstream { registry: registry.clone(), thing, error }))
            }
            other => other,
        }
    }

    /// The answer. Codes: distribution-spec, "Error Codes",
    /// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#error-codes>; those that are not there
    /// are distribution's, <https://github.com/distribution/distribution/blob/main/registry/api/errcode/register.go>.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let (status, code) = self.status();
        let message = self.message(status);
        let body = full(ErrorBody { code, message }.to_json());
        let response = answer(status, body).with(CONTENT_TYPE, "application/json");
        match self {
            Self::Method { allow } => response.with(ALLOW, allow),
            Self::Range { size } => response.with(CONTENT_RANGE, format_args!("bytes */{size}")),
            Self::OutOfOrder { name, token, offset } => show_progress(response, &name, &token, offset),
            Self::BodyIdle | Self::BodyCut => response.with(CONNECTION, "close"),
            Self::OnlyPulled(_) => response.with(ALLOW, "GET, HEAD"),
            Self::Excess(excess) => response.with(RETRY_AFTER, excess.seconds()),
            Self::Unlisted(_) => response.with(ALLOW, ""),
            Self::Store(_, error) => patiently(response, &error),
            Self::Upstream(at) => patiently(response, &at.error),
            Self::Access(refusal) => refusal.headers(response),
            _ => response,
        }
    }

    fn status(&self) -> (StatusCode, ErrorCode) {
        match self {
            Self::Store(thing, error) => store_status(*thing, error.kind()),
            Self::Upstream(at) => upstream_status(at.thing, at.error.kind()),
            Self::Malformed(code, _) => (StatusCode::BAD_REQUEST, *code),
            Self::NoSuchPath | Self::UnknownUpstream(_) => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
            Self::Method { .. } | Self::Unsupported(_) | Self::OnlyPulled(_) | Self::Unlisted(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Unsupported)
            }
            Self::PageSize => (StatusCode::BAD_REQUEST, ErrorCode::Unsupported),
            Self::TooManyTags { .. } => (StatusCode::URI_TOO_LONG, ErrorCode::Unsupported),
            Self::OtherDigest { .. } => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid),
            Self::Range { .. } | Self::OutOfOrder { .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeInvalid)
            }
            Self::Length => (StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid),
            Self::BodyCut => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
            Self::BodyIdle => (StatusCode::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid),
            Self::Excess(_) => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
            Self::Access(refusal) => refusal.status(),
        }
    }

    /// What the client reads. The store's own words about a failure of this side are for the log alone.
    fn message(&self, status: StatusCode) -> String {
        if let Self::Store(_, error) = self
            && status.is_server_error()
        {
            tracing::warn!(%error, %status, "the store failed");
            return match error.kind() {
                Kind::Full => "the registry's storage is full".to_owned(),
                _ => "the registry cannot do this at present".to_owned(),
            };
        }
        if let Self::Upstream(at) = self {
            let AtUpstream { registry, error, .. } = &**at;
            match status.is_server_error() {
                true => {
                    tracing::warn!(%registry, %error, %status, "the upstream did not give what was asked for")
                }
                false => tracing::info!(%registry, %error, %status, "the upstream does not give this"),
            }
        }
        self.to_string()
    }
}

/// Says how long to wait, if the store did.
fn patiently(response: Response<ResponseBody>, error: &Error) -> Response<ResponseBody> {
    match error.kind() {
        Kind::RateLimited { after: Some(after) } => response.with(RETRY_AFTER, after.as_secs().max(1)),
        _ => response,
    }
}

/// What an upstream said or did, for a client. Its own words are for the log alone: they are about the mirror's accounts
/// and its way there.
fn upstream_says(registry: &Registry, kind: Kind, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match kind {
        Kind::NotFound => write!(f, "not found at {registry}"),
        Kind::Unauthorized | Kind::Denied => write!(
            f,
            "{registry} does not show this to the mirror: there is no such repository, or it is private"
        ),
        Kind::RateLimited { .. } => write!(f, "{registry} lets the mirror wait: too many requests"),
        Kind::Misdirected => {
            write!(
                f,
                "{registry} sends the mirror to where it does not go; whoever runs the mirror finds in its log where"
            )
        }
        Kind::Stalled => {
            write!(f, "{registry} does not answer the mirror at present, which has no copy of this")
        }
        Kind::DigestMismatch => write!(f, "what {registry} sent to the mirror is damaged"),
        Kind::Invalid => write!(
            f,
            "the mirror cannot use what {registry} answers; whoever runs the mirror finds in its log why"
        ),
        Kind::Full => f.write_str("the mirror's storage is full"),
        Kind::Unavailable | Kind::Incomplete => {
            write!(f, "the mirror cannot get this from {registry} at present, and has no copy of it")
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The client knows what it asked for.
            Self::Store(_, error) if error.kind() == Kind::NotFound => f.write_str(error.detail()),
            Self::Store(_, error) => error.fmt(f),
            Self::Upstream(at) => upstream_says(&at.registry, at.error.kind(), f),
            Self::UnknownUpstream(unknown) => unknown.fmt(f),
            Self::OnlyPulled(registry) => {
                write!(
                    f,
                    "this is a mirror of {registry}, which is only pulled from; push to {registry} itself"
                )
            }
            Self::Unlisted(registry) => {
                write!(f, "this mirror does not list the tags of {registry}; ask {registry} itself for them")
            }
            Self::Malformed(_, malformed) => malformed.fmt(f),
            Self::NoSuchPath => f.write_str("there is nothing at this path"),
            Self::Method { allow } => write!(f, "allowed here: {allow}"),
            Self::Unsupported(what) => write!(f, "this registry does not {what}"),
            Self::PageSize => f.write_str("n is the number of items wanted"),
            Self::TooManyTags { most } => write!(f, "at most {most} tags can be set at once"),
            Self::OtherDigest { actual } => write!(f, "the content is {actual}, not what the path says"),
            Self::TooLarge { most } => write!(f, "this has at most {most} bytes"),
            Self::Range { size } => write!(f, "the blob has {size} bytes"),
            Self::OutOfOrder { offset, .. } => write!(f, "the next chunk begins at {offset}"),
            Self::Length => f.write_str("the body is not as long as Content-Range or Content-Length says"),
            Self::BodyCut => f.write_str("the body ended early"),
            Self::BodyIdle => f.write_str("nothing was received for too long"),
            Self::Excess(excess) => excess.fmt(f),
            Self::Access(refusal) => refusal.fmt(f),
        }
    }
}

fn store_status(thing: Thing, kind: Kind) -> (StatusCode, ErrorCode) {
    match (kind, thing) {
        (Kind::NotFound, Thing::Repository) => (StatusCode::NOT_FOUND, ErrorCode::NameUnknown),
        (Kind::NotFound, Thing::Manifest) => (StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown),
        (Kind::NotFound, Thing::Blob) => (StatusCode::NOT_FOUND, ErrorCode::BlobUnknown),
        (Kind::NotFound, Thing::Upload) => (StatusCode::NOT_FOUND, ErrorCode::BlobUploadUnknown),
        // It is the store that lacks rights, not the client: to ask the client for credentials would not help.
        (Kind::Unauthorized | Kind::Denied, _) => (StatusCode::FORBIDDEN, ErrorCode::Denied),
        (Kind::RateLimited { .. }, _) => (StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests),
        (Kind::Misdirected, _) => (StatusCode::BAD_GATEWAY, ErrorCode::Unavailable),
        (Kind::Unavailable | Kind::Stalled, _) => (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable),
        (Kind::DigestMismatch, Thing::Upload) => (StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid),
        // What is held is damaged; the request was right.
        (Kind::DigestMismatch, _) => (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Unknown),
        (Kind::Invalid, Thing::Repository) => (StatusCode::BAD_REQUEST, ErrorCode::NameInvalid),
        (Kind::Invalid, Thing::Manifest) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid),
        (Kind::Invalid, Thing::Blob) => (StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::RangeInvalid),
        (Kind::Invalid, Thing::Upload) => (StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid),
        (Kind::Incomplete, _) => (StatusCode::BAD_REQUEST, ErrorCode::ManifestBlobUnknown),
        (Kind::Full, _) => (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Unavailable),
    }
}

/// An upstream's failure is that of a gateway. What it does not show to the mirror is not there, as it is not for anybody
/// who asks without an account: a challenge would make clients show the mirror what is meant for the upstream. Every client
/// goes on to the upstream itself if it is configured so. Nothing of it is the client's fault: its range was judged before,
/// by the size.
fn upstream_status(thing: Thing, kind: Kind) -> (StatusCode, ErrorCode) {
    match (kind, thing) {
        (Kind::Unauthorized | Kind::Denied, _) => store_status(thing, Kind::NotFound),
        (Kind::Unavailable | Kind::DigestMismatch | Kind::Invalid | Kind::Incomplete, _) => {
            (StatusCode::BAD_GATEWAY, ErrorCode::Unavailable)
        }
        (Kind::Stalled, _) => (StatusCode::GATEWAY_TIMEOUT, ErrorCode::Unavailable),
        _ => store_status(thing, kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(thing: Thing, kind: Kind) -> u16 {
        let error = Error::new(kind, "do", "it", "/secret/path");
        Failure::Store(thing, error).into_response().status().as_u16()
    }

    #[test]
    fn kinds_become_statuses() {
        assert_eq!(status(Thing::Blob, Kind::NotFound), 404);
        assert_eq!(status(Thing::Upload, Kind::DigestMismatch), 400);
        assert_eq!(status(Thing::Manifest, Kind::DigestMismatch), 500);
        assert_eq!(status(Thing::Manifest, Kind::Incomplete), 400);
        assert_eq!(status(Thing::Blob, Kind::Invalid), 416);
        assert_eq!(status(Thing::Upload, Kind::Full), 507);
        assert_eq!(status(Thing::Blob, Kind::Unauthorized), 403);
        assert_eq!(status(Thing::Blob, Kind::Stalled), 503);
    }

    #[test]
    fn upstreams_fail_as_gateways_and_never_challenge() {
        let said = |thing, kind| {
            let error = Error::new(kind, "do", "it", "token=hunter2");
            let failure = Failure::Store(thing, error).at_upstream(&"quay.io".parse().unwrap());
            let (status, _) = failure.status();
            let message = failure.message(status);
            assert!(message.contains("quay.io") && !message.contains("hunter2"), "{message}");
            status.as_u16()
        };
        assert_eq!(said(Thing::Manifest, Kind::NotFound), 404);
        assert_eq!(said(Thing::Manifest, Kind::Unauthorized), 404);
        assert_eq!(said(Thing::Blob, Kind::Denied), 404);
        assert_eq!(said(Thing::Blob, Kind::Unavailable), 502);
        assert_eq!(said(Thing::Blob, Kind::Misdirected), 502);
        assert_eq!(said(Thing::Blob, Kind::Stalled), 504);
        assert_eq!(said(Thing::Blob, Kind::Invalid), 502, "as of a certificate that is not trusted");
        assert_eq!(said(Thing::Manifest, Kind::DigestMismatch), 502);
        assert_eq!(said(Thing::Manifest, Kind::Invalid), 502);
        assert_eq!(said(Thing::Manifest, Kind::RateLimited { after: None }), 429);
    }

    #[test]
    fn waiting_is_told_and_details_are_kept_back() {
        let after = Some(std::time::Duration::from_millis(1));
        let limited = Error::new(Kind::RateLimited { after }, "read blob", "x", "");
        let response = Failure::Store(Thing::Blob, limited).into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[RETRY_AFTER]),
            (429, &"1".parse().unwrap())
        );
        let failed = Error::new(Kind::Unavailable, "read blob", "x", "/secret/path");
        assert!(
            !Failure::Store(Thing::Blob, failed).message(StatusCode::SERVICE_UNAVAILABLE).contains("secret")
        );
    }
}
