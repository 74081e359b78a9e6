//! The API of ECR, and how AWS wants requests signed (docs.aws.amazon.com, "Signature Version 4 signing process").

use std::time::SystemTime;

use ferry_oci::{Digest, Registry};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use sha2::Sha256;
use url::Url;

use super::AwsKeys;

/// What is asked: the password for our own account's registries.
pub(super) const BODY: &str = "{}";

/// The part of AWS that knows about a registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Api {
    region: String,
    service: &'static str,
    domain: &'static str,
    target: &'static str,
}

impl Api {
    /// By the name of the registry: `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn]`,
    /// `ACCOUNT.dkr-ecr[-fips].REGION.on.aws`, `public.ecr.aws`.
    pub(super) fn of(registry: &Registry) -> Option<Self> {
        let host = registry.host();
        if host == "public.ecr.aws" {
            let target = "SpencerFrontendService.GetAuthorizationToken";
            let (region, service, domain) = ("us-east-1".to_owned(), "ecr-public", "amazonaws.com");
            return Some(Self { region, service, domain, target });
        }
        let domains = [".amazonaws.com", ".amazonaws.com.cn", ".on.aws"];
        let (rest, suffix) = domains.iter().find_map(|domain| Some((host.strip_suffix(domain)?, *domain)))?;
        let (account, place) = rest.split_once(".dkr")?;
        let place = place.strip_prefix(['.', '-'])?.strip_prefix("ecr")?;
        let region = place.strip_prefix("-fips").unwrap_or(place).strip_prefix('.')?;
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let domain = if suffix == ".amazonaws.com.cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
        let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
        (plain(account) && plain(region)).then(|| Self {
            region: region.to_owned(),
            service: "ecr",
            domain,
            target,
        })
    }

    pub(super) fn url(&self) -> Result<Url, url::ParseError> {
        Url::parse(&format!("https://api.{}.{}.{}/", self.service, self.region, self.domain))
    }
}

/// What ECR and ECR Public answer; one gives a list, the other does not.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    authorization_data: Data,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Many(Vec<Token>),
    One(Token),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    authorization_token: String,
}

impl Answer {
    /// `USER:PASSWORD` in base64.
    pub(super) fn token(&self) -> Option<&str> {
        let token = match &self.authorization_data {
            Data::Many(tokens) => tokens.first()?,
            Data::One(token) => token,
        };
        Some(&token.authorization_token)
    }
}

/// The headers of a request for a password; `None` if the keys cannot be in headers.
pub(super) fn headers(keys: &AwsKeys, api: &Api, url: &Url, now: SystemTime) -> Option<HeaderMap> {
    let time = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
    let mut signed = vec![
        ("content-type", "application/x-amz-json-1.1".to_owned()),
        ("host", authority(url)?),
        ("x-amz-date", time.clone()),
    ];
    if let Some(token) = &keys.session_token {
        signed.push(("x-amz-security-token", token.expose().to_owned()));
    }
    signed.push(("x-amz-target", api.target.to_owned()));
    let message = Message { method: "POST", query: "", headers: &signed, body: BODY };
    let authorization = message.authorization(keys, &api.region, api.service, &time)?;
    let mut headers = HeaderMap::new();
    for (name, value) in signed.into_iter().filter(|(name, _)| *name != "host") {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(name == "x-amz-security-token");
        headers.insert(HeaderName::from_static(name), value);
    }
    let mut authorization = HeaderValue::try_from(authorization).ok()?;
    authorization.set_sensitive(true);
    headers.insert(http::header::AUTHORIZATION, authorization);
    Some(headers)
}

fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// A request to `/` as it is signed; the headers in order of their names.
struct Message<'a> {
    method: &'a str,
    query: &'a str,
    headers: &'a [(&'static str, String)],
    body: &'a str,
}

impl Message<'_> {
    fn authorization(&self, keys: &AwsKeys, region: &str, service: &str, time: &str) -> Option<String> {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let body = Digest::sha256(self.body.as_bytes());
        let canonical = format!("{}\n/\n{}\n{lines}\n{names}\n{}", self.method, self.query, body.hex());
        let day = time.get(..8)?;
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let canonical = Digest::sha256(canonical.as_bytes());
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", canonical.hex());
        let secret = format!("AWS4{}", keys.secret_key.expose());
        let mut key = hmac(secret.as_bytes(), day)?;
        for part in [region, service, "aws4_request"] {
            key = hmac(&key, part)?;
        }
        let signature: String = hmac(&key, &text)?.iter().map(|byte| format!("{byte:02x}")).collect();
        let access_key = &keys.access_key;
        Some(format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        ))
    }
}

fn hmac(key: &[u8], text: &str) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    Some(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    /// The example of the specification.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let keys = AwsKeys {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token: None,
            endpoint: None,
        };
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()),
            ("host", "iam.amazonaws.com".to_owned()),
            ("x-amz-date", "20150830T123600Z".to_owned()),
        ];
        let query = "Action=ListUsers&Version=2010-05-08";
        let message = Message { method: "GET", query, headers: &headers, body: "" };
        let authorization = message.authorization(&keys, "us-east-1", "iam", "20150830T123600Z").unwrap();
        assert_eq!(
            authorization,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
    }

    #[test]
    fn the_region_is_in_the_name() {
        for (host, url) in [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://api.ecr.eu-west-1.amazonaws.com/"),
            (
                "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                "https://api.ecr.us-gov-west-1.amazonaws.com/",
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "https://api.ecr.cn-north-1.amazonaws.com.cn/",
            ),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", "https://api.ecr.eu-west-1.amazonaws.com/"),
            ("public.ecr.aws", "https://api.ecr-public.us-east-1.amazonaws.com/"),
        ] {
            assert_eq!(Api::of(&host.parse().unwrap()).unwrap().url().unwrap().as_str(), url);
        }
        for host in [
            "quay.io",
            "a.dkr.ecr.evil.com.amazonaws.com",
            "dkr.ecr.eu-west-1.amazonaws.com",
            "a.dkr.ecr.amazonaws.com",
        ] {
            assert_eq!(Api::of(&host.parse().unwrap()), None, "{host}");
        }
    }
}
