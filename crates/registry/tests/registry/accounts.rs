//! Which account asks, and what happens when its quota is used up.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ferry_oci::Digest;
use ferry_registry::{Asked, Credential, Credentials, Lane, Login, Secret};
use ferry_store::{Kind, Result, Scope, Side};

use crate::fake::{Fake, Reply, Seen};
use crate::support::*;

/// Several accounts, named like their passwords.
struct Several(&'static [&'static str]);

fn account(name: &str) -> Credential {
    Credential::Password { username: name.to_owned(), password: Secret::new(name) }
}

#[async_trait]
impl Credentials for Several {
    async fn find(&self, _: &Asked<'_>) -> Result<Vec<Credential>> {
        Ok(self.0.iter().map(|name| account(name)).collect())
    }
}

const ONE: &str = "Basic b25lOm9uZQ==";
const TWO: &str = "Basic dHdvOnR3bw==";

fn manifest() -> Reply {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{{"x":"{}"}}}}"#,
        Digest::sha256(b"x")
    );
    Reply::new(200).header("content-type", "application/vnd.oci.image.index.v1+json").body(text)
}

fn left(reply: Reply, remaining: u32) -> Reply {
    reply
        .header("ratelimit-limit", "100;w=21600")
        .header("ratelimit-remaining", format!("{remaining};w=21600"))
}

fn too_many() -> Reply {
    left(Reply::new(429), 0).body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}"#)
}

fn basic() -> Reply {
    Reply::new(401).header("www-authenticate", "Basic realm=\"fake\"")
}

#[tokio::test]
async fn when_one_account_may_read_no_more_the_next_one_does() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        Some(ONE) => too_many(),
        Some(TWO) => left(manifest(), 7),
        _ => basic(),
    })
    .await;
    let client = client(quick(), Several(&["one", "two"]));
    let store = client.registry(&fake.registry()).unwrap();
    for text in ["a", "b", "c"] {
        reader(&store).manifest(&tag(text)).await.unwrap();
    }
    let who: Vec<Option<String>> =
        fake.seen().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(who, [None, some(ONE), some(TWO), some(TWO), some(TWO)], "the first is not tried each time");
    assert_eq!(client.quota(&fake.registry()).unwrap().remaining, 7);
}

#[tokio::test]
async fn what_is_announced_as_the_last_one_is() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        Some(ONE) => left(manifest(), 0),
        Some(TWO) => left(manifest(), 0),
        _ => basic(),
    })
    .await;
    let store = client(quick(), Several(&["one", "two"])).registry(&fake.registry()).unwrap();
    for text in ["a", "b"] {
        reader(&store).manifest(&tag(text)).await.unwrap();
    }
    let error = reader(&store).manifest(&tag("c")).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::RateLimited { .. }), "{error}");
    assert_eq!(fake.seen().len(), 1 + 2, "nobody asks who would only be refused");
}

#[tokio::test]
async fn when_all_are_used_up_it_is_said_at_once() {
    let fake =
        Fake::start(|seen| if seen.header("authorization").is_some() { too_many() } else { basic() }).await;
    let store = client(quick(), Several(&["one", "two"])).registry(&fake.registry()).unwrap();
    let error = reader(&store).manifest(&tag("a")).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::RateLimited { .. }), "{error}");
    assert_eq!(fake.seen().len(), 3, "{:?}", fake.lines());
}

/// Keeps what it was asked.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<Purpose>>>);

type Purpose = (Option<String>, Option<Side>);

#[async_trait]
impl Credentials for Noting {
    async fn find(&self, asked: &Asked<'_>) -> Result<Vec<Credential>> {
        self.0.lock().unwrap().push((asked.repository.map(ToString::to_string), asked.side));
        Ok(vec![account(if asked.side == Some(Side::Target) { "two" } else { "one" })])
    }
}

#[tokio::test]
async fn each_side_has_accounts_of_its_own() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        Some(_) => Reply::new(200).header("content-length", 7),
        None => basic(),
    })
    .await;
    let noting = Noting::default();
    let client = client(quick(), noting.clone());
    for side in [Some(Side::Source), Some(Side::Target)] {
        let store = client.registry_for(&fake.registry(), Lane::Background, side).unwrap();
        let repository = store.repository(&Scope::Hosted, &name(NAME));
        repository.stat(&Digest::sha256(b"x")).await.unwrap();
    }
    let asked = noting.0.lock().unwrap().clone();
    assert_eq!(
        asked,
        [(Some(NAME.to_owned()), Some(Side::Source)), (Some(NAME.to_owned()), Some(Side::Target))]
    );
    let sent: Vec<Option<String>> =
        fake.seen().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    assert_eq!(sent, [None, Some(ONE.to_owned()), Some(TWO.to_owned())]);
}

#[tokio::test]
async fn a_login_is_looked_at_by_the_registry_or_by_its_token_server() {
    let with_basic =
        |seen: &Seen| if seen.header("authorization") == Some(ONE) { Reply::new(200) } else { basic() };
    let with_tokens = |seen: &Seen| match (seen.target.as_str(), seen.header("authorization")) {
        ("/token?service=s", Some(ONE)) => Reply::new(200).body(r#"{"token":"t"}"#),
        ("/v2/", Some("Bearer t")) => Reply::new(200),
        ("/v2/", _) => {
            let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", seen.host());
            Reply::new(401).header("www-authenticate", realm)
        }
        _ => Reply::new(401),
    };
    for fake in [Fake::start(with_basic).await, Fake::start(with_tokens).await] {
        let logged_in = client(quick(), Several(&["one"])).log_in(&fake.registry()).await;
        assert_eq!(logged_in.unwrap(), Login::Accepted);
        let refused = client(quick(), Several(&["two"])).log_in(&fake.registry()).await;
        assert_eq!(kind(refused), Kind::Unauthorized);
    }
    let open = Fake::start(|_| Reply::new(200)).await;
    let not_asked = client(quick(), Several(&["one"])).log_in(&open.registry()).await;
    assert_eq!(not_asked.unwrap(), Login::NotAsked);
}
