//! A registry that is not for everybody, for tests.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_oci::{Registry, parse_challenges};
use ferry_policy::access::{Action, Rule, Rules, Verdict};
use ferry_policy::address::{Addressing, Front as Found};
use ferry_policy::pattern::Pattern;
use ferry_policy::upstream::{Upstream, Upstreams};
use ferry_serve::{Access, Front, Keys, Limits, Live, Mirror, Mode, Policy, RegistryService, Users};
use ferry_store::{MemoryStore, Store};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Reply, Server};

/// `secret`, with the least cost.
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// A registry that mirrors `quay.io` and has repositories below `team` of its own.
pub struct Guarded {
    pub server: Server,
    front: Live<Front>,
    service: RegistryService,
    access: Access,
    pub hosted: Arc<MemoryStore>,
    pub quay: Arc<MemoryStore>,
    pub time: Arc<AtomicU64>,
    pub directory: TempDir,
}

pub fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// `secret/**` for `me` alone, everything else for everybody; `ci` pushes below `team`, where `team/secret` is closed.
pub fn rules() -> Rules {
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

pub fn for_users() -> Rules {
    let users = Rule { users: patterns(&["**"]), ..Rule::new(Verdict::Allow) };
    Rules::new(vec![users], Verdict::Deny(None)).unwrap()
}

pub fn users(names: &[&str]) -> Option<Users> {
    let lines: String = names.iter().map(|name| format!("{name}:{HASH}\n")).collect();
    Some(Users::parse(&lines, "users").unwrap())
}

pub fn policy(mode: Mode, rules: Rules) -> Policy {
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
    pub async fn new(mode: Mode, rules: Rules) -> Self {
        Self::with(policy(mode, rules)).await
    }

    pub async fn with(policy: Policy) -> Self {
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
        let access = Access::new(policy.clone(), keys(directory.path().join("keys"), &time));
        let service = RegistryService::new(hosted.clone()).mirroring(mirror.unwrap());
        let front = Front::new(service.clone()).guarded(Arc::new(access.with(policy)));
        let front = Live::new(front);
        let server = Server::of(front.clone(), Limits::default()).await;
        Self { server, front, service, access, hosted, quay, time, directory }
    }

    /// Goes by this policy from now on.
    pub fn replace(&self, policy: Policy) {
        let access = Arc::new(self.access.with(policy));
        self.front.replace(Front::new(self.service.clone()).guarded(access));
    }

    /// Asks with these in `Authorization`.
    pub async fn ask(&self, line: &str, shown: &str) -> Reply {
        let headers = [("authorization", shown)];
        self.server.send(line, if shown.is_empty() { &[] } else { &headers }, b"").await
    }

    pub async fn status(&self, line: &str, shown: &str) -> u16 {
        self.ask(line, shown).await.status
    }

    /// A token as `query` asks for it.
    pub async fn token(&self, query: &str, shown: &str) -> String {
        let reply = self.ask(&format!("GET /token?{query}"), shown).await;
        assert_eq!(reply.status, 200, "{query}: {reply:?}");
        format!("Bearer {}", json(&reply)["token"].as_str().unwrap())
    }

    pub async fn post(&self, form: &str) -> Reply {
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        self.server.send("POST /token", &kind, form.as_bytes()).await
    }
}

pub fn keys(directory: PathBuf, time: &Arc<AtomicU64>) -> Keys {
    let time = Arc::clone(time);
    Keys::new(directory, Arc::new(move || UNIX_EPOCH + Duration::from_secs(time.load(Ordering::Relaxed))))
}

pub fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

pub fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

/// Scheme and parameters of the challenge.
pub fn challenge(reply: &Reply) -> String {
    let challenges = parse_challenges(reply.header("www-authenticate")).unwrap();
    let [challenge] = challenges.as_slice() else { panic!("{reply:?}") };
    let mut said = challenge.scheme.clone();
    for name in ["realm", "service", "scope", "error"] {
        said += &challenge.param(name).map(|value| format!(" {name}={value}")).unwrap_or_default();
    }
    said
}
