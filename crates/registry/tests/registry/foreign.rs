//! A registry that only points at another one, which wants a token (`cr.l5d.io` and `ghcr.io`).

use ferry_oci::Digest;
use ferry_store::{ByteRange, Kind};

use crate::fake::{Fake, Reply, Seen};
use crate::support::*;

const BODY: &[u8] = b"content of a blob";

/// Wants a token for `real/app`, and has one blob.
fn guarded(seen: &Seen) -> Reply {
    let target = seen.target.as_str();
    match seen.header("authorization") {
        _ if target == "/token?service=real&scope=repository%3Areal%2Fapp%3Apull" => {
            Reply::new(200).body(r#"{"token":"t"}"#)
        }
        Some("Bearer t") => Reply::new(200).body(BODY),
        _ => {
            // The scope of a challenge may be a placeholder.
            let scope = "repository:user/image:pull";
            let realm = format!("http://{}/token", seen.host());
            let challenge = format!("Bearer realm=\"{realm}\",service=\"real\",scope=\"{scope}\"");
            Reply::new(401).header("www-authenticate", challenge)
        }
    }
}

async fn vanity(of: &Fake) -> Fake {
    let real = of.address;
    Fake::start(move |seen| {
        let target = seen.target.replace("team/app", "real/app");
        Reply::new(307).header("location", format!("http://{real}{target}"))
    })
    .await
}

#[tokio::test]
async fn the_challenge_is_answered_where_it_comes_from_and_by_nobody_in_particular() {
    let real = Fake::start(guarded).await;
    let vanity = vanity(&real).await;
    let store = client(quick(), password("me", "hunter2")).registry(&vanity.registry()).unwrap();
    for _ in 0..2 {
        let blob = reader(&store).blob(&Digest::sha256(BODY), ByteRange::ALL).await.unwrap();
        assert_eq!(blob.into_bytes().await.unwrap(), BODY);
    }
    assert_eq!(real.count("/token"), 1, "{:?}", real.lines());
    for seen in real.seen().iter().chain(&vanity.seen()) {
        let sent = seen.header("authorization").unwrap_or_default();
        assert!(!sent.starts_with("Basic"), "{}", seen.line());
    }
    assert!(vanity.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test]
async fn what_is_private_there_stays_private() {
    let real = Fake::start(|seen| match seen.target.starts_with("/token") {
        true => Reply::new(200).body(r#"{"token":"powerless"}"#),
        false => Reply::new(401)
            .header("www-authenticate", format!("Bearer realm=\"http://{}/token\"", seen.host())),
    })
    .await;
    let vanity = vanity(&real).await;
    let store = client(quick(), password("me", "hunter2")).registry(&vanity.registry()).unwrap();
    assert_eq!(kind(reader(&store).manifest(&tag("t")).await), Kind::Unauthorized);
    assert!(real.seen().len() <= 3, "that is final: {:?}", real.lines());
}
