//! Blobs: distribution-spec, "Pulling blobs" and "Deleting Blobs".

use ferry_oci::{ContentRange, Digest, RangeRequest, parse_range};
use ferry_store::{Blob, BlobBody, ByteRange, Error, Link, Removed, Repository, RepositoryMut};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_NONE_MATCH, IF_RANGE,
    LOCATION, RANGE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::answer::{Answer, Headers, answer, has_already, header, is_tag, not_modified, nothing};
use crate::body::{ResponseBody, empty, of_blob};
use crate::direct::Outbox;
use crate::error::{Failure, Thing};
use crate::mirror::from_cache;

/// Whose content it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Ours,
    Upstream,
}

pub(crate) async fn read(repository: &dyn Repository, digest: &Digest, parts: &Parts, of: Of) -> Answer {
    let head = parts.method == Method::HEAD;
    if head || parts.headers.contains_key(IF_NONE_MATCH) {
        let size = size(repository, digest).await?;
        if has_already(parts, digest) {
            return Ok(not_modified(digest));
        }
        if head {
            return Ok(described(answer(StatusCode::OK, empty()), digest).with(CONTENT_LENGTH, size));
        }
    }
    let part = match wanted_range(parts, digest) {
        Some(text) => part(repository, digest, text).await?,
        None => None,
    };
    let blob = repository.blob(digest, part.unwrap_or(ByteRange::ALL)).await;
    let blob = blob.map_err(Failure::of(Thing::Blob))?;
    if let BlobBody::Link(link) = &blob.body {
        return Ok(elsewhere(link, blob.size));
    }
    let held = !blob.fetched;
    let outbox = parts.extensions.get();
    let response = body(blob, digest, part.is_some(), outbox);
    Ok(if of == Of::Upstream { from_cache(response, held) } else { response })
}

/// So many bytes the client is sent elsewhere for. Stands in the extensions of such an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elsewhere(pub(crate) u64);

/// Says where the blob is. The link is signed for a time, so nobody is to remember it.
fn elsewhere(link: &Link, size: u64) -> Response<ResponseBody> {
    let mut response =
        nothing(StatusCode::TEMPORARY_REDIRECT).with(LOCATION, &link.url).with(CACHE_CONTROL, "no-store");
    response.extensions_mut().insert(Elsewhere(size));
    response
}

fn body(blob: Blob, digest: &Digest, is_part: bool, outbox: Option<&Outbox>) -> Response<ResponseBody> {
    let content_range = ContentRange { range: blob.range.clone(), total: Some(blob.size) };
    let status = if is_part { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let response = described(answer(status, of_blob(blob, outbox)), digest);
    if is_part { response.with(CONTENT_RANGE, content_range) } else { response }
}

async fn size(repository: &dyn Repository, digest: &Digest) -> Result<u64, Failure> {
    let size = repository.stat(digest).await.map_err(Failure::of(Thing::Blob))?;
    size.ok_or_else(|| Failure::Store(Thing::Blob, Error::not_found("read blob", digest)))
}

/// The `Range` header, unless it holds only for another content (RFC 9110 section 13.1.5).
fn wanted_range<'a>(parts: &'a Parts, digest: &Digest) -> Option<&'a str> {
    let applies = header(parts, IF_RANGE).is_none_or(|tag| is_tag(tag, &digest.to_string()));
    header(parts, RANGE).filter(|_| applies)
}

async fn part(
    repository: &dyn Repository,
    digest: &Digest,
    text: &str,
) -> Result<Option<ByteRange>, Failure> {
    let size = size(repository, digest).await?;
    match parse_range(text, size) {
        RangeRequest::Whole => Ok(None),
        RangeRequest::Part(range) => Ok(Some(ByteRange { start: range.start, end: Some(range.end) })),
        RangeRequest::Unsatisfiable => Err(Failure::Range { size }),
    }
}

/// The headers of a blob, which is the same for ever.
fn described(response: Response<ResponseBody>, digest: &Digest) -> Response<ResponseBody> {
    response
        .named(digest)
        .with(CONTENT_TYPE, "application/octet-stream")
        .with(ACCEPT_RANGES, "bytes")
        .with(CACHE_CONTROL, "max-age=31536000, immutable")
}

pub(crate) async fn delete(repository: &dyn RepositoryMut, digest: &Digest) -> Answer {
    match repository.delete_blob(digest).await.map_err(Failure::of(Thing::Blob))? {
        Removed::Yes => Ok(nothing(StatusCode::ACCEPTED)),
        Removed::Unsupported => Err(Failure::Unsupported("delete blobs")),
    }
}
