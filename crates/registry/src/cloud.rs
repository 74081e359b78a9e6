//! Accounts that are made of what a cloud knows of this machine or of its keys, by the clouds' documented endpoints.
//!
//! - Amazon ECR: `GetAuthorizationToken` (docs.aws.amazon.com, "API_GetAuthorizationToken"), signed with Signature Version 4.
//! - Google Artifact Registry: an access token of the metadata server, as user `oauth2accesstoken` (cloud.google.com,
//!   "Configure authentication to Artifact Registry").
//! - Azure Container Registry: an access token of the instance metadata service, exchanged at the registry's
//!   `/oauth2/exchange` (github.com/Azure/acr, "AAD-OAuth").

mod aws;

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_oci::Registry;
use ferry_store::{Error, Kind, Result};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::{Url, form_urlencoded};

use crate::error::{What, answered, broken};
use crate::request::{collect, error_body};
use crate::transport::{host, plain_client};
use crate::{ClientOptions, Credential, Proxies, Secret, Site};

/// Keys for the API of AWS.
#[derive(Debug, Clone)]
pub struct AwsKeys {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: Secret,
    /// `AWS_SESSION_TOKEN`, of keys that are lent for a while.
    pub session_token: Option<Secret>,
    /// Where the API is, if not at its usual place (`AWS_ENDPOINT_URL_ECR`).
    pub endpoint: Option<Url>,
}

/// Who gives an account.
#[derive(Debug, Clone)]
pub enum Cloud {
    /// AWS, for whoever has these keys.
    Aws(AwsKeys),
    /// The metadata server of a machine at Google; by default `http://metadata.google.internal`.
    Google(Option<Url>),
    /// The instance metadata service of a machine at Azure; by default `http://169.254.169.254`.
    Azure(Option<Url>),
}

/// Asks clouds for accounts.
pub struct Clouds {
    api: Client,
    /// Metadata servers are next to us, never behind a proxy.
    metadata: Client,
    options: ClientOptions,
}

impl fmt::Debug for Clouds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clouds").finish_non_exhaustive()
    }
}

/// The largest answer of a cloud.
const MAX_ANSWER: u64 = 1024 * 1024;

/// Where Google's machines find out about themselves.
const GOOGLE: &str = "http://metadata.google.internal";

/// Where Azure's machines do.
const AZURE: &str = "http://169.254.169.254";

#[derive(Deserialize)]
struct AccessToken {
    access_token: String,
}

#[derive(Deserialize)]
struct RefreshToken {
    refresh_token: String,
}

impl Clouds {
    /// Connections as for registries that are not configured on their own.
    ///
    /// # Errors
    /// As [`crate::Client::new`].
    pub fn new(options: &ClientOptions) -> Result<Self> {
        let direct = Site { proxies: Proxies::default(), ..options.usual.clone() };
        let (api, metadata) = (plain_client(options, &options.usual)?, plain_client(options, &direct)?);
        Ok(Self { api, metadata, options: options.clone() })
    }

    /// The account that `cloud` gives for `registry` at the time `now`. It is good for some hours at most.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if the registry is none of that cloud; [`Kind::Unauthorized`] if the cloud refuses; what keeps
    /// it from answering.
    pub async fn account(&self, cloud: &Cloud, registry: &Registry, now: SystemTime) -> Result<Credential> {
        match cloud {
            Cloud::Aws(keys) => self.of_aws(keys, registry, now).await,
            Cloud::Google(server) => self.of_google(server.as_ref(), registry).await,
            Cloud::Azure(server) => self.of_azure(server.as_ref(), registry).await,
        }
    }

    async fn of_aws(&self, keys: &AwsKeys, registry: &Registry, now: SystemTime) -> Result<Credential> {
        let what = What::new("get a password from AWS for", registry);
        let api =
            aws::Api::of(registry).ok_or_else(|| what.error(Kind::Invalid, "it is no registry of ECR"))?;
        let url = keys.endpoint.clone().map_or_else(|| api.url(), Ok);
        let url = url.map_err(|e| what.error(Kind::Invalid, e.to_string()))?;
        let headers = aws::headers(keys, &api, &url, now);
        let headers =
            headers.ok_or_else(|| what.error(Kind::Invalid, "the keys cannot be sent in a header"))?;
        let request = self.api.request(Method::POST, url).headers(headers).body(aws::BODY);
        let answer: aws::Answer = self.ask(&what, request).await?;
        let login = answer.token().and_then(|token| String::from_utf8(STANDARD.decode(token).ok()?).ok());
        let bad = || what.error(Kind::Invalid, "the answer holds no password");
        let (username, password) =
            login.as_deref().and_then(|login| login.split_once(':')).ok_or_else(bad)?;
        Ok(Credential::Password { username: username.to_owned(), password: Secret::new(password) })
    }

