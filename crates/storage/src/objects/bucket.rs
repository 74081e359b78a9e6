use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{Error, Kind, Result};
use futures_util::stream::{BoxStream, StreamExt};
use http::Method;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    GetOptions, GetRange, GetResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, UpdateVersion,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::connect::{connector, endpoint, invalid, retrying, store};
use super::failure::{describe, failure};
use super::options::{LinkOptions, S3Options};
use crate::options::to_seconds;

/// How long the bucket may be silent on a request that brings no content.
const SILENCE: Duration = Duration::from_secs(10);

/// How long it may be silent on one that does: a part must get through a thin link before it is answered.
const SILENCE_ON_UPLOAD: Duration = Duration::from_secs(300);

/// Parts of uploads that are in memory at once, of all files together.
const PARTS: usize = 8;

/// The name of the object that says whose the bucket is.
const OWNER: &str = "ferry-owner.json";

/// A bucket, or the part of one under a prefix.
///
/// ```text
/// PREFIX/blobs/sha256/ab/abcd…   blobs and manifests by digest, as they are in files
/// PREFIX/damaged/sha256-abcd…    what a check with repair took out
/// PREFIX/ferry-owner.json        whose the bucket is
/// ```
pub(crate) struct Bucket {
    calls: AmazonS3,
    uploads: AmazonS3,
    /// Signs links to where clients find the bucket, for so long.
    links: Option<(AmazonS3, Duration)>,
    parts: Semaphore,
    name: String,
    prefix: String,
}

/// An object as it is in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) size: u64,
    /// In seconds since 1970.
    pub(crate) modified: i64,
    /// What tells it from an object of the same name that comes later.
    pub(crate) version: Option<String>,
}

impl From<ObjectMeta> for Found {
    fn from(meta: ObjectMeta) -> Self {
        let modified = SystemTime::from(meta.last_modified).duration_since(UNIX_EPOCH);
        Self { size: meta.size, modified: to_seconds(modified.unwrap_or_default()), version: meta.e_tag }
    }
}

/// A document of the bucket, and the version to replace it with.
pub(super) struct Document {
    pub(super) bytes: Bytes,
    pub(super) version: UpdateVersion,
}

