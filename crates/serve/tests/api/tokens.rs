//! Tokens: how they are got, what they open, and which are worthless.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ferry_serve::{Access, Front, Limits, Mode, Policy, RegistryService, Users};
use ferry_store::MemoryStore;

use crate::client::Server;
use crate::guarded::{Guarded, basic, challenge, for_users, json, keys, policy, rules, users};
use crate::mirror::put;

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
    at.replace(policy(Mode::Token, for_users()));
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
    let renewed = json(&at.post(&format!("{form}&access_type=offline")).await);
    assert!(renewed["access_token"].is_string() && renewed.get("refresh_token").is_none(), "{renewed}");
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
    at.replace(shared("other.test"));
    assert_eq!(good().await, 401);
    at.replace(shared("cr.test"));
    assert_eq!(good().await, 200);
    // The user is gone, or has another password.
    at.replace(Policy { users: users(&["ci"]), ..shared("cr.test") });
    refused(&token, "removed user").await;
    let changed =
        Users::parse(&format!("me:{}", ferry_serve::hash_password("new").unwrap()), "users").unwrap();
    at.replace(Policy { users: Some(changed), ..shared("cr.test") });
    refused(&token, "changed password").await;
    at.replace(shared("cr.test"));
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
