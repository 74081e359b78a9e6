//! A registry that is not for everybody: who somebody is, and what they may.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_oci::{Registry, media_type, parse_challenges};
use ferry_policy::access::{Action, Rule, Rules, Verdict, network};
use ferry_policy::address::{Addressing, Front as Found};
use ferry_policy::pattern::Pattern;
use ferry_policy::upstream::{Upstream, Upstreams};
use ferry_serve::{Access, Front, Keys, Limits, Mirror, Mode, Policy, RegistryService, Users};
use ferry_store::{MemoryStore, Store};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Reply, Server};
use crate::mirror::{put, put_blob};

/// `secret`, with the least cost.
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// A registry that mirrors `quay.io` and has repositories below `team` of its own.
struct Guarded {
    server: Server,
    access: Arc<Access>,
    hosted: Arc<MemoryStore>,
    quay: Arc<MemoryStore>,
    time: Arc<AtomicU64>,
    directory: TempDir,
}

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// `secret/**` for `me` alone, everything else for everybody; `ci` pushes below `team`, where `team/secret` is closed.
fn rules() -> Rules {
    let closed = || Verdict::Deny(Some("this is closed".to_owned()));
    let all = vec![Action::Pull, Action::List, Action::Push, Action::Delete];
    let rules = vec![
        Rule {
            repositories: patterns(&["secret/**"]),
            users: patterns(&["me"]),
            ..Rule::new(Verdict::Allow)
        },
        Rule { repositories: patterns(&["secret/**", "team/secret"]), ..Rule::new(closed()) },
        Rule {
            repositories: patterns(&["team/**"]),
            users: patterns(&["ci"]),
            actions: all,
            ..Rule::new(Verdict::Allow)
        },
        Rule {
            repositories: patterns(&["**"]),
            platforms: patterns(&["linux/s390x"]),
            ..Rule::new(closed())
        },
        Rule { repositories: patterns(&["fast"]), ..Rule::new(Verdict::Privilege) },
    ];
    Rules::new(rules, Verdict::Allow).unwrap()
}

fn for_users() -> Rules {
    let users = Rule { users: patterns(&["**"]), ..Rule::new(Verdict::Allow) };
    Rules::new(vec![users], Verdict::Deny(None)).unwrap()
}

fn users(names: &[&str]) -> Option<Users> {
    let lines: String = names.iter().map(|name| format!("{name}:{HASH}\n")).collect();
    Some(Users::parse(&lines, "users").unwrap())
}

fn policy(mode: Mode, rules: Rules) -> Policy {
    Policy {
        mode,
        users: users(&["me", "ci"]),
        rules,
        trusted_proxies: vec![],
        realm: None,
        service: "cr.test".to_owned(),
    }
}

impl Guarded {
    async fn new(mode: Mode, rules: Rules) -> Self {
        Self::with(policy(mode, rules)).await
    }

    async fn with(policy: Policy) -> Self {
        let [hosted, quay] = [(); 2].map(|()| Arc::new(MemoryStore::new()));
        let registry: Registry = "quay.io".parse().unwrap();
        let upstream = Upstream { aliases: vec!["quay".parse().unwrap()], ..Upstream::new(registry) };
        let upstreams = Upstreams::new(vec![upstream]).unwrap();
        let front = Found {
            domain: Some("cr.example.cn".parse().unwrap()),
            hosted: patterns(&["team/**"]),
            ..Found::default()
        };
        let behind = Arc::clone(&quay);
        let mirror = Mirror::new(Addressing::new(upstreams, front).unwrap(), |_| {
            Ok::<_, Infallible>(Arc::clone(&behind) as Arc<dyn Store>)
        });
        let (directory, time) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(1_800_000_000)));
        let access = Arc::new(Access::new(policy, keys(directory.path().join("keys"), &time)));
        let service = RegistryService::new(hosted.clone()).mirroring(mirror.unwrap());
        let front = Front::new(service).guarded(Arc::clone(&access));
        let server = Server::of(front, Limits::default()).await;
        Self { server, access, hosted, quay, time, directory }
    }

    /// Asks with these in `Authorization`.
    async fn ask(&self, line: &str, shown: &str) -> Reply {
        let headers = [("authorization", shown)];
        self.server.send(line, if shown.is_empty() { &[] } else { &headers }, b"").await
    }

    async fn status(&self, line: &str, shown: &str) -> u16 {
        self.ask(line, shown).await.status
    }

    /// A token as `query` asks for it.
    async fn token(&self, query: &str, shown: &str) -> String {
        let reply = self.ask(&format!("GET /token?{query}"), shown).await;
        assert_eq!(reply.status, 200, "{query}: {reply:?}");
        format!("Bearer {}", json(&reply)["token"].as_str().unwrap())
    }

    async fn post(&self, form: &str) -> Reply {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.server.send("POST /token", &kind, form.as_bytes()).await
    }
}

