use ferry_oci::Digest;
use proptest::prelude::*;

use super::*;
use crate::pattern::Pattern;

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn places(texts: &[&str]) -> Vec<Place> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn deny(message: &str) -> Rule {
    Rule::new(Verdict::Deny(Some(message.to_owned())))
}

fn allow() -> Rule {
    Rule::new(Verdict::Allow)
}

fn closed(rules: Vec<Rule>) -> Rules {
    Rules::new(rules, Verdict::Deny(None)).unwrap()
}

fn open(rules: Vec<Rule>) -> Rules {
    Rules::new(rules, Verdict::Allow).unwrap()
}

/// A question as a line: `USER ADDRESS IMAGE ACTION`, where an image is `UPSTREAM/REPOSITORY[:TAG]` or, of a digest,
/// `…@`, `-` stands for nobody and `hosted` for no upstream.
fn ask(rules: &Rules, line: &str) -> String {
    ask_of(rules, line, None)
}

fn ask_of(rules: &Rules, line: &str, platform: Option<&Platform>) -> String {
    let [user, address, image, action] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    let (upstream, rest) = image.split_once('/').unwrap();
    let (repository, reference) = match (rest.split_once(':'), rest.strip_suffix('@')) {
        (Some((repository, tag)), _) => (repository, Some(Reference::Tag(tag.parse().unwrap()))),
        (None, Some(repository)) => (repository, Some(Reference::Digest(Digest::sha256(b"")))),
        (None, None) => (rest, None),
    };
    let question = Question {
        user: (user != "-").then_some(user),
        address: address.parse().unwrap(),
        upstream: (upstream != "hosted").then_some(upstream),
        repository: &repository.parse().unwrap(),
        reference: reference.as_ref(),
        platform,
        action: match action {
            "pull" => Action::Pull,
            "push" => Action::Push,
            "delete" => Action::Delete,
            "list" => Action::List,
            other => panic!("{other}"),
        },
    };
    match rules.decide(&question) {
        Decision::Allow => "yes".to_owned(),
        Decision::Privileged => "first".to_owned(),
        Decision::Deny(message) => message.to_owned(),
    }
}

