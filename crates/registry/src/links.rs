//! Links to where a registry keeps its blobs, for clients that fetch them there.

use async_trait::async_trait;
use ferry_oci::{ContentRange, Digest, Name};
use ferry_store::{Blob, BlobBody, Kind, Link, Links, Result};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::access::Action;
use crate::desk::Desk;
use crate::read::RemoteRepository;
use crate::realm::same_origin;
use crate::request::{length, text};

/// The response came from where we had to show a token, so its URL alone leads nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByToken;

/// A registry that is asked where blobs are.
pub(crate) struct RemoteLinks(pub(crate) Desk);

#[async_trait]
impl Links for RemoteLinks {
    /// The place is one from which the first byte was just read here, so that clients are sent to nowhere where we would
    /// not go ourselves.
    async fn link(&self, name: &Name, digest: &Digest) -> Result<Option<Blob>> {
        let repository = RemoteRepository::new(self.0.clone(), name.clone(), Action::Pull);
        let what = repository.what("find blob", digest);
        let request = repository.blob_request(what, Method::GET, digest).content();
        let request = request.header(RANGE, HeaderValue::from_static("bytes=0-0"));
        let (response, _permit) = match self.0.download(&request).await {
            Ok(opened) => opened,
            // It is empty.
            Err(failure) if failure.is(StatusCode::RANGE_NOT_SATISFIABLE) => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        if same_origin(response.url(), &self.0.base) || response.extensions().get::<ByToken>().is_some() {
            return Ok(None);
        }
        let unknown = || request.what.error(Kind::Invalid, "the registry does not say its size");
        let size = size(response.headers(), response.status()).ok_or_else(unknown)?;
        let link = Link { url: response.url().to_string() };
        Ok(Some(Blob { size, range: 0..size, skipped: 0, fetched: false, body: BlobBody::Link(link) }))
    }
}

/// The size of all of it, of which a part was asked for.
fn size(headers: &HeaderMap, status: StatusCode) -> Option<u64> {
    if status != StatusCode::PARTIAL_CONTENT {
        return length(headers);
    }
    text(headers, CONTENT_RANGE)?.parse::<ContentRange>().ok()?.total
}