impl Bucket {
    /// Sets up the connections; nothing is asked.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if the options cannot be meant.
    pub(super) fn new(options: &S3Options) -> Result<Self> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(invalid("no rustls crypto provider is installed in this process"));
        }
        let brief = retrying(3, Duration::from_secs(10));
        let patient = retrying(8, Duration::from_secs(120));
        let endpoint = endpoint(options, options.endpoint.as_deref())?;
        let link = |link: &LinkOptions| -> Result<_> {
            let at = link.endpoint.as_deref().or(options.endpoint.as_deref());
            let at = super::connect::endpoint(&S3Options { plain_http: true, ..options.clone() }, at)?;
            Ok((store(options, at, connector(options, SILENCE)?, brief.clone())?, link.expires))
        };
        Ok(Self {
            calls: store(options, endpoint.clone(), connector(options, SILENCE)?, brief.clone())?,
            uploads: store(options, endpoint, connector(options, SILENCE_ON_UPLOAD)?, patient)?,
            links: options.links.as_ref().map(link).transpose()?,
            parts: Semaphore::new(PARTS),
            name: options.bucket.clone(),
            prefix: options.prefix.trim_matches('/').to_owned(),
        })
    }

    /// Which bucket it is, for people and for the catalog.
    pub(crate) fn location(&self) -> String {
        format!("s3://{}/{}", self.name, self.prefix)
    }

    fn at(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    fn path(&self, digest: &Digest) -> Path {
        let hex = digest.hex();
        self.at(&format!("blobs/{}/{}/{hex}", digest.algorithm().as_str(), &hex[..2]))
    }

    /// The object of `digest`.
    pub(crate) async fn find(&self, digest: &Digest) -> Result<Option<Found>> {
        match self.calls.head(&self.path(digest)).await {
            Ok(meta) => Ok(Some(meta.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failure("look for object", digest, e)),
        }
    }

    /// Whether the bucket answers at all.
    pub(crate) async fn answers(&self) -> Result<()> {
        let asked = self.owner().await;
        asked.map(drop).map_err(|e| failure("use bucket", self.location(), e))
    }

    /// Part of the object of `digest`, which may not be empty.
    pub(super) async fn get(&self, digest: &Digest, range: Range<u64>) -> object_store::Result<GetResult> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        self.calls.get_opts(&self.path(digest), options).await
    }

    /// Waits until there is memory for a part of an upload of `digest`.
    pub(super) async fn memory(&self, digest: &Digest) -> Result<SemaphorePermit<'_>> {
        let permit = self.parts.acquire().await;
        permit.map_err(|e| Error::new(Kind::Unavailable, "upload", digest, e.to_string()))
    }

    /// Memory for one more part, if there is some.
    pub(super) fn try_memory(&self) -> Option<SemaphorePermit<'_>> {
        self.parts.try_acquire().ok()
    }

    /// Uploads an object in one request.
    pub(super) async fn put(&self, digest: &Digest, bytes: Bytes) -> Result<()> {
        let put = self.uploads.put(&self.path(digest), bytes.into()).await;
        put.map(drop).map_err(|e| failure("upload", digest, e))
    }

    /// Begins to upload an object in parts.
    pub(super) async fn put_parts(&self, digest: &Digest) -> Result<Box<dyn MultipartUpload>> {
        let begun = self.uploads.put_multipart(&self.path(digest)).await;
        begun.map_err(|e| failure("upload", digest, e))
    }

    /// Removes the object of `digest`, which may be gone already.
    pub(super) async fn delete(&self, digest: &Digest) -> Result<()> {
        match self.calls.delete(&self.path(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failure("remove object", digest, e)),
        }
    }

    /// Moves the object of `digest` to the damaged ones; it may be gone already.
    pub(super) async fn set_aside(&self, digest: &Digest) -> Result<()> {
        let name = format!("damaged/{}-{}", digest.algorithm().as_str(), digest.hex());
        match self.uploads.copy(&self.path(digest), &self.at(&name)).await {
            Ok(()) => self.delete(digest).await,
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failure("set aside", digest, e)),
        }
    }

    /// All objects with their sizes, in the order of their digests for each algorithm. Objects of other names are left out.
    pub(crate) fn list(&self) -> BoxStream<'static, Result<(Digest, u64)>> {
        let location = self.location();
        let known = move |meta: object_store::Result<ObjectMeta>| {
            let meta = meta.map_err(|e| failure("list objects", &location, e));
            std::future::ready(meta.map(|meta| Some((digest_of(&meta.location)?, meta.size))).transpose())
        };
        self.calls.list(Some(&self.at("blobs"))).filter_map(known).boxed()
    }

    /// Whether clients are led here.
    pub(crate) fn makes_links(&self) -> bool {
        self.links.is_some()
    }

    /// A link to the object of `digest` for clients; `None` if they are not led there.
    pub(super) async fn link(&self, digest: &Digest) -> Result<Option<String>> {
        let Some((store, expires)) = &self.links else { return Ok(None) };
        let signed = store.signed_url(Method::GET, &self.path(digest), *expires).await;
        signed.map(|url| Some(url.into())).map_err(|e| failure("sign link", digest, e))
    }

    /// The document that says whose the bucket is.
    pub(super) async fn owner(&self) -> object_store::Result<Option<Document>> {
        let got = match self.calls.get(&self.at(OWNER)).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
        Ok(Some(Document { bytes: got.bytes().await?, version }))
    }

    /// Replaces the document that says whose the bucket is, if it is still of this version; without one if there is none.
    /// Whoever calls looks what is there in the end: somebody else may have been faster, an answer may have been lost, and a
    /// store that knows no conditions is asked without.
    pub(super) async fn replace_owner(
        &self,
        version: Option<UpdateVersion>,
        bytes: Bytes,
    ) -> object_store::Result<()> {
        let mode = version.map_or(PutMode::Create, PutMode::Update);
        let put = self.calls.put_opts(&self.at(OWNER), bytes.clone().into(), PutOptions::from(mode)).await;
        match put {
            Ok(_)
            | Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(())
            }
            Err(e) if is_unknown_condition(&e) => {
                self.calls.put(&self.at(OWNER), bytes.into()).await.map(drop)
            }
            Err(e) => Err(e),
        }
    }
}

/// Whether the store does not know conditions: 501 `NotImplemented` is what S3 defines for headers that are not known, and
/// some answer 400.
fn is_unknown_condition(error: &object_store::Error) -> bool {
    let text = describe(error);
    matches!(error, object_store::Error::NotImplemented { .. })
        || ["NotImplemented", "501 Not Implemented", "InvalidArgument"].iter().any(|sign| text.contains(sign))
}

/// The digest that an object belongs to.
fn digest_of(path: &Path) -> Option<Digest> {
    let parts: Vec<_> = path.parts().collect();
    let [.., algorithm, start, hex] = &parts[..] else { return None };
    let digest: Digest = format!("{}:{}", algorithm.as_ref(), hex.as_ref()).parse().ok()?;
    (start.as_ref() == &digest.hex()[..2]).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_content() {
        let digest = Digest::sha256(b"x");
        let (start, hex) = (&digest.hex()[..2], digest.hex());
        assert_eq!(digest_of(&Path::from(format!("p/blobs/sha256/{start}/{hex}"))), Some(digest));
        for other in
            [format!("p/blobs/sha256/zz/{hex}"), format!("p/blobs/{hex}"), "p/blobs/sha256/ab/x".into()]
        {
            assert_eq!(digest_of(&Path::from(other)), None);
        }
    }
}
