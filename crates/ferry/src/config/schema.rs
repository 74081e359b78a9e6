//! What can be written into `ferry.yaml`. Doc comments are the descriptions in its JSON schema.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ferry_oci::{Malformed, Name, Registry};
use ferry_policy::profile::Choice;
use ferry_registry::Network;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::access::AccessConfig;
use super::content::ContentConfig;
use super::limits::LimitsConfig;
use super::mirror::MirrorConfig;
use super::operation::{AccessLogConfig, AdminConfig, StopConfig};
use super::page::PageConfig;
use super::text::{OneOrMore, Parsed, Proxy, Size, Source, something};
use super::tls::HttpsConfig;
use crate::credentials::is_helper_name;

/// The configuration of ferry.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// How registries are reached, and with which accounts; by host, as references name it. "*" is for all others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) registries: BTreeMap<Parsed<Which>, RegistryConfig>,
    /// What `ferry serve` does if its arguments do not say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) serve: Option<Serve>,
}

/// A registry, or all that are not named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    /// All others.
    Others,
    /// This one.
    One(Registry),
}

impl FromStr for Which {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == "*" { Ok(Self::Others) } else { text.parse().map(Self::One) }
    }
}

/// One registry.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RegistryConfig {
    /// The accounts to use, the preferred one first; the next one is used when the pull quota of those before it is used
    /// up. Without any, those of `ferry login`, `docker login` and `podman login` are used, but not by a mirror.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) accounts: Vec<Account>,
    /// Speak plain HTTP (true) or HTTPS (false); by default HTTP only to this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) plain_http: Option<bool>,
    /// Certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsConfig>,
    /// The proxy on the way to the registry, and to what it redirects to; by default as HTTP_PROXY, HTTPS_PROXY, ALL_PROXY
    /// and NO_PROXY say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<Proxy>,
    /// Networks that are not public in which hosts may be that the registry redirects to: 10.0.0.0/8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allow_networks: Vec<Parsed<Network>>,
    /// How large blobs are uploaded, if that is not what is known of the registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upload: Option<UploadConfig>,
    /// What the registry takes as a target, if its host does not tell: the name of a profile, `auto` or `strict`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<Parsed<Choice>>,
    /// Where `ferry copy` and mirrors look for content of the registry first: HOST or HOST/PREFIX.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mirrors: Vec<Parsed<MirrorPlace>>,
}

/// A mirror, and what names have in front there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MirrorPlace {
    pub(crate) registry: Registry,
    pub(crate) prefix: Option<Name>,
}

impl FromStr for MirrorPlace {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (registry, prefix) = match text.split_once('/') {
            // The registry says what is wrong with it.
            Some(_) if text.contains("://") => (text, None),
            Some((registry, prefix)) => (registry, Some(prefix.parse()?)),
            None => (text, None),
        };
        Ok(Self { registry: registry.parse()?, prefix })
    }
}

/// An account: `username` with `password`, or `identity_token`, or `helper`, or `cloud`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "AccountFields", into = "AccountFields")]
#[schemars(with = "AccountFields")]
pub(crate) enum Account {
    Password { username: String, password: Source },
    IdentityToken(Source),
    Helper(String),
    Cloud(CloudName),
}

/// A cloud that gives accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CloudName {
    /// Amazon ECR, with the keys in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN.
    Aws,
    /// Google Artifact Registry, with the key file that GOOGLE_APPLICATION_CREDENTIALS names, else as the service account
    /// of the machine.
    Google,
    /// Azure Container Registry, with AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, else as the identity of the machine.
    Azure,
}

/// What is written of an account.
#[derive(Debug, Default, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccountFields {
    /// The user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// The password, or an access token in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Source>,
    /// A token that is exchanged for others at the registry's token server.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_token: Option<Source>,
    /// A credential helper: NAME of docker-credential-NAME.
    #[serde(skip_serializing_if = "Option::is_none")]
    helper: Option<String>,
    /// A cloud that gives the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud: Option<CloudName>,
}

impl TryFrom<AccountFields> for Account {
    type Error = &'static str;

    fn try_from(fields: AccountFields) -> Result<Self, Self::Error> {
        let AccountFields { username, password, identity_token, helper, cloud } = fields;
        match (username, password, identity_token, helper, cloud) {
            (Some(username), Some(password), None, None, None) => Ok(Self::Password { username, password }),
            (None, None, Some(token), None, None) => Ok(Self::IdentityToken(token)),
            (None, None, None, Some(name), None) if is_helper_name(&name) => Ok(Self::Helper(name)),
            (None, None, None, Some(_), None) => {
                Err("a helper is named by letters, digits, '.', '_' and '-' only")
            }
            (None, None, None, None, Some(cloud)) => Ok(Self::Cloud(cloud)),
            _ => Err("an account is {username, password}, {identity_token}, {helper} or {cloud}"),
        }
    }
}

