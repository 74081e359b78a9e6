//! Accounts that clouds give, from servers that answer as their documentation says.

use std::time::{Duration, SystemTime};

use ferry_registry::{AwsKeys, Cloud, Clouds, Credential, Proxies, Secret, Site};
use ferry_store::Kind;
use url::Url;

use crate::fake::{Fake, Reply};
use crate::support::*;

fn clouds() -> Clouds {
    // Makes a crypto provider available, as a client does.
    client(quick(), ferry_registry::Anonymous);
    Clouds::new(&quick()).unwrap()
}

fn url(fake: &Fake) -> Url {
    Url::parse(&format!("http://{}", fake.address)).unwrap()
}

fn keys(endpoint: Url) -> AwsKeys {
    let (secret_key, session_token) = (Secret::new("hunter2"), Some(Secret::new("lent")));
    AwsKeys { access_key: "AKID".to_owned(), secret_key, session_token, endpoint: Some(endpoint) }
}

#[tokio::test]
async fn a_password_of_ecr() {
    let fake = Fake::start(|_| {
        // AWS:p:w in base64, for twelve hours.
        Reply::new(200).body(r#"{"authorizationData":[{"authorizationToken":"QVdTOnA6dw==","expiresAt":1}]}"#)
    })
    .await;
    let registry = "123456789012.dkr.ecr.eu-west-1.amazonaws.com".parse().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
    let account = clouds().account(&Cloud::Aws(keys(url(&fake))), &registry, now).await.unwrap();
    let password = Secret::new("p:w");
    assert_eq!(account, Credential::Password { username: "AWS".to_owned(), password });
    let seen = &fake.seen()[0];
    assert_eq!(seen.line(), "POST /");
    assert_eq!(seen.header("x-amz-date"), Some("20150830T123600Z"));
    assert_eq!(seen.header("x-amz-security-token"), Some("lent"));
    assert_eq!(
        seen.header("x-amz-target"),
        Some("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
    );
    let authorization = seen.header("authorization").unwrap();
    let expected = "AWS4-HMAC-SHA256 Credential=AKID/20150830/eu-west-1/ecr/aws4_request, \
                    SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=";
    assert!(authorization.starts_with(expected), "{authorization}");
    assert_eq!(seen.body.as_deref(), Some(&b"{}"[..]));
}

#[tokio::test]
async fn what_a_cloud_refuses_is_said_without_secrets() {
    let fake = Fake::start(|_| Reply::new(403).body(r#"{"__type":"ExpiredTokenException"}"#)).await;
    let registry = "public.ecr.aws".parse().unwrap();
    let error =
        clouds().account(&Cloud::Aws(keys(url(&fake))), &registry, SystemTime::now()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    let quay = "quay.io".parse().unwrap();
    let other = clouds().account(&Cloud::Aws(keys(url(&fake))), &quay, SystemTime::now()).await.unwrap_err();
    assert_eq!(other.kind(), Kind::Invalid);
    for cloud in [Cloud::Google(Some(url(&fake))), Cloud::Azure(Some(url(&fake)))] {
        let stranger = clouds().account(&cloud, &quay, SystemTime::now()).await.unwrap_err();
        assert_eq!(stranger.kind(), Kind::Invalid, "a token is not for just anybody");
    }
    let garbled = Fake::start(|_| Reply::new(200).body(r#"{"authorizationData":"hunter2"}"#)).await;
    let unread = clouds().account(&Cloud::Aws(keys(url(&garbled))), &registry, SystemTime::now()).await;
    for error in [error, other, unread.unwrap_err()] {
        let said = format!("{error} {error:?}");
        assert!(!said.contains("hunter2") && !said.contains("lent"), "{said}");
    }
}

#[tokio::test]
async fn a_token_of_googles_metadata_server() {
    let fake = Fake::start(|seen| match (seen.target.as_str(), seen.header("metadata-flavor")) {
        ("/computeMetadata/v1/instance/service-accounts/default/token", Some("Google")) => {
            Reply::new(200).body(r#"{"access_token":"t","expires_in":3599,"token_type":"Bearer"}"#)
        }
        _ => Reply::new(403),
    })
    .await;
    // Proxies are for others.
    let proxies = Proxies { http: Some("http://127.0.0.2:1".parse().unwrap()), ..Proxies::default() };
    client(quick(), ferry_registry::Anonymous);
    let options = ferry_registry::ClientOptions { usual: Site { proxies, ..Site::default() }, ..quick() };
    let clouds = Clouds::new(&options).unwrap();
    let registry = "europe-docker.pkg.dev".parse().unwrap();
    let account = clouds.account(&Cloud::Google(Some(url(&fake))), &registry, SystemTime::now()).await;
    let password = Secret::new("t");
    assert_eq!(account.unwrap(), Credential::Password { username: "oauth2accesstoken".to_owned(), password });
}

#[tokio::test]
async fn a_token_of_azure_is_exchanged_at_the_registry() {
    let server = Fake::start(|seen| match seen.header("metadata") {
        Some("true") => Reply::new(200).body(r#"{"access_token":"aad","expires_in":"3599"}"#),
        _ => Reply::new(400),
    })
    .await;
    let registry = Fake::start(|seen| match seen.line().as_str() {
        "POST /oauth2/exchange" => Reply::new(200).body(r#"{"refresh_token":"refresh"}"#),
        _ => Reply::new(400),
    })
    .await;
    let cloud = Cloud::Azure(Some(url(&server)));
    let account = clouds().account(&cloud, &registry.registry(), SystemTime::now()).await.unwrap();
    assert_eq!(account, Credential::IdentityToken(Secret::new("refresh")));
    let form = b"grant_type=access_token&service=127.0.0.1&access_token=aad";
    assert_eq!(registry.seen()[0].body.as_deref(), Some(&form[..]));
    let target = &server.seen()[0].target;
    assert!(
        target.starts_with("/metadata/identity/oauth2/token?api-version=2018-02-01&resource="),
        "{target}"
    );
}
