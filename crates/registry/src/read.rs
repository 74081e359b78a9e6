use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::{Algorithm, Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, Name, Reference, media_type};
use ferry_store::{Blob, ByteRange, Kind, Page, PageRequest, Repository, Resolved, Result, TagEntry};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use url::Url;

use crate::access::{Access, Action};
use crate::desk::Desk;
use crate::error::{Tried, What};
use crate::listed::Listed;
use crate::request::{Answer, Request, length, plain, text};

/// The header with the digest of what is answered (distribution-spec, "Pulling manifests").
pub(crate) const CONTENT_DIGEST: &str = "docker-content-digest";

/// All types in one header: without a type that it stores a registry answers another manifest under another digest.
const MANIFESTS: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json",
);

/// A repository of a registry, and what it is opened for.
#[derive(Clone)]
pub(crate) struct RemoteRepository {
    pub(crate) host: Desk,
    pub(crate) name: Name,
    action: Action,
    /// What a listing of the tags said, for as long as this value lives.
    pub(crate) listed: Arc<Listed>,
}

impl RemoteRepository {
    pub(crate) fn new(host: Desk, name: Name, action: Action) -> Self {
        Self { host, name, action, listed: Arc::default() }
    }

    pub(crate) fn access(&self) -> Access {
        Access::repository(&self.name, self.action).on(self.host.side)
    }

    /// What is done, to something in this repository.
    pub(crate) fn what(&self, operation: &'static str, subject: impl std::fmt::Display) -> What {
        What::new(operation, format!("{}/{} {subject}", self.host.registry, self.name))
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        self.host.url(&format!("{}/{path}", self.name))
    }

    fn manifest_request(&self, what: What, method: Method, reference: &Reference) -> Request {
        let url = self.url(&format!("manifests/{reference}"));
        Request::new(what, method, url, self.access())
            .header(ACCEPT, MANIFESTS)
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    /// A request for a blob. Encoding it on the way would change what the digest is of.
    pub(crate) fn blob_request(&self, what: What, method: Method, digest: &Digest) -> Request {
        Request::new(what, method, self.url(&format!("blobs/{digest}")), self.access())
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    pub(crate) async fn fetch(&self, reference: &Reference) -> Tried<Manifest> {
        let what = self.what("read manifest", reference);
        let request = self.manifest_request(what, Method::GET, reference);
        self.host.check_quota(&request.what, &request.access)?;
        let answer = self.host.call(&request, MAX_MANIFEST_SIZE).await?;
        verified(&request.what, reference, answer)
    }
}

/// The manifest of an answer, if its bytes are what was asked for, or what the answer itself says.
fn verified(what: &What, reference: &Reference, answer: Answer) -> Tried<Manifest> {
    plain(what, &answer.headers)?;
    let expected = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => announced(&answer.headers),
    };
    let algorithm = expected.map_or(Algorithm::Sha256, |digest| digest.algorithm());
    let actual = Digest::of(algorithm, &answer.body);
    if let Some(expected) = expected
        && expected != actual
    {
        let detail = format!("the digest is {actual} instead of {expected}");
        return Err(what.failure(Kind::DigestMismatch, detail));
    }
    Manifest::parse_as(algorithm, text(&answer.headers, CONTENT_TYPE), answer.body)
        .map_err(|e| what.error(Kind::Invalid, e.reason.clone()).caused_by(e).into())
}

/// The digest that an answer claims; one that cannot be verified is no claim.
pub(crate) fn announced(headers: &HeaderMap) -> Option<Digest> {
    text(headers, CONTENT_DIGEST)?.parse().ok()
}

/// The descriptor that the head of an answer amounts to, if it says enough.
fn described(reference: &Reference, headers: &HeaderMap) -> Option<Descriptor> {
    let digest = announced(headers)?;
    if matches!(reference, Reference::Digest(asked) if *asked != digest) {
        return None;
    }
    let media_type = media_type::essence(text(headers, CONTENT_TYPE)?);
    let size = length(headers).filter(|size| *size > 0)?;
    media_type::is_manifest(media_type).then(|| Descriptor::new(media_type, digest, size))
}

#[async_trait]
impl Repository for RemoteRepository {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let what = self.what("resolve", reference);
        let request = self.manifest_request(what, Method::HEAD, reference);
        let described = match self.host.call(&request, 0).await {
            Ok(answer) => described(reference, &answer.headers),
            Err(failure) if failure.is(StatusCode::METHOD_NOT_ALLOWED) => None,
            Err(failure) => return Err(failure.into()),
        };
        if let Some(descriptor) = described {
            return Ok(Resolved::fresh(descriptor));
        }
        let manifest = self.fetch(reference).await?;
        let size = manifest.bytes().len() as u64;
        Ok(Resolved::fresh(Descriptor::new(manifest.media_type(), manifest.digest(), size)))
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        Ok(self.fetch(reference).await?)
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        let what = self.what("look for blob", digest);
        let request = self.blob_request(what, Method::HEAD, digest);
        match self.host.call(&request, 0).await {
            Ok(answer) => {
                plain(&request.what, &answer.headers)?;
                let unknown = || request.what.error(Kind::Invalid, "the registry does not say its size");
                length(&answer.headers).map(Some).ok_or_else(unknown)
            }
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        self.open_blob(digest, range).await
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        let after = page.after.clone();
        let listed = self.list_tags(page).await;
        self.listed.learn(after.as_ref(), listed.as_ref().ok());
        listed
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        self.list_referrers(subject, artifact_type, page).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_accepted() {
        let header = MANIFESTS;
        let accepted: Vec<&str> = header.to_str().unwrap().split(", ").collect();
        assert_eq!(accepted, media_type::MANIFESTS);
    }

    #[test]
    fn a_head_that_says_too_little_is_not_believed() {
        let digest = Digest::sha256(b"x");
        let full = [
            (CONTENT_DIGEST, digest.to_string()),
            ("content-type", format!("{}; charset=utf-8", media_type::OCI_INDEX)),
            ("content-length", "7".to_owned()),
        ];
        let read = |pairs: &[(&'static str, String)], reference: &Reference| {
            let headers = pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
            described(reference, &headers)
        };
        let tag = Reference::Tag("t".parse().unwrap());
        assert_eq!(read(&full, &tag), Some(Descriptor::new(media_type::OCI_INDEX, digest, 7)));
        for leave_out in 0..full.len() {
            let mut less = full.to_vec();
            less.remove(leave_out);
            assert_eq!(read(&less, &tag), None);
        }
        assert_eq!(read(&full, &Reference::Digest(Digest::sha256(b"y"))), None);
        let mut other = full.to_vec();
        other[1].1 = "application/json".to_owned();
        assert_eq!(read(&other, &tag), None);
    }
}
