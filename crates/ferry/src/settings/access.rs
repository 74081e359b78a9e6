//! Who may use a registry.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ferry_oci::Registry;
use ferry_policy::access::{Action, Outlook, Place, Rule, Rules, Verdict};
use ferry_policy::upstream::Upstream;
use ferry_serve::{Mode, Policy, Users};

use super::Mirror;
use crate::config::{AccessConfig, AccessRule, Grants, Loaded, Login, OneOrMore, Otherwise, Parsed};

/// What a registry is called that has no name.
const SERVICE: &str = "ferry";
/// The directory of keys in a storage.
const KEYS: &str = "access-keys";

/// Who may use a registry.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) policy: Policy,
    /// The directory of keys, if it is not the usual one.
    keys: Option<PathBuf>,
}

impl Access {
    /// What is configured, with the users as their file has them now; `None` if nothing is. What is said of an upstream has to
    /// be of one that `mirror` has.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub(crate) fn new(loaded: &Loaded, mirror: Option<&Mirror>) -> anyhow::Result<Option<Self>> {
        let serve = loaded.config.serve.as_ref();
        let Some(config) = serve.and_then(|serve| serve.access.as_ref()) else { return Ok(None) };
        let domain = serve.and_then(|serve| serve.mirror.as_ref()?.domain.as_ref());
        let service = config.service.clone().or_else(|| domain.map(|domain| domain.value.to_string()));
        let within = || format!("{}: serve: access", loaded.name());
        let policy = policy(config, loaded, service.unwrap_or_else(|| SERVICE.to_owned()));
        let policy = policy.with_context(within)?;
        if let Some(mirror) = mirror {
            known(config, mirror).with_context(within)?;
        }
        Ok(Some(Self { policy, keys: config.keys.as_ref().map(|keys| loaded.resolve(keys)) }))
    }

    /// Where the keys are that tokens are signed with.
    pub(crate) fn keys(&self, storage: &Path) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| storage.join(KEYS))
    }

    /// Whether somebody may change something here who has not logged in.
    pub(crate) fn lets_strangers_write(&self) -> bool {
        [Action::Push, Action::Delete].into_iter().any(|action| self.strangers_could(None, action))
    }

    /// Whether somebody may read something of an upstream who has not logged in.
    pub(crate) fn lets_strangers_read(&self, upstream: &Registry) -> bool {
        self.strangers_could(Some(upstream), Action::Pull)
    }

    /// Whether nobody may pull anything who has not logged in: neither of what is mirrored nor of what was pushed here.
    pub(crate) fn asks_everybody(&self, mirror: Option<&Mirror>) -> bool {
        let upstreams = mirror.into_iter().flat_map(|mirror| mirror.addressing.upstreams().iter());
        let mut places = upstreams.map(|upstream| Some(&upstream.registry)).chain([None]);
        !places.any(|upstream| self.strangers_could(upstream, Action::Pull))
    }

    fn strangers_could(&self, upstream: Option<&Registry>, action: Action) -> bool {
        let upstream = upstream.map(Registry::as_str);
        self.policy.rules.could(&Outlook { user: None, address: None, upstream, action })
    }
}

fn policy(config: &AccessConfig, loaded: &Loaded, service: String) -> anyhow::Result<Policy> {
    let mode = match config.mode.unwrap_or(Login::Open) {
        Login::Open => Mode::Open,
        Login::Basic => Mode::Basic,
        Login::Token => Mode::Token,
    };
    let users = config.users.as_ref().map(|file| read_users(&loaded.resolve(file))).transpose();
    let users = users.context("users")?;
    if mode != Mode::Open && users.is_none() {
        bail!("users: a file of users is needed; ferry user add makes one");
    }
    let plain =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"\"\\".contains(c));
    if !plain(&service) {
        bail!("service: write a name without blanks and quotes");
    }
    if let Some(realm) = &config.realm
        && !(plain(realm) && (realm.starts_with("https://") || realm.starts_with("http://")))
    {
        bail!("realm: write a whole URL, as in https://cr.example.cn/token");
    }
    Ok(Policy {
        mode,
        users,
        rules: rules(config, mode)?,
        trusted_proxies: values(&config.trusted_proxies).map(|network| network.0).collect(),
        realm: config.realm.clone(),
        service,
    })
}

