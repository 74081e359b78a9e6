//! What can be written about where the content of `ferry serve` is kept.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::Span;
use super::text::{OneOrMore, Parsed, Size, Source};

/// Where blobs and manifests are kept.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ContentConfig {
    /// In a bucket of an S3-compatible store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) s3: Option<S3Config>,
}

/// A bucket: of AWS, MinIO and the like, or of OSS, OBS and COS by their S3 endpoints. It is used by one storage directory, which
/// keeps the catalog and what is on its way to the bucket.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct S3Config {
    /// The bucket, which must exist.
    pub(crate) bucket: String,
    /// Where the store is, without the bucket: https://oss-cn-hangzhou.aliyuncs.com. By default AWS in `region`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The region that requests are signed for: as AWS_REGION says by default, else us-east-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<String>,
    /// What the names of all objects begin with: mirror/a. Nothing by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
    /// The id of the access key; AWS_ACCESS_KEY_ID by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_key: Option<Source>,
    /// The access key; AWS_SECRET_ACCESS_KEY by default, with AWS_SESSION_TOKEN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret_key: Option<Source>,
    /// The token of an access key that is valid for a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_token: Option<Source>,
    /// Where the bucket stands in addresses: path (HOST/BUCKET) or virtual_hosted (BUCKET.HOST). By default virtual_hosted
    /// for AWS, OSS, OBS and COS, and path elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) style: Option<StyleConfig>,
    /// Files with root certificates (PEM) to trust beside those of the system.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) ca: OneOrMore<PathBuf>,
    /// Allow an endpoint that is plain HTTP and not on this machine.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) plain_http: bool,
    /// How much content may wait in the storage directory while the bucket does not take it: half of what is free there by
    /// default. Beyond it pushes are refused, and what is mirrored is passed on without being kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pending_limit: Option<Parsed<Size>>,
    /// Send clients to the bucket for blobs, with a signed link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redirect: Option<RedirectConfig>,
    /// Use the bucket although it belongs to another storage directory that is gone for good. What that directory kept and
    /// this one does not need is removed after a time.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) take_over: bool,
}

/// Where a bucket stands in addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StyleConfig {
    /// HOST/BUCKET.
    Path,
    /// BUCKET.HOST.
    VirtualHosted,
}

/// How clients are sent to a bucket.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RedirectConfig {
    /// How long a link holds: 15m by default, at most 7d. A client may begin to fetch as long as that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<Parsed<Span>>,
    /// Where clients find the store, if that is not `endpoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
}

fn is_none<T>(list: &OneOrMore<T>) -> bool {
    list.0.is_empty()
}