fn keys(directory: PathBuf, time: &Arc<AtomicU64>) -> Keys {
    let time = Arc::clone(time);
    Keys::new(directory, Arc::new(move || UNIX_EPOCH + Duration::from_secs(time.load(Ordering::Relaxed))))
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

/// Scheme and parameters of the challenge.
fn challenge(reply: &Reply) -> String {
    let challenges = parse_challenges(reply.header("www-authenticate")).unwrap();
    let [challenge] = challenges.as_slice() else { panic!("{reply:?}") };
    let mut said = challenge.scheme.clone();
    for name in ["realm", "service", "scope", "error"] {
        said += &challenge.param(name).map(|value| format!(" {name}={value}")).unwrap_or_default();
    }
    said
}

#[tokio::test]
async fn passwords_open_what_is_for_users() {
    let at = Guarded::new(Mode::Basic, for_users()).await;
    put(&at.quay, "a/b", "one", &["v1"]).await;
    let manifest = "GET /v2/quay.io/a/b/manifests/v1";
    for line in [
        "GET /v2/",
        manifest,
        "GET /v2/_catalog",
        "GET /v2/unknown.example/a/tags/list",
        "PUT /v2/A/manifests/!",
    ] {
        let refused = at.ask(line, "").await;
        assert_eq!((refused.status, refused.code().as_str()), (401, "UNAUTHORIZED"), "{line}");
        assert_eq!(challenge(&refused), "basic realm=cr.test", "{line}");
    }
    let me = basic("me", "secret");
    for line in ["GET /v2/", "HEAD /v2/", manifest, "GET /v2/_catalog"] {
        assert_eq!(at.status(line, &me).await, 200, "{line}");
        assert_eq!(at.status(line, &me.replacen("Basic", "BASIC", 1)).await, 200, "{line}");
    }
    for wrong in [
        basic("me", "Secret"),
        basic("you", "secret"),
        basic("", ""),
        "Basic !".to_owned(),
        "Bearer x".to_owned(),
        "x".to_owned(),
    ] {
        let refused = at.ask("GET /v2/", &wrong).await;
        assert_eq!((refused.status, challenge(&refused).as_str()), (401, "basic realm=cr.test"), "{wrong}");
    }
    assert_eq!(at.status("GET /token", &me).await, 404, "there are no tokens here");
    let push = at.ask("POST /v2/team/a/blobs/uploads/", &me).await;
    assert_eq!((push.status, push.code().as_str()), (403, "DENIED"));
    assert_eq!(at.server.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn who_is_open_asks_only_where_a_login_helps() {
    let at = Guarded::new(Mode::Open, rules()).await;
    put(&at.quay, "secret/a", "one", &["v1"]).await;
    put(&at.quay, "a", "two", &["v1"]).await;
    assert_eq!(at.status("GET /v2/", "").await, 200);
    assert_eq!(at.status("GET /v2/quay.io/a/manifests/v1", "").await, 200);
    let refused = at.ask("GET /v2/quay.io/secret/a/manifests/v1", "").await;
    assert_eq!((refused.status, challenge(&refused).as_str()), (401, "basic realm=cr.test"));
    assert_eq!(at.status("GET /v2/quay.io/secret/a/manifests/v1", &basic("me", "secret")).await, 200);
    let denied = at.ask("GET /v2/quay.io/secret/a/manifests/v1", &basic("ci", "secret")).await;
    assert_eq!((denied.status, denied.code().as_str()), (403, "DENIED"));
    assert!(String::from_utf8(denied.body).unwrap().contains("this is closed"));
    assert_eq!(at.status("GET /v2/quay.io/a/manifests/v1", &basic("me", "wrong")).await, 401);
    assert_eq!(at.status("GET /v2/team/secret/tags/list", "").await, 403, "a login does not help");
    // Without users nobody can be right, so what clients show is not looked at.
    at.access.replace(Policy { users: None, ..policy(Mode::Open, rules()) });
    assert_eq!(at.status("GET /v2/quay.io/a/manifests/v1", &basic("me", "wrong")).await, 200);
    assert_eq!(at.status("GET /v2/quay.io/secret/a/manifests/v1", &basic("me", "secret")).await, 403);
}

/// Rule 7 of the design, as rules close a repository: cached, in flight (nothing of it is asked for), and by mount.
#[tokio::test]
async fn a_digest_opens_nothing() {
    let at = Guarded::new(Mode::Basic, rules()).await;
    let digest = put_blob(&at.quay, "secret/a", b"private").await;
    let own = put_blob(&at.hosted, "team/secret", b"private").await;
    let open = put_blob(&at.hosted, "team/app", b"open").await;
    let ci = basic("ci", "secret");
    for (who, status) in [("", 401), (&*ci, 403), (&*basic("me", "secret"), 200)] {
        for method in ["GET", "HEAD"] {
            let line = format!("{method} /v2/quay.io/secret/a/blobs/{digest}");
            assert_eq!(at.status(&line, who).await, status, "{line} {who}");
        }
    }
    assert_eq!(at.status(&format!("GET /v2/quay.io/other/blobs/{digest}"), &ci).await, 404);
    assert_eq!(at.status(&format!("GET /v2/team/app/blobs/{own}"), &ci).await, 404);
    for (digest, from, status) in [
        (own, "&from=team/secret", 202),
        (own, "", 202),
        (open, "", 202),
        (open, "&from=team/app", 201),
        (digest, "&from=quay.io/secret/a", 202),
    ] {
        let line = format!("POST /v2/team/new/blobs/uploads/?mount={digest}{from}");
        assert_eq!(at.status(&line, &ci).await, status, "{from}");
        assert_eq!(at.status(&line, "").await, 401, "{from}");
    }
}

#[tokio::test]
async fn listings_show_what_may_be_seen() {
    let at = Guarded::new(Mode::Open, rules()).await;
    for name in ["team/a", "team/secret", "team/z"] {
        put(&at.hosted, name, name, &["x"]).await;
    }
    assert_eq!(at.ask("GET /v2/_catalog", "").await.body, br#"{"repositories":["team/a","team/z"]}"#);
    let first = at.ask("GET /v2/_catalog?n=1", "").await;
    assert_eq!(first.body, br#"{"repositories":["team/a"]}"#);
    let next = first.header("link").split(['<', '>']).nth(1).unwrap().to_owned();
    assert_eq!(
        at.server.get(&next).await.body,
        br#"{"repositories":["team/z"]}"#,
        "what is hidden ends nothing"
    );
    assert_eq!(at.status("GET /v2/team/secret/tags/list", "").await, 403);
    at.access.replace(policy(Mode::Token, for_users()));
    let refused = at.ask("GET /v2/_catalog", "").await;
    assert!(challenge(&refused).ends_with("scope=registry:catalog:*"), "{refused:?}");
    let me = basic("me", "secret");
    let token = at.token("scope=registry:catalog:*", &me).await;
    assert_eq!(at.status("GET /v2/_catalog", &token).await, 200);
    let other = at.ask("GET /v2/_catalog", &at.token("scope=repository:team/a:pull", &me).await).await;
    assert!(challenge(&other).ends_with("error=insufficient_scope"), "{other:?}");
}

#[tokio::test]
async fn tags_of_a_push_are_asked_about_one_by_one() {
    let all = vec![Action::Pull, Action::Push];
    let released =
        Rule { tags: patterns(&["v*"]), actions: vec![Action::Push], ..Rule::new(Verdict::Deny(None)) };
    let rules = vec![released, Rule { actions: all, ..Rule::new(Verdict::Allow) }];
    let at = Guarded::new(Mode::Open, Rules::new(rules, Verdict::Allow).unwrap()).await;
    let manifest = br#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = ferry_oci::Digest::sha256(manifest);
    for (target, status) in [
        ("latest".to_owned(), 201),
        ("v1".to_owned(), 403),
        (format!("{digest}?tag=latest"), 201),
        (format!("{digest}?tag=latest&tag=v1"), 403),
    ] {
        let kind = [("content-type", media_type::OCI_INDEX)];
        let line = format!("PUT /v2/team/a/manifests/{target}");
        assert_eq!(at.server.send(&line, &kind, manifest).await.status, status, "{target}");
    }
    assert_eq!(at.status("GET /v2/team/a/manifests/v1", "").await, 404, "nothing was set");
}

#[tokio::test]
async fn a_platform_that_an_index_named_can_be_closed() {
    let at = Guarded::new(Mode::Open, rules()).await;
    let [one, other] = [put(&at.quay, "a", "s390x", &["x"]).await, put(&at.quay, "a", "amd64", &["y"]).await];
    let child = |digest, architecture| {
        format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            media_type::OCI_INDEX
        )
    };
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, child(one, "s390x"), child(other, "amd64"));
    let index = ferry_oci::Manifest::parse(Some(media_type::OCI_INDEX), index.into()).unwrap();
    let repository = at.quay.writable(&ferry_store::Scope::Hosted, &"a".parse().unwrap()).unwrap();
    repository.put_manifest(&index, Some(&"v1".parse().unwrap())).await.unwrap();
    let [one, other] = [one, other].map(|digest| format!("GET /v2/quay.io/a/manifests/{digest}"));
    assert_eq!(at.status(&one, "").await, 200, "nobody has said of which platform it is");
    let whole = at.ask("GET /v2/quay.io/a/manifests/v1", "").await;
    assert_eq!((whole.status, whole.body.as_slice()), (200, index.bytes().as_ref()));
    assert_eq!(at.status(&one, "").await, 403);
    assert_eq!(at.status(&other, "").await, 200);
}

#[tokio::test]
async fn tokens_are_given_as_clients_ask_for_them() {
    let at = Guarded::new(Mode::Token, rules()).await;
    put(&at.quay, "secret/a", "one", &["v1"]).await;
    put(&at.quay, "a", "two", &["v1"]).await;
    let ping = at.ask("GET /v2/", "").await;
    assert_eq!(
        (ping.status, challenge(&ping).as_str()),
        (401, "bearer realm=http://x/token service=cr.test")
    );
    let line = "GET /v2/quay.io/secret/a/manifests/v1";
    let refused = at.ask(line, "").await;
    assert_eq!(
        challenge(&refused),
        "bearer realm=http://x/token service=cr.test scope=repository:quay.io/secret/a:pull"
    );
    let push = at.ask("POST /v2/team/a/blobs/uploads/", "").await;
    assert!(challenge(&push).ends_with("scope=repository:team/a:pull,push"), "{push:?}");

    let me = basic("me", "secret");
    let scope = "service=cr.test&scope=repository:quay.io/secret/a:pull&scope=repository:quay.io/a:pull%20repository:team/a:pull,push";
    let token = at.token(scope, &me).await;
    for (line, status) in [
        (line, 200),
        ("GET /v2/quay.io/a/manifests/v1", 200),
        ("GET /v2/", 200),
        // The rules are asked all the same.
        ("POST /v2/team/a/blobs/uploads/", 403),
    ] {
        assert_eq!(at.status(line, &token).await, status, "{line}");
    }
    let outside = at.ask("GET /v2/quay.io/b/manifests/v1", &token).await;
    assert_eq!(outside.status, 401);
    assert!(
        challenge(&outside).ends_with("scope=repository:quay.io/b:pull error=insufficient_scope"),
        "{outside:?}"
    );

    // Strangers get one as well, and what they may with it.
    let nobody = at.token("scope=repository:quay.io/a:pull&scope=repository:quay.io/secret/a:pull", "").await;
    assert_eq!(at.status("GET /v2/", &nobody).await, 200);
    assert_eq!(at.status("GET /v2/quay.io/a/manifests/v1", &nobody).await, 200);
    let refused = at.ask(line, &nobody).await;
    assert!(challenge(&refused).ends_with("error=insufficient_scope"), "{refused:?}");
    assert_eq!(at.status(line, &basic("me", "secret")).await, 200, "passwords are taken too");

    let wrong = at.ask(&format!("GET /token?{scope}"), &basic("me", "wrong")).await;
    assert_eq!(
        (wrong.status, wrong.code().as_str(), challenge(&wrong).as_str()),
        (401, "UNAUTHORIZED", "basic realm=cr.test")
    );
    assert_eq!(at.status("GET /token", "Bearer x").await, 401);
    assert_eq!(at.status("PUT /token", &me).await, 405);
    at.access.replace(policy(Mode::Token, for_users()));
    assert_eq!(at.status(&format!("GET /token?{scope}"), "").await, 401, "strangers may nothing at all");
    assert_eq!(at.status("GET /v2/quay.io/a/manifests/v1", &nobody).await, 401);
}

#[tokio::test]
async fn the_answer_of_the_token_server() {
    let at = Guarded::new(Mode::Token, rules()).await;
    let reply = at.ask("GET /token?scope=repository:a:pull&account=me", &basic("me", "secret")).await;
    let given = json(&reply);
    assert_eq!(given["token"], given["access_token"]);
    assert_eq!(
        (given["expires_in"].as_u64(), given["issued_at"].as_str()),
        (Some(300), Some("2027-01-15T08:00:00Z"))
    );
    assert!(given.get("refresh_token").is_none());
    assert_eq!(
        (reply.header("cache-control"), reply.header("content-type")),
        ("no-store", "application/json")
    );
    let nobody = json(&at.ask("GET /token?offline_token=true", "").await);
    assert!(nobody.get("refresh_token").is_none(), "nobody cannot come back");

    let given = json(&at.ask("GET /token?offline_token=true", &basic("me", "secret")).await);
    let refresh = given["refresh_token"].as_str().unwrap().to_owned();
    let form = format!(
        "grant_type=refresh_token&refresh_token={refresh}&service=cr.test&client_id=docker&scope=repository%3Aquay.io%2Fsecret%2Fa%3Apull"
    );
    let token = json(&at.post(&form).await)["access_token"].as_str().unwrap().to_owned();
    assert_eq!(at.status("GET /v2/quay.io/secret/a/manifests/v1", &format!("Bearer {token}")).await, 404);
    let password = "grant_type=password&username=me&password=secret&access_type=offline&client_id=containerd&service=cr.test&scope=repository:a:pull+repository:b:pull";
    let given = json(&at.post(password).await);
    assert_eq!(given["scope"], "repository:a:pull repository:b:pull");
    assert!(given["refresh_token"].is_string());
    assert_eq!(
        at.status("GET /v2/", &format!("Bearer {}", given["access_token"].as_str().unwrap())).await,
        200
    );

    for (form, status) in [
        ("grant_type=password&username=me&password=wrong".to_owned(), 401),
        ("grant_type=password".to_owned(), 401),
        (format!("grant_type=refresh_token&refresh_token={token}"), 401),
        ("grant_type=refresh_token".to_owned(), 401),
        ("grant_type=magic".to_owned(), 400),
        (String::new(), 400),
        ("a".repeat(70_000), 413),
    ] {
        assert_eq!(at.post(&form).await.status, status, "{:.60}", form);
    }
    assert_eq!(
        at.status("GET /v2/", &format!("Bearer {refresh}")).await,
        401,
        "it is for the token server alone"
    );
}

#[tokio::test]
async fn worthless_tokens_are_refused() {
    let at = Guarded::new(Mode::Token, rules()).await;
    let me = basic("me", "secret");
    let (_, token) = at
        .token("scope=repository:quay.io/a:pull", &me)
        .await
        .split_once(' ')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let foreign =
        Guarded::new(Mode::Token, rules()).await.token("scope=repository:quay.io/a:pull", &me).await;
    let refused = async |text: &str, why: &str| {
        let reply = at.ask("GET /v2/", &format!("Bearer {text}")).await;
        assert_eq!(reply.status, 401, "{why}");
        assert!(challenge(&reply).ends_with("service=cr.test error=invalid_token"), "{why}: {reply:?}");
    };
    let good = async || at.status("GET /v2/", &format!("Bearer {token}")).await;
    assert_eq!(good().await, 200);
    refused(foreign.strip_prefix("Bearer ").unwrap(), "another server's key").await;
    refused(&token[..token.len() - 1], "truncated").await;
    refused(&format!("{}A{}", &token[..60], &token[61..]), "forged").await;
    refused(&format!("{token}{}", "A".repeat(20_000)), "oversized").await;
    refused("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJtZSJ9.", "without a signature").await;
    refused("../../etc/passwd", "no token").await;
    refused(".", "empty").await;

    // For another registry with the same keys.
    let shared = |service: &str| Policy { service: service.to_owned(), ..policy(Mode::Token, rules()) };
    at.access.replace(shared("other.test"));
    assert_eq!(good().await, 401);
    at.access.replace(shared("cr.test"));
    assert_eq!(good().await, 200);
    // The user is gone, or has another password.
    at.access.replace(Policy { users: users(&["ci"]), ..shared("cr.test") });
    refused(&token, "removed user").await;
    let changed =
        Users::parse(&format!("me:{}", ferry_serve::hash_password("new").unwrap()), "users").unwrap();
    at.access.replace(Policy { users: Some(changed), ..shared("cr.test") });
    refused(&token, "changed password").await;
    at.access.replace(shared("cr.test"));
    assert_eq!(good().await, 200);

    at.time.fetch_sub(120, Ordering::Relaxed);
    refused(&token, "not yet valid").await;
    at.time.fetch_add(120 + 299, Ordering::Relaxed);
    assert_eq!(good().await, 200);
    at.time.fetch_add(1, Ordering::Relaxed);
    refused(&token, "expired").await;
}

#[tokio::test]
async fn servers_share_keys_and_keys_change() {
    let at = Guarded::new(Mode::Token, rules()).await;
    let me = basic("me", "secret");
    let reply = json(&at.ask("GET /token?offline_token=true", &me).await);
    let refresh =
        format!("grant_type=refresh_token&refresh_token={}", reply["refresh_token"].as_str().unwrap());
    let keys_at = at.directory.path().join("keys");
    let second = Arc::new(Access::new(policy(Mode::Token, rules()), keys(keys_at.clone(), &at.time)));
    let front = Front::new(RegistryService::new(Arc::new(MemoryStore::new()))).guarded(second);
    let other = Server::of(front, Limits::default()).await;
    let shown = format!("Bearer {}", reply["token"].as_str().unwrap());
    assert_eq!(other.send("GET /v2/", &[("authorization", &shown)], b"").await.status, 200);
    let files = || std::fs::read_dir(&keys_at).unwrap().count();
    assert_eq!(files(), 1);
    at.time.fetch_add(2 * 24 * 60 * 60, Ordering::Relaxed);
    let renewed = at.post(&refresh).await;
    assert_eq!((renewed.status, files()), (200, 2), "signed with a new key, got with an old one");
    let shown = format!("Bearer {}", json(&renewed)["token"].as_str().unwrap());
    assert_eq!(other.send("GET /v2/", &[("authorization", &shown)], b"").await.status, 200);
    at.time.fetch_add(30 * 24 * 60 * 60, Ordering::Relaxed);
    assert_eq!(at.post(&refresh).await.status, 401);
}

#[tokio::test]
async fn proxies_say_where_clients_come_from_and_what_they_asked() {
    let near = Rule { addresses: vec![network("192.0.2.0/24").unwrap()], ..Rule::new(Verdict::Allow) };
    let rules = || Rules::new(vec![near.clone()], Verdict::Deny(None)).unwrap();
    let trusting =
        Policy { trusted_proxies: vec![network("127.0.0.0/8").unwrap()], ..policy(Mode::Token, rules()) };
    let at = Guarded::with(trusting).await;
    put(&at.quay, "a", "two", &["v1"]).await;
    let ask =
        async |headers: &[(&str, &str)]| at.server.send("GET /v2/quay.io/a/manifests/v1", headers, b"").await;
    assert_eq!(ask(&[("x-forwarded-for", "192.0.2.7")]).await.status, 200);
    assert_eq!(ask(&[("forwarded", "for=192.0.2.7")]).await.status, 200);
    assert_eq!(ask(&[("x-forwarded-for", "192.0.2.7, 198.51.100.1")]).await.status, 401);
    let outside = [
        ("x-forwarded-for", "198.51.100.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "cr.example.cn:8443"),
    ];
    let ping = at.server.send("GET /v2/", &outside, b"").await;
    assert_eq!(challenge(&ping), "bearer realm=https://cr.example.cn:8443/token service=cr.test");
    at.access.replace(policy(Mode::Token, rules()));
    assert_eq!(ask(&[("x-forwarded-for", "192.0.2.7")]).await.status, 401);
    let ping = at.server.send("GET /v2/", &outside, b"").await;
    assert_eq!(challenge(&ping), "bearer realm=http://x/token service=cr.test");
    let realm = Some("https://auth.example.cn/token".to_owned());
    at.access.replace(Policy { realm, ..policy(Mode::Token, rules()) });
    let ping = at.server.send("GET /v2/", &[("host", "a\"b")], b"").await;
    assert_eq!(challenge(&ping), "bearer realm=https://auth.example.cn/token service=cr.test");
}

/// An alias host that only the proxy was asked for.
#[tokio::test]
async fn a_forwarded_host_decides_whose_repository_is_meant() {
    let open = Policy { trusted_proxies: vec![network("127.0.0.1").unwrap()], ..policy(Mode::Open, rules()) };
    let at = Guarded::with(open).await;
    put(&at.quay, "a/b", "one", &["v1"]).await;
    let headers = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-host", "quay.cr.example.cn")];
    let line = "GET /v2/a/b/manifests/v1";
    let with_alias = at.server.send(line, &headers, b"").await;
    let without = at.server.send(line, &headers[..1], b"").await;
    let absolute = at.server.send("GET http://127.0.0.1/v2/a/b/manifests/v1", &headers, b"").await;
    assert_eq!((with_alias.status, without.status, absolute.status), (200, 404, 200), "{with_alias:?}");
}