/// A rule for an upstream that is not there would never fit, and what it shall close would stay open. Patterns may be for what
/// comes later.
fn known(config: &AccessConfig, mirror: &Mirror) -> anyhow::Result<()> {
    let upstreams = mirror.addressing.upstreams();
    for (number, rule) in (1..).zip(&config.rules) {
        for place in values(&rule.upstreams) {
            let Place::Upstream(pattern) = place else { continue };
            let fits = |upstream: &Upstream| pattern.matches(upstream.registry.as_str());
            if !pattern.as_str().contains('*') && !upstreams.iter().any(fits) {
                bail!(
                    "rules: rule {number}: upstreams: {pattern}: it is none of the mirror's upstreams; add it there"
                );
            }
        }
    }
    Ok(())
}

fn read_users(file: &Path) -> anyhow::Result<Users> {
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {name}; ferry user add makes such a file"))?;
    Ok(Users::parse(&text, &name.to_string())?)
}

fn rules(config: &AccessConfig, mode: Mode) -> anyhow::Result<Rules> {
    let mut rules = Vec::new();
    for (number, written) in (1..).zip(&config.rules) {
        rules.push(rule(written).with_context(|| format!("rules: rule {number}"))?);
    }
    let usual = if mode == Mode::Open { Otherwise::Allow } else { Otherwise::Users };
    let last = match config.otherwise.unwrap_or(usual) {
        Otherwise::Allow => Verdict::Allow,
        Otherwise::Deny => Verdict::Deny(None),
        Otherwise::Users => {
            rules.push(Rule { users: vec!["**".parse()?], ..Rule::new(Verdict::Allow) });
            Verdict::Deny(None)
        }
    };
    Rules::new(rules, last).context("rules")
}

fn rule(written: &AccessRule) -> anyhow::Result<Rule> {
    let AccessRule { allow, privilege, deny, message, .. } = written;
    let (verdict, grants) = match (allow.0.as_slice(), privilege.0.as_slice(), deny.0.as_slice()) {
        (grants @ [_, ..], [], []) => (Verdict::Allow, grants),
        ([], grants @ [_, ..], []) => (Verdict::Privilege, grants),
        ([], [], grants @ [_, ..]) => (Verdict::Deny(message.clone()), grants),
        _ => bail!("exactly one of allow, privilege and deny is needed, as in allow: read"),
    };
    let denies = matches!(verdict, Verdict::Deny(_));
    if message.is_some() && !denies {
        bail!("message: only who is denied something is told why");
    }
    Ok(Rule {
        verdict,
        users: values(&written.users).cloned().collect(),
        addresses: values(&written.addresses).map(|network| network.0).collect(),
        places: values(&written.upstreams).cloned().collect(),
        repositories: values(&written.repositories).cloned().collect(),
        tags: values(&written.tags).cloned().collect(),
        platforms: values(&written.platforms).cloned().collect(),
        actions: actions(grants.iter().map(|grant| grant.value), denies),
    })
}

fn actions(grants: impl Iterator<Item = Grants>, denies: bool) -> Vec<Action> {
    grants.flat_map(|grant| if denies { grant.denied() } else { grant.allowed() }).copied().collect()
}

fn values<T>(list: &OneOrMore<Parsed<T>>) -> impl Iterator<Item = &T> {
    list.0.iter().map(|one| &one.value)
}

#[cfg(test)]
mod tests {
    use ferry_oci::{Name, Reference};
    use ferry_policy::access::{Decision, Question};

    use super::*;
    use crate::Environment;

    /// `secret`, with the least cost.
    const USERS: &str = "me:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

