//! Hosts that nobody named: which of them are visited, and what they get to see of us.

use std::net::SocketAddr;
use std::sync::Arc;

use ferry_oci::{Digest, Manifest, Registry};
use ferry_registry::{ClientOptions, Credential, Secret, Site};
use ferry_store::{ByteRange, Kind, Mount, PageRequest, RepositoryMut, Store};

use crate::fake::{Fake, Reply, Seen};
use crate::support::*;

const SECRET: &str = "hunter2";

fn digest() -> Digest {
    Digest::sha256(b"x")
}

fn manifest() -> Manifest {
    let config = Digest::sha256(b"{}");
    let text = format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{config}","size":2}}}}"#);
    Manifest::parse(None, text.into()).unwrap()
}

/// Nothing that it was sent has a secret in it.
fn assert_learnt_nothing(stranger: &Fake) {
    for seen in stranger.seen() {
        let shown = format!("{seen:?}");
        assert!(seen.header("authorization").is_none(), "{shown}");
        for secret in [SECRET, "the-token", "aHVudGVyMg", "bWU6aHVudGVyMg"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

/// Wants a token, which it gives for the password, and answers with `then`.
async fn registry(then: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::start(move |seen| match seen.header("authorization") {
        _ if seen.target.starts_with("/token") => Reply::new(200).body(r#"{"token":"the-token"}"#),
        Some("Bearer the-token") => then(seen),
        _ => Reply::new(401)
            .header("www-authenticate", format!("Bearer realm=\"http://{}/token\"", seen.host())),
    })
    .await
}

fn with_password(options: ClientOptions, registry: &Registry) -> Arc<dyn Store> {
    client(options, password("me", SECRET)).registry(registry).unwrap()
}

/// Every way to send us away, once; what comes of it does not matter.
async fn do_everything(repository: &Arc<dyn RepositoryMut>) {
    let bytes = content(1, 1000);
    let _ = repository.resolve(&tag("t")).await;
    let _ = repository.manifest(&tag("t")).await;
    let _ = repository.stat(&digest()).await;
    let _ = repository.blob(&digest(), ByteRange::ALL).await;
    let _ = repository.tags(PageRequest::default()).await;
    let _ = repository.referrers(&digest(), None, PageRequest::default()).await;
    let _ = repository.put_manifest(&manifest(), Some(&"t".parse().unwrap())).await;
    let _ = repository.delete_blob(&digest()).await;
    if let Ok(ferry_store::Begun::Upload(mut upload)) = repository.begin(promised(&bytes, Mount::No)).await {
        let _ = upload.write(bytes.slice(..500)).await;
        let _ = upload.durable_offset().await;
        let _ = upload.write(bytes.slice(500..)).await;
        let _ = upload.commit(&Digest::sha256(&bytes)).await;
    }
    if let Ok(ferry_store::Begun::Upload(upload)) = repository.begin(promised(&bytes, Mount::No)).await {
        let _ = upload.abort().await;
    }
}

#[tokio::test]
async fn whoever_we_are_sent_to_sees_no_credentials() {
    let stranger = Arc::new(
        Fake::start(|seen| match seen.method.as_str() {
            "PATCH" | "POST" => Reply::new(202).header("location", "/next"),
            "PUT" => Reply::new(201),
            // It would like to know as well.
            _ => {
                Reply::new(401).header("www-authenticate", format!("Basic realm=\"http://{}/\"", seen.host()))
            }
        })
        .await,
    );
    let port = stranger.address.port();
    for host in ["127.0.0.1", "localhost"] {
        for status in [200, 202, 302, 303, 307, 308] {
            let home = registry(move |seen| {
                let elsewhere = format!("http://{host}:{port}{}", seen.target);
                Reply::new(status)
                    .header("location", &elsewhere)
                    .header("link", format!("<{elsewhere}?last=z>; rel=\"next\""))
            })
            .await;
            for resumable_from in [0, u64::MAX] {
                let options = ClientOptions { resumable_from, attempts: 1, ..quick() };
                do_everything(&writer(&with_password(options, &home.registry()))).await;
            }
            assert!(home.seen().iter().any(|seen| seen.header("authorization") == Some("Bearer the-token")));
        }
    }
    let seen = stranger.seen();
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE"] {
        assert!(seen.iter().any(|seen| seen.method == method), "it was never asked to {method}");
    }
    assert_learnt_nothing(&stranger);
}

#[tokio::test]
async fn a_realm_that_sends_us_on_does_not_send_the_password_along() {
    let stranger = Fake::start(|_| Reply::new(200).body(r#"{"token":"other"}"#)).await;
    let port = stranger.address.port();
    let home = Fake::start(move |seen| match seen.target.starts_with("/token") {
        true => Reply::new(307).header("location", format!("http://localhost:{port}{}", seen.target)),
        false => Reply::new(401)
            .header("www-authenticate", format!("Bearer realm=\"http://{}/token\"", seen.host())),
    })
    .await;
    for credential in [
        Credential::Password { username: "me".to_owned(), password: Secret::new(SECRET) },
        Credential::IdentityToken(Secret::new(SECRET)),
        Credential::RegistryToken(Secret::new(SECRET)),
    ] {
        let store = client(quick(), Fixed(credential)).registry(&home.registry()).unwrap();
        assert!(reader(&store).stat(&digest()).await.is_err());
    }
    assert_eq!(stranger.lines().len(), 1, "only a password asks by GET: {:?}", stranger.lines());
    assert_learnt_nothing(&stranger);
}

/// All spellings of what must not be visited.
const FORBIDDEN: [&str; 33] = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "127.0.0.1.",
    "①②⑦.0.0.1",
    "127.0.0。1",
    "localhost",
    "LOCALHOST",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[::ffff:0:127.0.0.1]",
    "0",
    "0.0.0.0",
    "[::]",
    "10.0.0.1",
    "012.1",
    "192.168.1.1",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "168.63.129.16",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "inside.test",
];

/// A client to which the registry is at a public name, and not on this machine.
fn from_outside(home: SocketAddr, allow: &[&str]) -> (Registry, ClientOptions) {
    let resolve =
        vec![("registry.test".to_owned(), home), ("inside.test".to_owned(), "10.0.0.1:0".parse().unwrap())];
    let allow_networks = allow.iter().map(|text| text.parse().unwrap()).collect();
    let usual = Site { plain_http: Some(true), allow_networks, ..Site::default() };
    let registry = format!("registry.test:{}", home.port()).parse().unwrap();
    (registry, ClientOptions { resolve, usual, attempts: 1, ..quick() })
}

#[tokio::test]
async fn no_spelling_of_a_private_address_is_visited() {
    let inside = Arc::new(Fake::start(|_| Reply::new(200)).await);
    let port = inside.address.port();
    for host in FORBIDDEN {
        let target = format!("http://{host}:{port}/x");
        let home =
            Fake::start(move |seen| match (seen.method.as_str(), seen.target.contains("blobs/sha256")) {
                ("POST", _) => Reply::new(202).header("location", url::Url::parse(&target).unwrap()),
                (_, true) => Reply::new(307).header("location", url::Url::parse(&target).unwrap()),
                _ => Reply::new(401).header(
                    "www-authenticate",
                    format!("Bearer realm=\"{}\"", url::Url::parse(&target).unwrap()),
                ),
            })
            .await;
        let (registry, options) = from_outside(home.address, &[]);
        let repository = writer(&with_password(options, &registry));
        let blob = repository.blob(&digest(), ByteRange::ALL).await.unwrap_err();
        assert_eq!(blob.kind(), Kind::Misdirected, "redirected to {host}: {blob}");
        let bytes = content(2, 10);
        let mut upload = begin(&repository, &bytes).await;
        upload.write(bytes.clone()).await.unwrap();
        assert_eq!(
            kind(upload.commit(&Digest::sha256(&bytes)).await),
            Kind::Misdirected,
            "uploaded to {host}"
        );
        let token = repository.manifest(&tag("t")).await.unwrap_err();
        assert_eq!(token.kind(), Kind::Misdirected, "token from {host}: {token}");
    }
    assert!(inside.seen().is_empty(), "{:?}", inside.lines());
}

/// The one before would hold as well if nothing could be reached at all.
#[tokio::test]
async fn what_is_allowed_can_be_reached_from_outside() {
    let inside = Fake::start(|_| Reply::new(200).body("x")).await;
    let target = format!("http://2130706433:{}/x", inside.address.port());
    let home = Fake::start(move |_| Reply::new(307).header("location", &target)).await;
    let (registry, options) = from_outside(home.address, &["127.0.0.0/8"]);
    let blob = reader(&with_password(options, &registry)).blob(&digest(), ByteRange::ALL).await.unwrap();
    assert_eq!((blob.into_bytes().await.unwrap(), inside.seen().len()), ("x".into(), 1));
}

#[tokio::test]
async fn a_location_that_is_no_place_on_the_web_is_refused() {
    for location in [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:,x",
        "javascript:1",
        "http://",
        "http://[::1",
        "//",
        "",
        "unix:/run/docker.sock",
    ] {
        let home = Fake::start(move |_| Reply::new(202).header("location", location)).await;
        let repository = writer(&anonymous(&home.registry()));
        let bytes = content(3, 10);
        let outcome = match repository.begin(promised(&bytes, Mount::No)).await {
            Ok(begun) => {
                let mut upload = opened(begun);
                upload.write(bytes.clone()).await.unwrap();
                upload.commit(&Digest::sha256(&bytes)).await
            }
            Err(error) => Err(error),
        };
        // An empty one is the place itself, as any relative reference.
        let own = location.is_empty()
            && home.lines().iter().all(|line| line.contains("/v2/team/app/blobs/uploads/"));
        assert!(own || outcome.is_err(), "{location}");
    }
}

#[tokio::test]
async fn a_location_with_a_password_in_it_is_refused() {
    let stranger = Fake::start(|_| Reply::new(201)).await;
    let location = format!("http://me:{SECRET}@{}/u", stranger.address);
    let home = Fake::start(move |_| Reply::new(202).header("location", &location)).await;
    let bytes = content(4, 10);
    let mut upload = begin(&writer(&anonymous(&home.registry())), &bytes).await;
    upload.write(bytes.clone()).await.unwrap();
    let error = upload.commit(&Digest::sha256(&bytes)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Misdirected);
    assert!(!format!("{error} {error:?}").contains(SECRET) && stranger.seen().is_empty());
}

#[tokio::test]
async fn a_challenge_that_always_wants_more_is_final() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let home = Fake::start(move |seen| {
        if seen.target.starts_with("/token") {
            return Reply::new(200).body(r#"{"token":"the-token"}"#);
        }
        let more = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let realm = format!("realm=\"http://{}/token\"", seen.host());
        Reply::new(401)
            .header("www-authenticate", format!("Bearer {realm},scope=\"repository:team/app:more{more}\""))
    })
    .await;
    let (repository, digest) = (reader(&anonymous(&home.registry())), digest());
    let asked = repository.stat(&digest);
    let asked = tokio::time::timeout(std::time::Duration::from_secs(60), async { kind(asked.await) });
    assert_eq!(asked.await.expect("it ends"), Kind::Unauthorized);
    assert!(home.seen().len() <= 6, "{:?}", home.lines());
}

#[tokio::test]
async fn a_registry_on_ipv6_is_spoken_to_from_end_to_end() {
    let bytes = content(5, 5000);
    let sent = bytes.clone();
    let home =
        Fake::start_on("[::1]:0", move |seen| match (seen.method.as_str(), seen.header("authorization")) {
            _ if seen.target.starts_with("/token") => Reply::new(200).body(r#"{"token":"the-token"}"#),
            (_, None) => Reply::new(401)
                .header("www-authenticate", format!("Bearer realm=\"http://{}/token\"", seen.host())),
            ("POST", _) => Reply::new(202).header("location", format!("http://{}/u/1", seen.host())),
            ("PUT", _) => Reply::new(201),
            _ => Reply::new(200).body(sent.clone()),
        })
        .await;
    assert!(home.registry().to_string().starts_with("[::1]:"));
    let repository = writer(&with_password(quick(), &home.registry()));
    assert_eq!(push(&repository, &bytes).await, Digest::sha256(&bytes));
    let blob = repository.blob(&Digest::sha256(&bytes), ByteRange::ALL).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap(), bytes);
    let asked = home.seen().into_iter().find(|seen| seen.target.starts_with("/token")).unwrap();
    assert!(asked.header("authorization").unwrap().starts_with("Basic "), "the realm is the registry's own");
}
