//! How a bucket is reached.

use std::time::Duration;

use ferry_store::{Error, Kind, Result};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::{BackoffConfig, RetryConfig};
use url::{Host, Url};

use super::failure::describe;
use super::options::{S3Options, Style};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) fn invalid(detail: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, "set up", "the bucket", detail)
}

pub(super) fn retrying(times: usize, at_most: Duration) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: times, retry_timeout: at_most }
}

/// Where the bucket is, which contains its name as the style has it; `None` at AWS.
pub(super) fn endpoint(options: &S3Options, at: Option<&str>) -> Result<Option<Url>> {
    let Some(text) = at else { return Ok(None) };
    let mut url = Url::parse(text).map_err(|e| invalid(format!("endpoint {text}: {e}")))?;
    let host = url.host().ok_or_else(|| invalid(format!("endpoint {text}: it names no host")))?;
    let loopback = match &host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback || options.plain_http => {}
        "http" => {
            let detail = "the access to content would not be encrypted; use https, or set plain_http: true";
            return Err(invalid(format!("endpoint {text}: {detail}")));
        }
        _ => return Err(invalid(format!("endpoint {text}: it must begin with https:// or http://"))),
    }
    if options.style == Style::VirtualHosted {
        let Host::Domain(name) = host else {
            return Err(invalid(format!("endpoint {text}: an address takes style: path only")));
        };
        if !name.starts_with(&format!("{}.", options.bucket)) {
            let host = format!("{}.{name}", options.bucket);
            url.set_host(Some(&host)).map_err(|e| invalid(format!("endpoint {text}: {e}")))?;
        }
    }
    Ok(Some(url))
}

/// Connections of our own: nothing is taken from the environment, and nobody leads us elsewhere.
#[derive(Debug)]
pub(super) struct Connector(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

pub(super) fn connector(options: &S3Options, silence: Duration) -> Result<Connector> {
    let failed = |e: reqwest::Error| invalid(format!("the HTTP client: {e}"));
    let mut roots = Vec::new();
    for pem in &options.roots {
        roots.extend(reqwest::Certificate::from_pem_bundle(pem).map_err(failed)?);
    }
    let builder = || {
        reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(silence)
            .pool_idle_timeout(Duration::from_secs(50))
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
    };
    let client = builder().tls_certs_merge(roots.clone()).build();
    // A system without any root certificates does for plain HTTP, and for those that were given.
    client.or_else(|_| builder().tls_certs_only(roots).build()).map(Connector).map_err(failed)
}

pub(super) fn store(
    options: &S3Options,
    endpoint: Option<Url>,
    connector: Connector,
    retry: RetryConfig,
) -> Result<AmazonS3> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&options.bucket)
        .with_region(&options.region)
        .with_access_key_id(&options.access_key)
        .with_secret_access_key(&options.secret_key)
        .with_virtual_hosted_style_request(options.style == Style::VirtualHosted)
        // Not everybody has the API for many at once.
        .with_disable_bulk_delete(true)
        .with_allow_http(true)
        .with_retry(retry)
        .with_http_connector(connector);
    if let Some(token) = &options.session_token {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
    }
    builder.build().map_err(|e| invalid(describe(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(endpoint: &str, style: Style, plain_http: bool) -> std::result::Result<String, String> {
        let options = S3Options { style, plain_http, ..S3Options::new("images", "key", "secret") };
        let url = super::endpoint(&options, Some(endpoint));
        url.map(|url| url.unwrap().to_string()).map_err(|e| e.detail().to_owned())
    }

    #[test]
    fn the_bucket_stands_where_the_style_has_it() {
        let oss = "https://oss-cn-hangzhou.aliyuncs.com";
        assert_eq!(
            at(oss, Style::VirtualHosted, false).unwrap(),
            "https://images.oss-cn-hangzhou.aliyuncs.com/"
        );
        let given = "https://images.oss-cn-hangzhou.aliyuncs.com/";
        assert_eq!(at(given, Style::VirtualHosted, false).unwrap(), given);
        assert_eq!(at(oss, Style::Path, false).unwrap(), format!("{oss}/"));
        assert!(
            at("http://127.0.0.1:9000", Style::VirtualHosted, false).unwrap_err().contains("style: path")
        );
    }

    #[test]
    fn plain_http_is_for_this_machine_or_meant() {
        for here in ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000"] {
            assert!(at(here, Style::Path, false).is_ok(), "{here}");
        }
        assert!(at("http://minio:9000", Style::Path, false).unwrap_err().contains("plain_http"));
        assert!(at("http://minio:9000", Style::Path, true).is_ok());
        assert!(
            at("ftp://minio", Style::Path, true).is_err() && at("minio:9000", Style::Path, true).is_err()
        );
    }
}