    fn access(text: &str) -> anyhow::Result<Option<Access>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        std::fs::write(directory.path().join("users"), USERS).unwrap();
        std::fs::write(directory.path().join("plain"), "me:hunter2\n").unwrap();
        std::fs::write(&path, format!("serve:\n  access: {text}\n  mirror: {{domain: cr.example.cn}}\n"))
            .unwrap();
        let loaded = Loaded::find(Some(&path), &Environment::default())?;
        Access::new(&loaded, Mirror::new(&loaded, false)?.as_ref())
    }

    fn of(text: &str) -> Access {
        access(text).unwrap().unwrap()
    }

    /// `yes`, `first`, or the message.
    fn ask(access: &Access, user: Option<&str>, image: &str, action: Action) -> String {
        let (repository, tag) = image.split_once(':').unwrap_or((image, "latest"));
        let reference = Reference::Tag(tag.parse().unwrap());
        let repository: Name = repository.parse().unwrap();
        let question = Question {
            user,
            address: "192.0.2.1".parse().unwrap(),
            upstream: None,
            repository: &repository,
            reference: Some(&reference),
            platform: None,
            action,
        };
        match access.policy.rules.decide(&question) {
            Decision::Allow => "yes".to_owned(),
            Decision::Privileged => "first".to_owned(),
            Decision::Deny(message) => message.to_owned(),
        }
    }

    #[test]
    fn without_rules_the_mode_decides_who_reads_and_nobody_writes() {
        assert!(Access::new(&Loaded::default(), None).unwrap().is_none());
        for (text, stranger, user) in [
            ("{}", true, true),
            ("{mode: open, otherwise: deny}", false, false),
            ("{mode: basic, users: users}", false, true),
            ("{mode: token, users: users}", false, true),
            ("{mode: token, users: users, otherwise: allow}", true, true),
            ("{users: users, otherwise: users}", false, true),
        ] {
            let access = of(text);
            for (who, expected) in [(None, stranger), (Some("me"), user)] {
                assert_eq!(ask(&access, who, "a", Action::Pull) == "yes", expected, "{text} {who:?}");
                assert_ne!(ask(&access, who, "a", Action::Push), "yes", "{text} {who:?}");
            }
            assert_eq!(access.lets_strangers_read(&"quay.io".parse().unwrap()), stranger);
            assert!(!access.lets_strangers_write());
            assert_eq!(access.policy.service, "cr.example.cn");
            assert_eq!(access.keys(Path::new("/s")), Path::new("/s/access-keys"));
        }
    }

    #[test]
    fn rules_are_read_as_people_write_them() {
        let access =
            of("{mode: token, users: users, service: here, keys: k, trusted_proxies: 10.0.0.0/8, rules: [\
             {deny: all, repositories: team/secret, message: not this one},\
             {allow: [push, delete], users: ci-*, upstreams: hosted, repositories: team/**},\
             {deny: push, users: '*'},\
             {privilege: read, repositories: base, tags: v*},\
             {allow: read, repositories: public/*}]}");
        for (user, image, action, expected) in [
            (Some("ci-1"), "team/secret", Action::Push, "not this one"),
            (None, "team/secret", Action::List, "not this one"),
            (Some("ci-1"), "team/app", Action::Push, "yes"),
            (Some("ci-1"), "team/app", Action::Pull, "yes"),
            (Some("ci-1"), "team/app", Action::Delete, "yes"),
            (None, "base:v1", Action::Pull, "first"),
            (None, "public/a", Action::Pull, "yes"),
            (Some("me"), "other", Action::Pull, "yes"),
        ] {
            assert_eq!(ask(&access, user, image, action), expected, "{user:?} {image} {action:?}");
        }
        for (user, image, action) in [
            (Some("me"), "team/app", Action::Push),
            (Some("ci-1"), "other", Action::Push),
            (None, "base:latest", Action::Pull),
            (None, "public/a", Action::Push),
        ] {
            let said = ask(&access, user, image, action);
            assert!(said.contains("do not allow"), "{user:?} {image} {action:?}: {said}");
        }
        assert!(!access.lets_strangers_write());
        assert_eq!((access.policy.service.as_str(), access.policy.trusted_proxies.len()), ("here", 1));
        assert!(access.keys(Path::new("/s")).ends_with("k"));
        assert!(of("{rules: [{allow: push, addresses: 10.0.0.0/8}]}").lets_strangers_write());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("{mode: basic}", "users: a file of users is needed"),
            ("{mode: token, users: none}", "none; ferry user add makes such a file"),
            ("{users: plain}", "plain:1"),
            ("{mode: digest}", "unknown variant"),
            ("{rules: [{users: a}]}", "rule 1: exactly one of allow, privilege and deny"),
            ("{rules: [{allow: read, deny: push}]}", "rule 1: exactly one of allow"),
            ("{rules: [{allow: read}, {allow: read, message: x}]}", "rule 2: message: only"),
            ("{rules: [{allow: pull}]}", "read, list, push, delete or all is needed"),
            ("{rules: [{allow: read, repositories: Team/*}]}", "lower case"),
            ("{rules: [{allow: read, addresses: 10.0.0.1/8}]}", "10.0.0.0/8, or the address alone"),
            (
                "{rules: [{deny: all, upstreams: [quay.io, hosted, '*.corp', r.corp]}]}",
                "rule 1: upstreams: r.corp: it is none of the mirror's upstreams",
            ),
            ("{realm: cr.example.cn}", "realm: write a whole URL"),
            ("{service: 'a b'}", "service: write a name"),
            ("{trusted_proxies: proxy}", "ADDRESS/BITS"),
        ] {
            let error = format!("{:#}", access(text).unwrap_err());
            assert!(error.contains(says) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
