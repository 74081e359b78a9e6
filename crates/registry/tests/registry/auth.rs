//! Tokens, passwords, and to whom they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_registry::{Credential, Secret};
use ferry_store::{Kind, Mount, PageRequest, Scope};

use crate::fake::{Fake, Reply, Seen};
use crate::support::*;

/// A challenge to get a token from the server itself.
fn challenge(seen: &Seen, realm: &str) -> Reply {
    let header = format!(
        "Bearer realm=\"http://{}{realm}\",service=\"fake\",scope=\"repository:user/image:pull\"",
        seen.host()
    );
    Reply::new(401).header("www-authenticate", header)
}

fn token(text: &str) -> Reply {
    Reply::new(200).body(format!(r#"{{"token":"{text}","expires_in":300}}"#))
}

fn bearer(seen: &Seen) -> Option<&str> {
    seen.header("authorization")?.strip_prefix("Bearer ")
}

/// Lets in whoever has a token, and has blobs of no bytes.
fn guarded(seen: &Seen) -> Reply {
    match bearer(seen) {
        _ if seen.target.starts_with("/token") => token("t"),
        Some("t") if seen.method == "POST" => Reply::new(202).header("location", "/u/1"),
        Some("t") => Reply::new(200).header("content-length", 7),
        _ => challenge(seen, "/token?keep=me"),
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_for_the_scope_that_is_needed() {
    let fake = Fake::start(guarded).await;
    let store = anonymous(&fake.registry());
    for seed in 0..3u8 {
        assert_eq!(reader(&store).stat(&Digest::sha256(&[seed])).await.unwrap(), Some(7));
    }
    assert_eq!(fake.lines().len(), 1 + 1 + 3, "refusal, token, three answers: {:?}", fake.lines());
    let asked = fake.seen()[1].clone();
    assert_eq!(asked.target, "/token?keep=me&service=fake&scope=repository%3Ateam%2Fapp%3Apull");
    assert!(asked.header("authorization").is_none());
}

#[tokio::test]
async fn concurrent_requests_share_one_token() {
    let fake = Fake::start(guarded).await;
    let store = anonymous(&fake.registry());
    let repository = reader(&store);
    let digests: Vec<Digest> = (0..8u8).map(|seed| Digest::sha256(&[seed])).collect();
    let asked = digests.iter().map(|digest| repository.stat(digest));
    for size in futures_util::future::join_all(asked).await {
        assert_eq!(size.unwrap(), Some(7));
    }
    assert_eq!(fake.count("/token"), 1, "{:?}", fake.lines());
}

#[tokio::test]
async fn a_mount_reads_from_all_its_sources_with_one_token() {
    let fake = Fake::start(guarded).await;
    let store = anonymous(&fake.registry());
    let mount = Mount::From(vec![name(NAME), name("other/base")]);
    opened(writer(&store).begin(promised(&Bytes::from_static(b"x"), mount)).await.unwrap());
    let tokens: Vec<String> = fake.lines().into_iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(
        tokens,
        [
            "GET /token?keep=me&service=fake&scope=repository%3Ateam%2Fapp%3Apull%2Cpush&scope=repository%3Aother%2Fbase%3Apull"
        ]
    );
}

#[tokio::test]
async fn credentials_go_to_the_registrys_own_realm() {
    let fake = Fake::start(guarded).await;
    let store = client(quick(), password("me", "hunter2")).registry(&fake.registry()).unwrap();
    reader(&store).stat(&Digest::sha256(b"x")).await.unwrap();
    let sent: Vec<Option<String>> =
        fake.seen().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    let basic = "Basic bWU6aHVudGVyMg==".to_owned();
    assert_eq!(sent, [None, Some(basic), Some("Bearer t".to_owned())]);
}

#[tokio::test]
async fn a_foreign_realm_sees_no_credentials() {
    let realm = Fake::start(|_| token("t")).await;
    let port = realm.address.port();
    let registry = Fake::start(move |seen| match bearer(seen) {
        Some("t") => Reply::new(200),
        _ => Reply::new(401)
            .header("www-authenticate", format!("Bearer realm=\"http://localhost:{port}/token\"")),
    })
    .await;
    for credential in [
        Credential::Password { username: "me".to_owned(), password: Secret::new("hunter2") },
        Credential::IdentityToken(Secret::new("hunter2")),
    ] {
        let store = client(quick(), Fixed(credential)).registry(&registry.registry()).unwrap();
        reader(&store).stat(&Digest::sha256(b"x")).await.unwrap();
    }
    assert_eq!(realm.seen().len(), 2);
    for seen in realm.seen() {
        assert_eq!(seen.method, "GET");
        assert!(seen.header("authorization").is_none() && !format!("{seen:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_a_form() {
    let fake = Fake::start(|seen| match bearer(seen) {
        _ if seen.target == "/token" => Reply::new(200).body(r#"{"access_token":"t"}"#),
        Some("t") => Reply::new(200),
        _ => challenge(seen, "/token"),
    })
    .await;
    let credential = Fixed(Credential::IdentityToken(Secret::new("refresh me")));
    let store = client(quick(), credential).registry(&fake.registry()).unwrap();
    reader(&store).stat(&Digest::sha256(b"x")).await.unwrap();
    let asked = fake.seen()[1].clone();
    assert_eq!(asked.line(), "POST /token");
    assert_eq!(
        asked.body.unwrap(),
        "grant_type=refresh_token&client_id=ferry&service=fake&scope=repository%3Ateam%2Fapp%3Apull&refresh_token=refresh+me"
    );
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is() {
    let fake = Fake::start(guarded).await;
    let credential = Fixed(Credential::RegistryToken(Secret::new("t")));
    let store = client(quick(), credential).registry(&fake.registry()).unwrap();
    reader(&store).stat(&Digest::sha256(b"x")).await.unwrap();
    assert_eq!(fake.count("/token"), 0);
}

#[tokio::test]
async fn a_refused_token_is_renewed_where_it_came_from() {
    let good = AtomicUsize::new(1);
    let fake = Fake::start(move |seen| {
        if seen.target.starts_with("/token") {
            return token(&format!("t{}", good.load(Ordering::SeqCst)));
        }
        if seen.target.contains("expire") {
            good.fetch_add(1, Ordering::SeqCst);
        }
        match bearer(seen) {
            Some(sent) if sent == format!("t{}", good.load(Ordering::SeqCst)) => Reply::new(200),
            // As nvcr.io does it: whoever comes with a stale token is sent elsewhere.
            Some(_) => challenge(seen, "/leads-nowhere"),
            None => challenge(seen, "/token"),
        }
    })
    .await;
    let store = anonymous(&fake.registry());
    let repository = reader(&store);
    repository.stat(&Digest::sha256(b"x")).await.unwrap();
    assert_eq!(
        kind(repository.manifest(&tag("expire")).await),
        Kind::Unauthorized,
        "expires at each attempt"
    );
    repository.stat(&Digest::sha256(b"x")).await.unwrap();
    assert!(fake.count("/leads-nowhere") <= 1, "{:?}", fake.lines());
}

#[tokio::test]
async fn a_new_challenge_is_believed_once() {
    let fake = Fake::start(|seen| match bearer(seen) {
        _ if seen.target.starts_with("/old") => token("old"),
        _ if seen.target.starts_with("/new") => token("new"),
        Some("new") => Reply::new(200),
        Some(_) => challenge(seen, "/new"),
        None => challenge(seen, "/old"),
    })
    .await;
    let store = anonymous(&fake.registry());
    reader(&store).stat(&Digest::sha256(b"x")).await.unwrap();
    assert_eq!((fake.count("/old"), fake.count("/new")), (1, 1), "{:?}", fake.lines());
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so_without_end() {
    let fake = Fake::start(|seen| match seen.target.starts_with("/token") {
        true => token("never good enough"),
        false => challenge(seen, "/token"),
    })
    .await;
    let store = anonymous(&fake.registry());
    for expected in [3, 3 + 3] {
        assert_eq!(kind(reader(&store).stat(&Digest::sha256(b"x")).await), Kind::Unauthorized);
        assert!(fake.lines().len() <= expected + 1, "{:?}", fake.lines());
    }
}

#[tokio::test]
async fn a_refusal_without_challenge_is_final() {
    let fake = Fake::start(|_| Reply::new(401)).await;
    let store = client(quick(), password("me", "hunter2")).registry(&fake.registry()).unwrap();
    assert_eq!(kind(reader(&store).stat(&Digest::sha256(b"x")).await), Kind::Unauthorized);
    assert_eq!(fake.seen().len(), 1);
    assert!(fake.seen()[0].header("authorization").is_none());
}

#[tokio::test]
async fn a_token_server_that_refuses_means_unauthorized_and_one_that_fails_is_asked_again() {
    let fails = AtomicUsize::new(0);
    let fake = Fake::start(move |seen| match bearer(seen) {
        _ if seen.target.starts_with("/token") => match fails.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(503),
            _ => token("t"),
        },
        Some("t") => Reply::new(200),
        _ => challenge(seen, "/token"),
    })
    .await;
    let store = anonymous(&fake.registry());
    reader(&store).stat(&Digest::sha256(b"x")).await.unwrap();
    let denied = Fake::start(|seen| match seen.target.starts_with("/denied") {
        true => Reply::new(403).body(r#"{"details":"wrong password"}"#),
        false => challenge(seen, "/denied"),
    })
    .await;
    let error = reader(&anonymous(&denied.registry())).stat(&Digest::sha256(b"x")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    assert!(error.detail().contains("wrong password"), "{error}");
}

/// In a process that runs for months a registry moves its token server, or does without one.
#[tokio::test]
async fn a_realm_that_answers_no_more_is_asked_for_again() {
    let epoch = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&epoch);
    let fake = Fake::start(move |seen| match (now.load(Ordering::SeqCst), bearer(seen)) {
        (0, _) if seen.target.starts_with("/old") => token("old"),
        (0, Some("old")) => Reply::new(200),
        (0, _) => challenge(seen, "/old"),
        (_, _) if seen.target.starts_with("/old") => Reply::new(404),
        (1, _) if seen.target.starts_with("/new") => token("new"),
        (1, Some("new")) => Reply::new(200),
        (1, _) => challenge(seen, "/new"),
        (_, _) if seen.target.starts_with("/new") => Reply::new(404),
        (_, None) => Reply::new(200),
        (_, Some(_)) => Reply::new(401),
    })
    .await;
    let store = anonymous(&fake.registry());
    let repository = |text: String| store.repository(&Scope::Hosted, &name(&text));
    let digest = Digest::sha256(b"x");
    for at in 0..3 {
        epoch.store(at, Ordering::SeqCst);
        // Of each repository the token is another one.
        let _ = repository(format!("a/{at}")).stat(&digest).await;
        repository(format!("b/{at}")).stat(&digest).await.unwrap();
    }
}

#[tokio::test]
async fn a_challenge_may_ask_for_more_on_the_same_repository() {
    let fake = Fake::start(|seen| match bearer(seen) {
        _ if seen.target.contains("metadata_read") => token("listing"),
        _ if seen.target.starts_with("/token") => token("t"),
        Some("listing") => Reply::new(200).body(r#"{"tags":["a"]}"#),
        _ => Reply::new(401).header(
            "www-authenticate",
            format!(
                "Bearer realm=\"http://{}/token\",scope=\"repository:team/app:metadata_read\"",
                seen.host()
            ),
        ),
    })
    .await;
    let store = anonymous(&fake.registry());
    let page = reader(&store).tags(PageRequest::default()).await.unwrap();
    assert_eq!(page.items.len(), 1);
}
