use std::fmt;
use std::time::Duration;

use ferry_store::Result;

use super::bucket::Bucket;

/// How a bucket of an S3-compatible store is reached, and what for.
#[derive(Clone)]
pub struct S3Options {
    /// The bucket, which must exist.
    pub bucket: String,
    /// Where the store is, without the bucket: `https://oss-cn-hangzhou.aliyuncs.com`; `None` for AWS in `region`.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// What the names of all objects begin with, with `/` between its parts; empty for none.
    pub prefix: String,
    /// Where the bucket stands in addresses.
    pub style: Style,
    /// The id of the access key.
    pub access_key: String,
    /// The access key itself.
    pub secret_key: String,
    /// The token that goes with a key that is valid for a time.
    pub session_token: Option<String>,
    /// Certificates in PEM to trust beside those of the system.
    pub roots: Vec<Vec<u8>>,
    /// Whether an `endpoint` that is not HTTPS may be used beyond this machine.
    pub plain_http: bool,
    /// Bytes of content that may wait for the bucket; `None` for half of what is free on the disk and of what waits already.
    pub pending_limit: Option<u64>,
    /// Whether to use the bucket although it belongs to another storage directory, unless that is in use.
    pub take_over: bool,
    /// Whether clients are led to the bucket, and how; see [`crate::Storage::with_links`].
    pub links: Option<LinkOptions>,
    /// How long to wait after the first failed upload; twice as long after each further one, up to a minute.
    pub retry_after: Duration,
}

/// Where the bucket stands in addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// In the path: `https://HOST/BUCKET/…`, as MinIO and the like want it.
    Path,
    /// In the host: `https://BUCKET.HOST/…`, as AWS, OSS, OBS and COS want it.
    VirtualHosted,
}

/// How clients are led to the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkOptions {
    /// How long a link holds; at most 7 days.
    pub expires: Duration,
    /// Where clients find the store, if that is not `endpoint`.
    pub endpoint: Option<String>,
}

impl S3Options {
    /// A bucket at AWS or at `endpoint`, with nothing special.
    pub fn new(
        bucket: impl Into<String>,
        access_key: impl Into<String>,
        secret_key: impl Into<String>,
    ) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            prefix: String::new(),
            style: Style::VirtualHosted,
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            session_token: None,
            roots: Vec::new(),
            plain_http: false,
            pending_limit: None,
            take_over: false,
            links: None,
            retry_after: Duration::from_secs(1),
        }
    }

    /// Whether a bucket can be meant by these options; it is not asked.
    ///
    /// # Errors
    /// [`ferry_store::Kind::Invalid`] saying what is wrong, or that no `rustls` crypto provider is installed.
    pub fn check(&self) -> Result<()> {
        Bucket::new(self).map(drop)
    }
}

impl fmt::Debug for S3Options {
    /// Keys are not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("prefix", &self.prefix)
            .field("style", &self.style)
            .field("plain_http", &self.plain_http)
            .field("pending_limit", &self.pending_limit)
            .field("take_over", &self.take_over)
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}
