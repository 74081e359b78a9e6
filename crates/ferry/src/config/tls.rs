//! What can be written about HTTPS.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mirror::Term;
use super::text::{OneOrMore, Parsed, Source};

/// HTTPS, with certificates from files or from an authority that speaks ACME, or both.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpsConfig {
    /// The addresses and ports where HTTPS is spoken: 0.0.0.0:443. What stands in `serve.listen` then speaks plain HTTP; without
    /// this HTTPS is spoken there.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) listen: OneOrMore<String>,
    /// Certificates in files. Files that change are read again within seconds; who asks for no host that is named in one is
    /// shown the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) certificates: Vec<CertificateConfig>,
    /// Certificates from an authority, got and renewed by ferry itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acme: Option<AcmeConfig>,
    /// Send clients that come over plain HTTP to HTTPS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) redirect: bool,
}

/// A certificate in files.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateConfig {
    /// The file with the certificate of the server and those above it (PEM).
    pub(crate) certificate: PathBuf,
    /// The file with its private key (PEM), without a password.
    pub(crate) key: PathBuf,
}

/// Certificates by ACME (RFC 8555).
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AcmeConfig {
    /// You agree to the terms of service of the authority; nothing is asked of it before this is true.
    pub(crate) agree: bool,
    /// The URL of the authority's directory: that of Let's Encrypt by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<String>,
    /// Files with root certificates (PEM) that the authority's own certificate may come from, beside those of the system.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) ca: OneOrMore<PathBuf>,
    /// Mail addresses to which the authority may write.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) contact: OneOrMore<String>,
    /// The account that you have at the authority, if it wants one (external account binding).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) external_account: Option<ExternalAccount>,
    /// How the authority sees that a host is yours: tls-alpn-01 (default, needs port 443), http-01 (needs port 80), dns-01
    /// (needs `hook`, and is the only one that can get a wildcard).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) challenge: Option<ChallengeName>,
    /// The program that writes and removes TXT records for dns-01, with its arguments: it is run without a shell, with present NAME
    /// VALUE or cleanup NAME VALUE added.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) hook: OneOrMore<String>,
    /// How long a record that the hook has written takes until it is seen everywhere: 30s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settle: Option<Parsed<Term>>,
    /// The hosts to get certificates for, one each; a host and its wildcard share one. By default the hosts of the mirror: its
    /// domain and the aliases, with dns-01 the domain and its wildcard.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) names: OneOrMore<String>,
}

/// An account at an authority that was made elsewhere.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExternalAccount {
    /// The key identifier that the authority gave.
    pub(crate) id: String,
    /// The HMAC key that it gave, as it gave it: in base64url.
    pub(crate) key: Source,
}

/// How it is proven that a host is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum ChallengeName {
    /// By a file over plain HTTP.
    #[serde(rename = "http-01")]
    Http,
    /// By a handshake.
    #[serde(rename = "tls-alpn-01")]
    Tls,
    /// By a record in the DNS.
    #[serde(rename = "dns-01")]
    Dns,
}

fn is_none<T>(list: &OneOrMore<T>) -> bool {
    list.0.is_empty()
}