impl From<Account> for AccountFields {
    fn from(account: Account) -> Self {
        let none = Self::default();
        match account {
            Account::Password { username, password } => {
                Self { username: Some(username), password: Some(password), ..none }
            }
            Account::IdentityToken(token) => Self { identity_token: Some(token), ..none },
            Account::Helper(name) => Self { helper: Some(name), ..none },
            Account::Cloud(cloud) => Self { cloud: Some(cloud), ..none },
        }
    }
}

/// TLS towards a registry.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsConfig {
    /// Files with root certificates (PEM) to trust beside those of the system.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) ca: OneOrMore<PathBuf>,
    /// The file with our own certificate (PEM), which goes with `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    /// The file with the private key (PEM) of `certificate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    /// The oldest version of TLS to speak: "1.2" (default) or "1.3".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_version: Option<Parsed<MinVersion>>,
    /// Take any certificate of the registry's own host. Whoever is in between can then read and change everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) insecure: Option<bool>,
}

fn is_none<T>(list: &OneOrMore<T>) -> bool {
    list.0.is_empty()
}

/// A version of TLS as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MinVersion(pub(crate) ferry_registry::TlsVersion);

impl FromStr for MinVersion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1.2" => Ok(Self(ferry_registry::TlsVersion::Tls12)),
            "1.3" => Ok(Self(ferry_registry::TlsVersion::Tls13)),
            _ => Err("\"1.2\" or \"1.3\" is needed"),
        }
    }
}

/// How large blobs are uploaded.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UploadConfig {
    /// In requests that end when nothing comes, so that uploads can be resumed.
    Stream,
    /// In one request.
    Whole,
    /// In parts of this size.
    Chunks(Parsed<Size>),
}

/// A registry of our own.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Serve {
    /// The directory that holds the images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage: Option<PathBuf>,
    /// Keep blobs and manifests elsewhere than in files of that directory.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<ContentConfig>,
    /// The addresses and ports to listen on: 127.0.0.1:5000 by default.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) listen: OneOrMore<String>,
    /// Speak HTTPS.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<HttpsConfig>,
    /// Allow an address that others can reach, although anyone there may then push and delete, or
    /// pull through the mirror.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) open: bool,
    /// When the images take more room than this, remove what was fetched from elsewhere and not used for longest: 200GB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size_limit: Option<Parsed<Size>>,
    /// Let `size_limit` remove what was pushed here, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) evict_pushed: bool,
    /// Remove manifests that no tag has led to for so long: 30d. By default they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) untagged_older_than: Option<Parsed<Span>>,
    /// Remove what was fetched from elsewhere and not used for so long, whatever room there is: 90d. By default it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unused_older_than: Option<Parsed<Span>>,
    /// Give up an upload that nobody has written to for so long: 24h by default, and at most 10m on a full disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upload_expiry: Option<Parsed<Span>>,
    /// Blobs that no manifest names stay for so long, because a push brings them first: 24h by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grace: Option<Parsed<Span>>,
    /// How often to remove what nothing needs: 1h by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upkeep_every: Option<Parsed<Span>>,
    /// Who may use it; without this everybody who reaches it may do everything.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) access: Option<AccessConfig>,
    /// What clients may take. Nothing is limited by default but the number of connections.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<LimitsConfig>,
    /// Mirror other registries.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) mirror: Option<MirrorConfig>,
    /// The page that browsers show.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) page: Option<PageConfig>,
    /// The API for those who look after the server: figures, metrics, `ferry warm`, `ferry cache`. Without it there is none.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) admin: Option<AdminConfig>,
    /// Write a line for each request that was answered.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) access_log: Option<AccessLogConfig>,
    /// How the server ends when it is told to. A second signal ends it at once.
    #[serde(deserialize_with = "something", skip_serializing_if = "Option::is_none")]
    pub(crate) stop: Option<StopConfig>,
}

/// A time as it is written: `90s`, `24h`, `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let span = humantime::parse_duration(text).ok().filter(|span| !span.is_zero());
        span.map(Self).ok_or("a time is needed, as in 90s, 24h or 30d")
    }
}