fn check(rules: &Rules, table: &[(&str, &str)]) {
    for (line, expected) in table {
        assert_eq!(ask(rules, line), *expected, "{line}");
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = closed(vec![
        Rule { repositories: patterns(&["library/secret"]), ..deny("not this one") },
        Rule { places: places(&["index.docker.io"]), repositories: patterns(&["library/*"]), ..allow() },
        Rule { places: places(&["docker.io"]), ..deny("official images alone") },
        Rule { places: places(&["*.GCR.io", "gcr.io"]), ..allow() },
    ]);
    check(
        &rules,
        &[
            ("- 192.0.2.1 docker.io/library/alpine:3 pull", "yes"),
            ("- 192.0.2.1 docker.io/library/secret:3 pull", "not this one"),
            ("- 192.0.2.1 docker.io/evil/alpine:3 pull", "official images alone"),
            ("- 192.0.2.1 k8s.gcr.io/pause:3 pull", "yes"),
            ("- 192.0.2.1 gcr.io/a/b/c list", "yes"),
            ("- 192.0.2.1 quay.io/a/b:1 pull", DENIED),
            ("- 192.0.2.1 hosted/library/alpine:3 pull", DENIED),
        ],
    );
}

#[test]
fn what_allows_without_naming_actions_allows_reading() {
    let team = Rule { users: patterns(&["ci-*"]), places: places(&["hosted"]), ..allow() };
    let write = Rule { actions: vec![Action::Push], ..team.clone() };
    let rules = open(vec![team, write, Rule { repositories: patterns(&["closed/**"]), ..deny("closed") }]);
    check(
        &rules,
        &[
            ("ci-1 192.0.2.1 hosted/closed/app:1 pull", "yes"),
            ("ci-1 192.0.2.1 hosted/closed/app:1 push", "yes"),
            ("ci-1 192.0.2.1 hosted/closed/app:1 delete", "closed"),
            ("ci-1 192.0.2.1 hosted/team/app:1 delete", DENIED),
            ("ci-1 192.0.2.1 quay.io/team/app:1 push", DENIED),
            ("bob 192.0.2.1 hosted/team/app:1 pull", "yes"),
            ("bob 192.0.2.1 hosted/team/app:1 push", DENIED),
            ("bob 192.0.2.1 hosted/closed/app push", "closed"),
            ("- 192.0.2.1 hosted/closed/app list", "closed"),
        ],
    );
    let silent = Rules::new(Vec::new(), Verdict::Deny(Some("ask us".to_owned()))).unwrap();
    check(&silent, &[("- ::1 hosted/a:1 pull", "ask us"), ("- ::1 hosted/a:1 push", "ask us")]);
}

#[test]
fn users_are_those_who_logged_in() {
    let rules = closed(vec![Rule { users: patterns(&["**"]), ..allow() }]);
    check(
        &rules,
        &[
            ("bob 192.0.2.1 quay.io/a:1 pull", "yes"),
            ("org/bob 192.0.2.1 quay.io/a:1 pull", "yes"),
            ("- 192.0.2.1 quay.io/a:1 pull", DENIED),
        ],
    );
}

#[test]
fn addresses_and_privileges() {
    let networks = |texts: &[&str]| texts.iter().map(|text| network(text).unwrap()).collect::<Vec<_>>();
    let inside = networks(&["10.0.0.0/8", "fd00::/8", "192.0.2.7"]);
    let rules = open(vec![
        Rule { addresses: inside, ..Rule::new(Verdict::Privilege) },
        Rule { repositories: patterns(&["library/pause"]), ..Rule::new(Verdict::Privilege) },
        Rule { addresses: networks(&["192.0.2.0/24"]), ..deny("not from there") },
    ]);
    check(
        &rules,
        &[
            ("- 10.255.0.1 quay.io/a:1 pull", "first"),
            ("- ::ffff:10.0.0.1 quay.io/a:1 pull", "first"),
            ("- fd12::1 quay.io/a:1 pull", "first"),
            ("- fc12::1 quay.io/a:1 pull", "yes"),
            ("- 11.0.0.1 quay.io/a:1 pull", "yes"),
            ("- 192.0.2.7 quay.io/a:1 pull", "first"),
            ("- 192.0.2.8 quay.io/a:1 pull", "not from there"),
            ("- 192.0.2.8 docker.io/library/pause:1 pull", "first"),
            ("- 10.0.0.1 hosted/a:1 push", DENIED),
            ("- 192.0.2.7 hosted/a:1 push", "not from there"),
        ],
    );
}

#[test]
fn tags_are_asked_of_what_has_one() {
    let moving = Rule { tags: patterns(&["latest", "*-dev"]), ..deny("use a version") };
    check(
        &open(vec![moving]),
        &[
            ("- 192.0.2.1 quay.io/a:latest pull", "use a version"),
            ("- 192.0.2.1 quay.io/a:1-dev pull", "use a version"),
            ("- 192.0.2.1 quay.io/a:1 pull", "yes"),
            ("- 192.0.2.1 quay.io/a@ pull", "yes"),
            ("- 192.0.2.1 quay.io/a pull", "yes"),
        ],
    );
    let actions = vec![Action::Pull, Action::Push, Action::Delete];
    let versions = Rule { tags: patterns(&["v*"]), actions, ..allow() };
    check(
        &closed(vec![versions]),
        &[
            ("- 192.0.2.1 hosted/a:v1 pull", "yes"),
            ("- 192.0.2.1 hosted/a:latest pull", DENIED),
            ("- 192.0.2.1 hosted/a@ pull", "yes"),
            ("- 192.0.2.1 hosted/a push", "yes"),
            ("- 192.0.2.1 hosted/a:v1 delete", "yes"),
            ("- 192.0.2.1 hosted/a@ delete", DENIED),
        ],
    );
}

#[test]
fn platforms_are_asked_of_images() {
    let platform = |text: &str| {
        let mut parts = text.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        Platform { os, architecture, variant: parts.next(), os_version: Some("10.0".to_owned()) }
    };
    let only =
        closed(vec![Rule { platforms: patterns(&["linux/amd64", "linux/arm64", "*/arm/v7"]), ..allow() }]);
    let not = open(vec![Rule { platforms: patterns(&["windows/*"]), ..deny("no Windows here") }]);
    let line = "- 192.0.2.1 quay.io/a@ pull";
    for (of, first, second) in [
        (Some("linux/amd64"), "yes", "yes"),
        (Some("linux/arm64/v8"), "yes", "yes"),
        (Some("linux/arm/v7"), "yes", "yes"),
        (Some("linux/arm/v6"), DENIED, "yes"),
        (Some("linux/arm"), DENIED, "yes"),
        (Some("windows/amd64"), DENIED, "no Windows here"),
        (Some("unknown/unknown"), "yes", "yes"),
        (None, "yes", "yes"),
    ] {
        let platform = of.map(platform);
        assert_eq!(ask_of(&only, line, platform.as_ref()), first, "{of:?}");
        assert_eq!(ask_of(&not, line, platform.as_ref()), second, "{of:?}");
    }
}

#[test]
fn networks() {
    for (text, written) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("::1", "::1/128"),
        ("0.0.0.0/0", "0.0.0.0/0"),
    ] {
        assert_eq!(network(text).unwrap().to_string(), written);
    }
    for bad in
        ["", "10.0.0.0/33", "10.0.0/8", "a.example", "10.0.0.0/", "10.0.0.0/-1", "::/129", "1.2.3.4/8/8"]
    {
        assert_eq!(network(bad).unwrap_err().what, "network", "{bad:?}");
    }
    let error = network("10.0.0.1/8").unwrap_err().to_string();
    assert!(error.contains("10.0.0.0/8, or the address alone"), "{error}");
}