    async fn of_google(&self, server: Option<&Url>, registry: &Registry) -> Result<Credential> {
        let what = What::new("get a token from Google's metadata server for", registry);
        belongs(&what, registry, &["gcr.io", ".gcr.io", ".pkg.dev"])?;
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        let url = at(&what, server, GOOGLE, path)?;
        let request = self.metadata.get(url).header("Metadata-Flavor", "Google");
        let token: AccessToken = self.ask(&what, request).await?;
        let (username, password) = ("oauth2accesstoken".to_owned(), Secret::new(token.access_token));
        Ok(Credential::Password { username, password })
    }

    async fn of_azure(&self, server: Option<&Url>, registry: &Registry) -> Result<Credential> {
        let what = What::new("get a token from Azure for", registry);
        belongs(&what, registry, &[".azurecr.io", ".azurecr.cn", ".azurecr.us"])?;
        let mut url = at(&what, server, AZURE, "/metadata/identity/oauth2/token")?;
        url.query_pairs_mut()
            .append_pair("api-version", "2018-02-01")
            .append_pair("resource", "https://management.azure.com/");
        let request = self.metadata.get(url).header("Metadata", "true");
        let token: AccessToken = self.ask(&what, request).await?;
        let scheme = if registry.is_loopback() { "http" } else { "https" };
        let url = at(&what, None, &format!("{scheme}://{registry}"), "/oauth2/exchange")?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "access_token")
            .append_pair("service", registry.host())
            .append_pair("access_token", &token.access_token)
            .finish();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, kind)]);
        let request = self.api.request(Method::POST, url).headers(headers).body(form);
        let exchanged: RefreshToken = self.ask(&what, request).await?;
        Ok(Credential::IdentityToken(Secret::new(exchanged.refresh_token)))
    }

    async fn ask<T: DeserializeOwned>(&self, what: &What, request: RequestBuilder) -> Result<T> {
        let (client, request) = request.build_split();
        let request = request.map_err(|_| what.error(Kind::Invalid, "the request cannot be made"))?;
        let (place, method) = (host(request.url()), request.method().clone());
        let idle = self.options.idle_timeout;
        let sent = tokio::time::timeout(idle, client.execute(request)).await;
        let sent = sent.map_err(|_| what.error(Kind::Stalled, format!("no answer from {place}")))?;
        let mut response = sent.map_err(|e| Error::from(broken(what, &place, &e)))?;
        let status = response.status();
        if !status.is_success() {
            let body = error_body(what, &mut response, idle).await;
            let failure = answered(what, &method, status, response.headers(), &body);
            let kind = failure.error.kind();
            let kind = if kind.is_transient() { kind } else { Kind::Unauthorized };
            return Err(what.error(kind, failure.error.detail()));
        }
        let answer = collect(what, response, MAX_ANSWER, idle).await?;
        // The answer holds a secret, so nothing of it is repeated.
        serde_json::from_slice(&answer.body)
            .map_err(|_| what.error(Kind::Invalid, format!("the answer of {place} cannot be read")))
    }
}

/// A cloud's token is for the cloud's own registries, and for this machine's.
fn belongs(what: &What, registry: &Registry, hosts: &[&str]) -> Result<()> {
    let host = registry.host();
    let own = hosts.iter().any(|own| host == *own || own.starts_with('.') && host.ends_with(own));
    let stranger = || what.error(Kind::Invalid, "it is no registry of that cloud");
    (own || registry.is_loopback()).then_some(()).ok_or_else(stranger)
}

fn at(what: &What, server: Option<&Url>, usual: &str, path: &str) -> Result<Url> {
    let url = server.cloned().map_or_else(|| Url::parse(usual), Ok).and_then(|server| server.join(path));
    url.map_err(|e| what.error(Kind::Invalid, e.to_string()))
}
