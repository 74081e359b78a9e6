//! A registry that is not for everybody: who somebody is, and what they may.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ferry_oci::media_type;
use ferry_policy::access::{Action, Rule, Rules, Verdict, network};
use ferry_serve::{
    Access, Caller, Front, Handler, Limits, Mode, Policy, RegistryService, ResponseBody, Served,
};
use ferry_store::{MemoryStore, Store};
use http::{Request, Response};
use hyper::body::Incoming;

use crate::client::Server;
use crate::guarded::{Guarded, basic, challenge, for_users, keys, patterns, policy, rules};
use crate::mirror::{put, put_blob};

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
    at.replace(Policy { users: None, ..policy(Mode::Open, rules()) });
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
    at.replace(policy(Mode::Token, for_users()));
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

/// Keeps what a handler says of its answers.
#[derive(Clone)]
struct Kept(Front, Arc<Mutex<Vec<String>>>);

impl Handler for Kept {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let response = self.0.handle(request).await;
        let user = response.extensions().get::<Caller>().and_then(|caller| caller.user.clone());
        let privileged = response.extensions().get::<Served>().map(|served| served.privileged);
        let status = response.status().as_u16();
        self.1.lock().unwrap().push(format!("{status} {} {privileged:?}", user.as_deref().unwrap_or("-")));
        response
    }
}

#[tokio::test]
async fn answers_tell_who_asked_and_who_comes_first() {
    let access = Access::new(policy(Mode::Open, rules()), keys(PathBuf::new(), &Arc::default()));
    let hosted = Arc::new(MemoryStore::new());
    for name in ["fast", "slow"] {
        put(&hosted, name, name, &["x"]).await;
    }
    let front = Front::new(RegistryService::new(hosted)).guarded(Arc::new(access));
    let kept = Arc::new(Mutex::new(Vec::new()));
    let server = Server::of(Kept(front, Arc::clone(&kept)), Limits::default()).await;
    for (name, shown) in [
        ("fast", basic("me", "secret")),
        ("slow", basic("me", "secret")),
        ("fast", "Basic !".to_owned()),
        ("secret/a", basic("ci", "secret")),
    ] {
        let line = format!("GET /v2/{name}/manifests/x");
        server.send(&line, &[("authorization", &shown)], b"").await;
    }
    server.get("/v2/fast/manifests/x").await;
    let expected =
        ["200 me Some(true)", "200 me Some(false)", "401 - None", "403 ci Some(false)", "200 - Some(true)"];
    assert_eq!(*kept.lock().unwrap(), expected);
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
    at.replace(policy(Mode::Token, rules()));
    assert_eq!(ask(&[("x-forwarded-for", "192.0.2.7")]).await.status, 401);
    let ping = at.server.send("GET /v2/", &outside, b"").await;
    assert_eq!(challenge(&ping), "bearer realm=http://x/token service=cr.test");
    let realm = Some("https://auth.example.cn/token".to_owned());
    at.replace(Policy { realm, ..policy(Mode::Token, rules()) });
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
