//! Where a registry may send us, and what we take along.

use ferry_oci::Digest;
use ferry_registry::{Anonymous, ClientOptions, Proxies, Site};
use ferry_store::{ByteRange, Kind, Mount};

use crate::fake::{Fake, Reply, Seen};
use crate::support::*;

const BODY: &[u8] = b"content of a blob";

fn digest() -> Digest {
    Digest::sha256(BODY)
}

/// A registry that wants a password and then answers with `then`.
async fn with_password(then: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::start(move |seen| match seen.header("authorization") {
        Some(_) => then(seen),
        None => Reply::new(401).header("www-authenticate", "Basic realm=\"fake\""),
    })
    .await
}

#[tokio::test]
async fn authorization_does_not_leave_the_origin() {
    let cdn = Fake::start(|_| Reply::new(200).body(BODY)).await;
    let elsewhere = format!("http://{}/content?sig=secret", cdn.address);
    let registry = with_password(move |seen| match seen.target.as_str() {
        "/here" => Reply::new(307).header("location", &elsewhere),
        _ => Reply::new(302).header("location", "/here"),
    })
    .await;
    let store = client(quick(), password("me", "hunter2")).registry(&registry.registry()).unwrap();
    let blob = reader(&store).blob(&digest(), ByteRange::ALL).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap(), BODY);
    let here = registry.seen().into_iter().find(|seen| seen.target == "/here").unwrap();
    assert!(here.header("authorization").is_some(), "the same origin");
    assert_eq!(cdn.seen().len(), 1);
    assert!(cdn.seen()[0].header("authorization").is_none());
    assert_eq!(cdn.seen()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn private_addresses_are_not_visited() {
    for target in [
        "http://10.0.0.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:192.168.0.1]/x",
        "http://0x0a.1/x",
        "http://inside.test/x",
        "https://inside.test/x",
    ] {
        let registry = Fake::start(move |_| Reply::new(307).header("location", target)).await;
        let resolve = vec![("inside.test".to_owned(), "10.0.0.1:0".parse().unwrap())];
        let options = ClientOptions { resolve, ..quick() };
        let store = client(options, Anonymous).registry(&registry.registry()).unwrap();
        let error = reader(&store).blob(&digest(), ByteRange::ALL).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Misdirected, "{target}: {error}");
        assert_eq!(registry.seen().len(), 1, "that is final");
    }
}

#[tokio::test]
async fn an_allowed_network_is_visited() {
    let cdn = Fake::start(|_| Reply::new(200).body(BODY)).await;
    let port = cdn.address.port();
    let registry =
        Fake::start(move |_| Reply::new(307).header("location", format!("http://cdn.test:{port}/x"))).await;
    for (allowed, expected) in [(vec![], None), (vec!["127.0.0.0/8".parse().unwrap()], Some(BODY))] {
        let resolve = vec![("cdn.test".to_owned(), cdn.address)];
        let options =
            ClientOptions { resolve, usual: Site { allow_networks: allowed, ..Site::default() }, ..quick() };
        let store = client(options, Anonymous).registry(&registry.registry()).unwrap();
        let answer = reader(&store).blob(&digest(), ByteRange::ALL).await;
        match expected {
            Some(bytes) => assert_eq!(answer.unwrap().into_bytes().await.unwrap(), bytes),
            None => assert_eq!(kind(answer), Kind::Misdirected),
        }
    }
    assert_eq!(cdn.seen().len(), 1);
}

/// Behind a proxy that looks up names itself only the name can be judged.
#[tokio::test]
async fn a_proxy_is_not_asked_for_what_is_inside() {
    for target in ["http://10.0.0.1/x", "http://intranet/x", "http://db.internal/x", "http://proxy.test/x"] {
        let registry = Fake::start(move |_| Reply::new(307).header("location", target)).await;
        let proxies = Proxies { http: Some("http://proxy.test:1".parse().unwrap()), ..Proxies::default() };
        let usual = Site { proxies, ..Site::default() };
        let store =
            client(ClientOptions { usual, ..quick() }, Anonymous).registry(&registry.registry()).unwrap();
        let error = reader(&store).blob(&digest(), ByteRange::ALL).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Misdirected, "{target}: {error}");
    }
}

