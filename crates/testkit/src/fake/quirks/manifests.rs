use bytes::Bytes;
use ferry_oci::{Name, Reference, media_type};
use ferry_serve::{Handler, ResponseBody};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderName, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use super::Particular;
use super::answers::{collect, error, nothing, with, without_length};
use crate::quirks::{Head, Manifests, Quirks};

type Answer = Response<ResponseBody>;

impl Particular {
    /// Takes or gives a manifest.
    pub(super) async fn manifest(&self, quirks: &Quirks, name: &Name, request: Request<Incoming>) -> Answer {
        if request.method() == Method::PUT {
            return self.take(quirks, name, request).await;
        }
        let head = request.method() == Method::HEAD;
        let quirks = &quirks.manifests;
        if head && quirks.head == Head::Refused {
            return nothing(405);
        }
        let mut answer = self.api.handle(request).await;
        if answer.status().is_success() && quirks.plain_text {
            answer = with(answer, CONTENT_TYPE, "text/plain; charset=utf-8");
        }
        match quirks.head {
            Head::NoLength if head => {
                answer.headers_mut().remove(CONTENT_LENGTH);
                without_length(answer)
            }
            Head::NoDigest if head => {
                answer.headers_mut().remove("docker-content-digest");
                answer
            }
            _ => answer,
        }
    }

    async fn take(&self, quirks: &Quirks, name: &Name, request: Request<Incoming>) -> Answer {
        let (parts, body) = request.into_parts();
        let Some(bytes) = collect(body).await else { return nothing(400) };
        if let Some(refusal) = self.refuse_manifest(&quirks.manifests, name, &parts, &bytes).await {
            return refusal;
        }
        let mut answer = self.api.call(Request::from_parts(parts, Full::new(bytes))).await;
        if quirks.manifests.no_location {
            answer.headers_mut().remove(LOCATION);
        }
        if quirks.listings.no_referrers {
            answer.headers_mut().remove(HeaderName::from_static("oci-subject"));
        }
        answer
    }

    async fn refuse_manifest(
        &self,
        quirks: &Manifests,
        name: &Name,
        parts: &Parts,
        bytes: &Bytes,
    ) -> Option<Answer> {
        if let Some((most, status)) = quirks.limit
            && bytes.len() > most
        {
            let code = if status == 400 { "MANIFEST_INVALID" } else { "SIZE_INVALID" };
            return Some(error(status, code, &format!("the manifest is larger than {most} bytes")));
        }
        let stated = parts.headers.get(CONTENT_TYPE).and_then(|stated| stated.to_str().ok());
        if let Some(status) = quirks.strange_type
            && !stated.is_some_and(|stated| media_type::is_manifest(media_type::essence(stated)))
        {
            return Some(error(status, "MANIFEST_INVALID", "manifest type is not supported"));
        }
        let status = quirks.immutable?;
        let reference: Reference = parts.uri.path().rsplit('/').next()?.parse().ok()?;
        let fixed =
            matches!(reference, Reference::Tag(_)) && self.reader(name).resolve(&reference).await.is_ok();
        let code = if status == 400 { "TAG_INVALID" } else { "PRECONDITION" };
        fixed.then(|| error(status, code, "the tag already exists and cannot be overwritten"))
    }
}
