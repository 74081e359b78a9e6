//! Uploads of blobs: distribution-spec, "Pushing blobs".
//!
//! The store decides where the next byte goes; a client that says otherwise gets 416 and learns the place. Bytes
//! that arrived are kept whatever happens to the connection, and only a request that was read to its end commits.

use std::ops::Range;

use ferry_oci::{Digest, ErrorCode, Name, UploadRange};
use ferry_store::{Begun, Error, Expect, Mount, RepositoryMut, Upload, UploadToken};
use http::header::{CONTENT_RANGE, LOCATION, RANGE};
use http::request::Parts;
use http::{HeaderName, Response, StatusCode};

use crate::answer::{Answer, Headers, created, header, nothing};
use crate::body::ResponseBody;
use crate::error::{Failure, Thing};
use crate::query::encode;
use crate::request::RequestBody;
use crate::route::Begin;

const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// One upload as requests name it.
pub(crate) struct Target<'a> {
    pub(crate) repository: &'a dyn RepositoryMut,
    pub(crate) name: &'a Name,
    pub(crate) token: &'a UploadToken,
}

pub(crate) async fn begin(
    repository: &dyn RepositoryMut,
    name: &Name,
    begin: Begin,
    body: &mut RequestBody,
) -> Answer {
    let (digest, mount) = match begin {
        Begin::Whole(digest) => return whole(repository, name, &digest, body).await,
        Begin::Session => (None, Mount::No),
        Begin::Mount { digest, from: Some(from) } => (Some(digest), Mount::From(vec![from])),
        Begin::Mount { digest, from: None } => (Some(digest), Mount::Anywhere),
    };
    let begun = repository.begin(Expect { digest, size: None, mount }).await;
    match (begun.map_err(Failure::of(Thing::Upload))?, digest) {
        (Begun::Upload(upload), _) => accepted(name, upload, 0).await,
        (Begun::Exists | Begun::Mounted, Some(digest)) => Ok(created(name, "blobs", &digest)),
        (Begun::Exists | Begun::Mounted, None) => {
            let detail = "the store has a blob that nobody named";
            Err(invalid(Error::new(ferry_store::Kind::Invalid, "begin upload", name, detail)))
        }
    }
}

fn invalid(error: Error) -> Failure {
    Failure::Store(Thing::Upload, error)
}

/// "Single POST": nobody learns the token, so what was cut short is of no use.
async fn whole(
    repository: &dyn RepositoryMut,
    name: &Name,
    digest: &Digest,
    body: &mut RequestBody,
) -> Answer {
    let expect = Expect { digest: Some(*digest), size: body.length(), mount: Mount::No };
    if let Begun::Upload(mut upload) = repository.begin(expect).await.map_err(invalid)? {
        if let Err(failure) = fill(upload.as_mut(), body, None).await {
            // The first failure is the one to report.
            let _ = upload.abort().await;
            return Err(failure);
        }
        upload.commit(digest).await.map_err(invalid)?;
    }
    Ok(created(name, "blobs", digest))
}

pub(crate) async fn status(target: &Target<'_>) -> Answer {
    let mut upload = resume(target).await?;
    let offset = upload.durable_offset().await.map_err(invalid)?;
    let token = suspend(upload).await?;
    Ok(show_progress(nothing(StatusCode::NO_CONTENT), target.name, &token, offset))
}

pub(crate) async fn append(target: &Target<'_>, parts: &Parts, body: &mut RequestBody) -> Answer {
    let (upload, offset) = receive(target, parts, body).await?;
    accepted(target.name, upload, offset).await
}

pub(crate) async fn commit(
    target: &Target<'_>,
    digest: &Digest,
    parts: &Parts,
    body: &mut RequestBody,
) -> Answer {
    let (upload, _) = receive(target, parts, body).await?;
    upload.commit(digest).await.map_err(invalid)?;
    Ok(created(target.name, "blobs", digest))
}

pub(crate) async fn cancel(target: &Target<'_>) -> Answer {
    resume(target).await?.abort().await.map_err(invalid)?;
    Ok(nothing(StatusCode::NO_CONTENT))
}

async fn resume(target: &Target<'_>) -> Result<Box<dyn Upload>, Failure> {
    let upload = target.repository.resume(target.token).await.map_err(invalid)?;
    upload.ok_or_else(|| invalid(Error::not_found("resume upload", target.name)))
}

async fn suspend(upload: Box<dyn Upload>) -> Result<UploadToken, Failure> {
    let token = upload.suspend().await.map_err(invalid)?;
    token.ok_or(Failure::Unsupported("take blobs in more than one request"))
}

/// Appends the body to the upload; also says how long it is now.
async fn receive(
    target: &Target<'_>,
    parts: &Parts,
    body: &mut RequestBody,
) -> Result<(Box<dyn Upload>, u64), Failure> {
    let chunk = chunk(parts, body.length())?;
    let mut upload = resume(target).await?;
    let offset = upload.durable_offset().await.map_err(invalid)?;
    if chunk.as_ref().is_some_and(|chunk| chunk.start != offset) {
        let token = suspend(upload).await?;
        return Err(Failure::OutOfOrder { name: target.name.clone(), token, offset });
    }
    match fill(upload.as_mut(), body, chunk.map(|chunk| chunk.end - chunk.start)).await {
        Ok(received) => Ok((upload, offset + received)),
        Err(failure) => {
            // The first failure is the one to report.
            let _ = upload.suspend().await;
            Err(failure)
        }
    }
}

/// The place of the chunk, if the client says it. Unlike elsewhere in HTTP it is `FIRST-LAST` and nothing else.
fn chunk(parts: &Parts, length: Option<u64>) -> Result<Option<Range<u64>>, Failure> {
    let Some(text) = header(parts, CONTENT_RANGE) else { return Ok(None) };
    let UploadRange(range) = text.parse().map_err(|e| Failure::Malformed(ErrorCode::BlobUploadInvalid, e))?;
    if length.is_some_and(|length| length != range.end - range.start) {
        return Err(Failure::Length);
    }
    Ok(Some(range))
}

/// Writes the body, which has `expected` bytes if that is known.
async fn fill(
    upload: &mut dyn Upload,
    body: &mut RequestBody,
    expected: Option<u64>,
) -> Result<u64, Failure> {
    let mut received = 0;
    while let Some(bytes) = body.next().await? {
        received += bytes.len() as u64;
        if expected.is_some_and(|expected| received > expected) {
            return Err(Failure::Length);
        }
        upload.write(bytes).await.map_err(invalid)?;
    }
    if expected.is_some_and(|expected| received < expected) { Err(Failure::Length) } else { Ok(received) }
}

async fn accepted(name: &Name, upload: Box<dyn Upload>, offset: u64) -> Answer {
    let token = suspend(upload).await?;
    Ok(show_progress(nothing(StatusCode::ACCEPTED), name, &token, offset))
}

/// Says where an upload goes on and how far it is; of an empty one `0-0`, as every registry does.
pub(crate) fn show_progress(
    response: Response<ResponseBody>,
    name: &Name,
    token: &UploadToken,
    offset: u64,
) -> Response<ResponseBody> {
    // Proxies log headers: the token stands in the location alone, and what names the upload is made from it.
    let id = &Digest::sha256(token.expose().as_bytes()).hex()[..32];
    response
        .with(LOCATION, format_args!("/v2/{name}/blobs/uploads/{}", encode(token.expose())))
        .with(RANGE, UploadRange(0..offset))
        .with(DOCKER_UPLOAD_UUID, id)
}
