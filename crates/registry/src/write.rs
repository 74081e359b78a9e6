use std::sync::Arc;

use async_trait::async_trait;
use ferry_oci::{Digest, ErrorCode, Manifest, Reference, Tag};
use ferry_store::{
    Begun, Expect, Kind, Removed, Repository, RepositoryMut, Result, Stored, Upload, UploadToken,
};
use http::{HeaderMap, Method};
use tracing::warn;

use crate::access::{Access, Action};
use crate::error::{Tried, What};
use crate::host::MAX_RECEIPT;
use crate::read::{RemoteRepository, announced};
use crate::referrers::Change;
use crate::request::Request;
use crate::session::Session;

/// Says that the registry lists the pushed manifest as a referrer of its subject (distribution-spec, "Pushing Manifests
/// with Subject").
const SUBJECT: &str = "oci-subject";

#[async_trait]
impl RepositoryMut for RemoteRepository {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        self.open_upload(expect).await
    }

    async fn resume(&self, token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        let Some(session) = Session::read(token, &self.host.registry, &self.name) else { return Ok(None) };
        let upload = self.resume_upload(session).await?;
        Ok(upload.map(|upload| Box::new(upload) as Box<dyn Upload>))
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        let reference = match tag {
            Some(tag) => Reference::Tag(tag.clone()),
            None => Reference::Digest(manifest.digest()),
        };
        let what = self.what("push manifest", &reference);
        let url = self.url(&format!("manifests/{reference}"));
        let request = Request::new(what, Method::PUT, url, self.access())
            .body(manifest.media_type(), manifest.bytes().clone());
        let answer = self.host.call(&request, MAX_RECEIPT).await?;
        stored_as(&request.what, &answer.headers, manifest)?;
        let subject_indexed = match manifest.subject() {
            None => true,
            Some(_) if answer.headers.contains_key(SUBJECT) => true,
            Some(subject) => self.enter_referrer(&subject.digest, manifest).await?,
        };
        Ok(Stored { subject_indexed })
    }

    async fn delete_manifest(&self, reference: &Reference) -> Result<Removed> {
        // What a manifest refers to is known only as long as it is there.
        let subject = match reference {
            Reference::Tag(_) => None,
            Reference::Digest(digest) => {
                self.fetch(reference).await?.subject().map(|subject| (subject.digest, *digest))
            }
        };
        let what = self.what("delete manifest", reference);
        let removed = self.delete(what, &format!("manifests/{reference}")).await?;
        if let (Removed::Yes, Some((subject, digest))) = (removed, subject)
            && self.lacks_referrers(&subject).await?
        {
            self.change_referrers(&subject, Change::Remove(digest)).await?;
        }
        Ok(removed)
    }

    async fn delete_blob(&self, digest: &Digest) -> Result<Removed> {
        let what = self.what("delete blob", digest);
        Ok(self.delete(what, &format!("blobs/{digest}")).await?)
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        self
    }
}

impl RemoteRepository {
    async fn delete(&self, what: What, path: &str) -> Tried<Removed> {
        let access = Access::repository(&self.name, Action::Delete).on(self.host.side);
        let request = Request::new(what, Method::DELETE, self.url(path), access);
        match self.host.call(&request, MAX_RECEIPT).await {
            Ok(_) => Ok(Removed::Yes),
            Err(failure) if failure.is_unsupported() => Ok(Removed::Unsupported),
            // distribution 2.8 does not remove tags: it reads the tag as a digest. Ours are valid.
            Err(failure) if failure.code == Some(ErrorCode::DigestInvalid) => Ok(Removed::Unsupported),
            Err(failure) => Err(failure),
        }
    }

    /// Keeps the list that stands in for the referrers API. The manifest itself is stored by now, so only what may pass
    /// is an error; pushing it again then does no harm.
    async fn enter_referrer(&self, subject: &Digest, manifest: &Manifest) -> Tried<bool> {
        let entry = Change::Add(Box::new(manifest.referrer_descriptor()));
        match self.change_referrers(subject, entry).await {
            Err(failure) if !failure.error.kind().is_transient() => {
                warn!(error = %failure.error, "the referrer is not listed");
                Ok(false)
            }
            other => other,
        }
    }
}

/// A registry that stored the manifest under another name has stored something else.
fn stored_as(what: &What, headers: &HeaderMap, manifest: &Manifest) -> Tried<()> {
    match announced(headers) {
        Some(claimed) if Digest::of(claimed.algorithm(), manifest.bytes()) != claimed => {
            let detail = format!("the registry stored it as {claimed} instead of {}", manifest.digest());
            Err(what.failure(Kind::DigestMismatch, detail))
        }
        _ => Ok(()),
    }
}