#[tokio::test]
async fn redirects_end() {
    let registry = Fake::start(|_| Reply::new(307).header("location", "/again")).await;
    let store = anonymous(&registry.registry());
    assert_eq!(kind(reader(&store).manifest(&tag("t")).await), Kind::Invalid);
    assert_eq!(registry.seen().len(), 1 + 5);
}

#[tokio::test]
async fn a_signed_url_is_not_shown() {
    let cdn = Fake::start(|_| Reply::new(403)).await;
    let gone = cdn.address;
    let registry = Fake::start(move |_| {
        Reply::new(307).header("location", format!("http://{gone}/x?X-Amz-Signature=secret"))
    })
    .await;
    let store = anonymous(&registry.registry());
    let denied = reader(&store).blob(&digest(), ByteRange::ALL).await.unwrap_err();
    drop(cdn);
    let broken = reader(&store).blob(&Digest::sha256(b"other"), ByteRange::ALL).await.unwrap_err();
    for error in [denied, broken] {
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_realm_on_a_private_address_is_not_asked() {
    let registry = Fake::start(|_| {
        Reply::new(401).header("www-authenticate", "Bearer realm=\"http://169.254.169.254/token\"")
    })
    .await;
    let store = anonymous(&registry.registry());
    assert_eq!(kind(reader(&store).stat(&digest()).await), Kind::Misdirected);
}

#[tokio::test]
async fn an_upload_elsewhere_carries_no_authorization() {
    let disk = Fake::start(|_| Reply::new(201)).await;
    let elsewhere = format!("http://{}/disk?_state=a%2Fb", disk.address);
    let registry = with_password(move |_| Reply::new(202).header("location", &elsewhere)).await;
    let store = client(quick(), password("me", "hunter2")).registry(&registry.registry()).unwrap();
    let bytes = content(3, 1000);
    let mut upload = opened(writer(&store).begin(promised(&bytes, Mount::No)).await.unwrap());
    upload.write(bytes.clone()).await.unwrap();
    upload.commit(&Digest::sha256(&bytes)).await.unwrap();
    let seen = disk.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].target, format!("/disk?_state=a%2Fb&digest={}", Digest::sha256(&bytes)));
    assert!(seen[0].header("authorization").is_none());
    assert_eq!(seen[0].body.as_ref(), Some(&bytes));
}

#[tokio::test]
async fn an_upload_to_a_private_address_is_refused() {
    let registry = Fake::start(|_| Reply::new(202).header("location", "http://10.0.0.1/u")).await;
    let store = anonymous(&registry.registry());
    let bytes = content(4, 1000);
    let mut upload = begin(&writer(&store), &bytes).await;
    upload.write(bytes.clone()).await.unwrap();
    assert_eq!(kind(upload.commit(&Digest::sha256(&bytes)).await), Kind::Misdirected);
}

#[tokio::test]
async fn a_challenge_from_elsewhere_is_not_the_registrys() {
    let disk = Fake::start(|seen| {
        let realm = format!("Bearer realm=\"http://{}/token\"", seen.host());
        Reply::new(401).header("www-authenticate", realm)
    })
    .await;
    let elsewhere = format!("http://{}/disk", disk.address);
    let registry = Fake::start(move |seen| match seen.method {
        http::Method::POST => Reply::new(202).header("location", &elsewhere),
        http::Method::GET => Reply::new(307).header("location", &elsewhere),
        _ => Reply::new(200),
    })
    .await;
    let store = client(quick(), password("me", "hunter2")).registry(&registry.registry()).unwrap();
    let bytes = content(17, 10);
    let mut upload = begin(&writer(&store), &bytes).await;
    upload.write(bytes.clone()).await.unwrap();
    assert_eq!(kind(upload.commit(&Digest::sha256(&bytes)).await), Kind::Unauthorized);
    assert_eq!(kind(reader(&store).blob(&digest(), ByteRange::ALL).await), Kind::Unauthorized);
    reader(&store).stat(&digest()).await.unwrap();
    assert_eq!(disk.lines().len(), 2, "nobody asked for a token: {:?}", disk.lines());
    assert!(registry.seen().iter().all(|seen| seen.header("authorization").is_none()));
}