#[test]
fn what_could_never_fit_is_refused() {
    let rule = Rule { repositories: patterns(&["Library/*"]), ..deny("x") };
    assert!(Rules::new(vec![rule], Verdict::Allow).unwrap_err().reason.contains("lower case"));
    for (text, written) in
        [("hosted", "hosted"), ("Registry-1.Docker.io", "docker.io"), ("*.GCR.io", "*.gcr.io")]
    {
        assert_eq!(text.parse::<Place>().unwrap().to_string(), written);
    }
    assert!("[a]".parse::<Place>().is_err());
}

fn nobody(action: Action) -> Outlook<'static> {
    Outlook { user: None, address: None, upstream: None, action }
}

#[test]
fn what_could_be_is_known_beforehand() {
    use Action::{Pull, Push};
    let users = Rule { users: patterns(&["*"]), ..allow() };
    let ci = Rule { users: patterns(&["ci"]), actions: vec![Pull, Push], ..allow() };
    let office = Rule { addresses: vec![network("10.0.0.0/8").unwrap()], ..allow() };
    let strangers = closed(vec![users.clone(), ci.clone()]);
    assert!(!strangers.could(&nobody(Pull)));
    assert!(strangers.could(&Outlook { user: Some("me"), ..nobody(Pull) }));
    assert!(!strangers.could(&Outlook { user: Some("me"), ..nobody(Push) }));
    assert!(strangers.could(&Outlook { user: Some("ci"), ..nobody(Push) }));
    assert!(open(vec![]).could(&nobody(Pull)) && !open(vec![]).could(&nobody(Push)));

    let near = closed(vec![office]);
    assert!(near.could(&nobody(Pull)));
    assert!(near.could(&Outlook { address: Some("::ffff:10.1.1.1".parse().unwrap()), ..nobody(Pull) }));
    assert!(!near.could(&Outlook { address: Some("192.0.2.1".parse().unwrap()), ..nobody(Pull) }));

    let quay = Rule { places: places(&["quay.io"]), ..deny("x") };
    let some = Rule { repositories: patterns(&["a/**"]), ..deny("x") };
    let at = |upstream| Outlook { upstream: Some(upstream), ..nobody(Pull) };
    let without = open(vec![quay, some]);
    assert!(
        without.could(&nobody(Pull)) && without.could(&at("docker.io")) && !without.could(&at("quay.io"))
    );
    assert!(!open(vec![deny("x")]).could(&nobody(Pull)));
}

#[test]
fn a_login_helps_where_a_rule_is_for_users() {
    let secret: Name = "secret".parse().unwrap();
    let question = Question {
        user: None,
        address: "192.0.2.1".parse().unwrap(),
        upstream: None,
        repository: &secret,
        reference: None,
        platform: None,
        action: Action::Pull,
    };
    let users = Rule { users: patterns(&["*"]), ..allow() };
    let not_eve = Rule { users: patterns(&["eve"]), ..deny("x") };
    let never = Rule { repositories: patterns(&["secret"]), ..deny("x") };
    assert!(closed(vec![users.clone()]).login_may_help(&question));
    assert!(closed(vec![not_eve.clone(), users.clone()]).login_may_help(&question));
    assert!(!closed(vec![never.clone(), users.clone()]).login_may_help(&question));
    assert!(!closed(vec![not_eve]).login_may_help(&question));
    let known = Question { user: Some("me"), ..question };
    assert!(!closed(vec![users.clone()]).login_may_help(&known), "who has logged in cannot do so again");
    let push = Question { action: Action::Push, ..question };
    assert!(!open(vec![users]).login_may_help(&push));
}

proptest! {
    /// A rule in front that denies one thing takes nothing but that.
    #[test]
    fn any_question_is_handled(
        user in proptest::option::of("\\PC{0,12}"),
        address in any::<u128>(),
        upstream in proptest::option::of("\\PC{0,20}"),
        name in "[a-z]{1,3}(/[a-z]{1,3}){0,2}",
        tag in proptest::option::of("[a-z0-9]{1,4}"),
    ) {
        let reference = tag.map(|tag| Reference::Tag(tag.parse().unwrap()));
        let rules = open(vec![Rule { repositories: patterns(&["a**"]), ..deny("a") }]);
        let repository: Name = name.parse().unwrap();
        for action in [Action::Pull, Action::Push, Action::Delete, Action::List] {
            let question = Question {
                user: user.as_deref(),
                address: std::net::Ipv6Addr::from_bits(address).into(),
                upstream: upstream.as_deref(),
                repository: &repository,
                reference: reference.as_ref(),
                platform: None,
                action,
            };
            let expected = match (name.starts_with('a'), action.reads()) {
                (true, _) => Decision::Deny("a"),
                (false, true) => Decision::Allow,
                (false, false) => Decision::Deny(DENIED),
            };
            prop_assert_eq!(rules.decide(&question), expected);
        }
    }
}
