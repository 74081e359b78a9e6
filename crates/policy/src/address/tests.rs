use proptest::prelude::*;

use super::*;

mod names;

fn upstream(registry: &str, aliases: &[&str]) -> Upstream {
    let aliases = aliases.iter().map(|alias| alias.parse().unwrap()).collect();
    Upstream { aliases, ..Upstream::new(registry.parse().unwrap()) }
}

/// The mirror of the recipe, with two registries of its own, a host that stands for one and a host with a default.
fn mirror() -> Addressing {
    let upstreams = Upstreams::built_in()
        .with(upstream("registry.corp:5000", &["corp", "hub.corp.cn"]))
        .and_then(|upstreams| upstreams.with(upstream("other.example.cn", &[])))
        .unwrap();
    let front = Front {
        domain: Some("cr.example.cn".parse().unwrap()),
        defaults: vec![("hub.example.cn:5000".parse().unwrap(), Registry::docker_hub())],
        default: None,
        hosted: vec!["team/**".parse().unwrap(), "tool".parse().unwrap()],
    };
    Addressing::new(upstreams, front).unwrap()
}

/// What `HOST PATH [ns=NS]` means; the path is `[BASE/v2/]NAME`, the host `-` if there is none.
fn means(addressing: &Addressing, line: &str) -> String {
    let mut words = line.split(' ');
    let host = words.next().filter(|host| *host != "-");
    let path = words.next().unwrap();
    let ns = words.next().map(|word| word.strip_prefix("ns=").unwrap());
    let (base, name) = match path.split_once("/v2/") {
        Some((base, name)) => (Some(base), name),
        None => (None, path),
    };
    match addressing.address(&Asked { host, ns, base, name }) {
        Ok(Addressed::Upstream { upstream, name, form }) => format!("{form:?} {upstream} {name}"),
        Ok(Addressed::Hosted(name)) => format!("Hosted {name}"),
        Ok(Addressed::Unknown(unknown)) => format!("Unknown {}", unknown.asked),
        Err(malformed) => format!("Malformed {}", malformed.what),
    }
}

fn check(addressing: &Addressing, table: &[(&str, &str)]) {
    for (line, expected) in table {
        assert_eq!(means(addressing, line), *expected, "{line}");
    }
}

#[test]
fn prefixes() {
    check(
        &mirror(),
        &[
            ("cr.example.cn k8s.gcr.io/coredns/coredns", "Prefix k8s.gcr.io coredns/coredns"),
            ("cr.example.cn:8443 gcr.io/foo/bar", "Prefix gcr.io foo/bar"),
            ("CR.EXAMPLE.CN. gcr.io/foo", "Prefix gcr.io foo"),
            ("10.0.0.5:5000 quay.io/a/b", "Prefix quay.io a/b"),
            ("- quay.io/a/b", "Prefix quay.io a/b"),
            ("elsewhere.example quay.io/a/b", "Prefix quay.io a/b"),
            ("cr.example.cn docker.io/mysql", "Prefix docker.io library/mysql"),
            ("cr.example.cn docker.io/library/mysql", "Prefix docker.io library/mysql"),
            ("cr.example.cn index.docker.io/a/b", "Prefix docker.io a/b"),
            ("cr.example.cn GCR.io/foo", "Prefix gcr.io foo"),
            ("cr.example.cn gcr.io./foo", "Prefix gcr.io foo"),
            ("cr.example.cn registry.corp-5000/a/b", "Prefix registry.corp:5000 a/b"),
            ("cr.example.cn Registry.Corp-5000/a/b", "Prefix registry.corp:5000 a/b"),
            ("cr.example.cn registry.corp:5000/a/b", "Prefix registry.corp:5000 a/b"),
            ("cr.example.cn registry.corp/a/b", "Unknown registry.corp"),
            ("cr.example.cn gcr.io:444/foo", "Unknown gcr.io:444"),
            ("cr.example.cn quay.io/gcr.io/a", "Prefix quay.io gcr.io/a"),
            ("cr.example.cn quay.io", "Malformed repository name"),
            ("hub.example.cn:5000 quay.io/a", "Prefix quay.io a"),
        ],
    );
}

#[test]
fn alias_hosts() {
    check(
        &mirror(),
        &[
            ("k8s-gcr.cr.example.cn coredns/coredns", "AliasHost k8s.gcr.io coredns/coredns"),
            ("K8S.cr.example.cn:443 pause", "AliasHost registry.k8s.io pause"),
            ("docker.cr.example.cn library/mysql", "AliasHost docker.io library/mysql"),
            ("docker.cr.example.cn mysql", "AliasHost docker.io library/mysql"),
            ("docker.cr.example.cn. team/app", "AliasHost docker.io team/app"),
            ("corp.cr.example.cn a", "AliasHost registry.corp:5000 a"),
            ("hub.corp.cn:5001 a", "AliasHost registry.corp:5000 a"),
            ("hub.corp.cn gcr.io/a", "AliasHost registry.corp:5000 gcr.io/a"),
            // Not `gcr.cr.example.cn`, but who makes such a mistake is told so.
            ("gcrr.cr.example.cn foo/bar", "Unknown gcrr.cr.example.cn"),
            ("a.gcr.cr.example.cn foo/bar", "Unknown a.gcr.cr.example.cn"),
            ("gcr.cr.example.cn.evil.example tool", "Hosted tool"),
            ("gcr.hub.corp.cn tool", "Hosted tool"),
        ],
    );
}

#[test]
fn namespaces() {
    check(
        &mirror(),
        &[
            ("cr.example.cn library/mysql ns=docker.io", "Namespace docker.io library/mysql"),
            ("cr.example.cn mysql ns=docker.io", "Namespace docker.io library/mysql"),
            ("10.0.0.5 pause ns=registry.k8s.io", "Namespace registry.k8s.io pause"),
            ("- pause ns=Registry.K8s.io.", "Namespace registry.k8s.io pause"),
            ("- a ns=registry.corp:5000", "Namespace registry.corp:5000 a"),
            ("- team/app ns=quay.io", "Namespace quay.io team/app"),
            // What a path in the mirror's URL adds.
            ("cr.example.cn docker.io/library/mysql ns=docker.io", "Namespace docker.io library/mysql"),
            ("cr.example.cn registry.corp-5000/a ns=registry.corp:5000", "Namespace registry.corp:5000 a"),
            ("cr.example.cn docker.io/v2/library/mysql ns=docker.io", "Namespace docker.io library/mysql"),
            ("cr.example.cn gcr.io/a ns=other.example.cn", "Namespace other.example.cn gcr.io/a"),
            ("docker.cr.example.cn a/b ns=quay.io", "Namespace quay.io a/b"),
            ("cr.example.cn a/b ns=", "Unknown a/b"),
            // Never dialled, whatever else the request says.
            ("cr.example.cn quay.io/a ns=evil.example", "Unknown evil.example"),
            ("docker.cr.example.cn a ns=evil.example", "Unknown evil.example"),
            ("cr.example.cn tool ns=169.254.169.254", "Unknown 169.254.169.254"),
            ("cr.example.cn tool ns=http://quay.io", "Unknown http://quay.io"),
            ("cr.example.cn tool ns=quay.io@evil.example", "Unknown quay.io@evil.example"),
            ("cr.example.cn tool ns=quay.io/../x", "Unknown quay.io/../x"),
            ("cr.example.cn tool ns=quay.io:443", "Unknown quay.io:443"),
            // The mirror under its own name, by way of another.
            ("10.0.0.5 gcr.io/a ns=cr.example.cn", "Prefix gcr.io a"),
            ("10.0.0.5 a ns=gcr.cr.example.cn", "AliasHost gcr.io a"),
            ("10.0.0.5 a ns=hub.example.cn:5000", "Transparent docker.io library/a"),
        ],
    );
}

#[test]
fn paths_before_v2() {
    check(
        &mirror(),
        &[
            ("cr.example.cn docker.io/v2/library/mysql", "Prefix docker.io library/mysql"),
            ("docker.cr.example.cn docker.io/v2/library/mysql", "Prefix docker.io library/mysql"),
            ("cr.example.cn team/v2/app", "Unknown team/app"),
            ("hub.example.cn:5000 team/v2/app", "Unknown team/app"),
            ("cr.example.cn evil.example/v2/app", "Unknown evil.example"),
            ("cr.example.cn ../v2/app", "Unknown .."),
        ],
    );
}

#[test]
fn hosted_and_transparent() {
    let mirror = mirror();
    check(
        &mirror,
        &[
            ("cr.example.cn team/app", "Hosted team/app"),
            ("cr.example.cn tool", "Hosted tool"),
            ("- team/a/b", "Hosted team/a/b"),
            ("cr.example.cn other/app", "Unknown other/app"),
            ("cr.example.cn localhost/app", "Unknown localhost"),
            ("cr.example.cn LocalHost/app", "Unknown LocalHost"),
            ("cr.example.cn evil.example/app", "Unknown evil.example"),
            ("cr.example.cn [::1]:80/app", "Unknown [::1]:80"),
            ("hub.example.cn:5000 library/mysql", "Transparent docker.io library/mysql"),
            ("hub.example.cn:5000 mysql", "Transparent docker.io library/mysql"),
            ("hub.example.cn:5000 node.js", "Transparent docker.io library/node.js"),
            ("hub.example.cn:5000 team/app", "Hosted team/app"),
            ("hub.example.cn:5000 evil.example/app", "Unknown evil.example"),
            ("hub.example.cn library/mysql", "Unknown library/mysql"),
        ],
    );
    let front = Front { default: Some("quay.io".parse().unwrap()), ..mirror.front().clone() };
    check(
        &Addressing::new(mirror.upstreams().clone(), front).unwrap(),
        &[
            ("- a/b", "Transparent quay.io a/b"),
            ("cr.example.cn a", "Transparent quay.io a"),
            ("hub.example.cn:5000 a", "Transparent docker.io library/a"),
            ("quai.cr.example.cn a", "Unknown quai.cr.example.cn"),
            ("cr.example.cn team/app", "Hosted team/app"),
        ],
    );
}

#[test]
fn hostile_texts_become_nothing() {
    let mirror = mirror();
    let long = "a/".repeat(4000);
    for name in [
        "",
        "/",
        "//",
        "gcr.io/",
        "gcr.io//a",
        "gcr.io/../quay.io/a",
        "gcr.io/a/..",
        "gcr.io/%2e%2e/a",
        "gcr%2eio/a",
        "gcr.io/a%2fb",
        "gcr.io/a\0",
        "gcr.io/a\r\nHost: x",
        "gcr.io/A",
        "gcr.io/镜像",
        "/gcr.io/a",
        "./gcr.io/a",
        "gcr.io\\a",
        "gcr.io/a?ns=x",
        "gcr.io/a:latest",
        "gcr.io/a@sha256:0",
        "gcr.io../a",
        "gcr.io:/a",
        "gcr.io:x/a",
        "user@gcr.io/a",
        "http://gcr.io/a",
        "\u{202e}gcr.io/a",
        "gcr.io /a",
        long.as_str(),
    ] {
        for host in [None, Some("cr.example.cn"), Some("gcr.cr.example.cn"), Some("hub.example.cn:5000")] {
            for ns in [None, Some("docker.io"), Some(name)] {
                let meant = mirror.address(&Asked { host, ns, base: None, name });
                assert!(
                    matches!(meant, Err(_) | Ok(Addressed::Unknown(_))),
                    "{host:?} {ns:?} {name:?}: {meant:?}"
                );
            }
        }
    }
    let long = format!("{}cr.example.cn", "gcr.".repeat(4000));
    for host in [
        "",
        ".",
        "cr.example.cn..",
        "gcr.cr.example.cn/",
        "gcr.cr.example.cn\0",
        "gcr.cr.example.cn:x",
        "gcr%2ecr.example.cn",
        "a@gcr.cr.example.cn",
        "gcr.cr.example.cn,x",
        "gcr.cr.example.cn x",
        "[gcr.cr.example.cn]",
        "ｇcr.cr.example.cn",
        "gcr_.cr.example.cn",
        "gcr.cr.example.cn:443:443",
        ".cr.example.cn",
        "镜.cr.example.cn",
        long.as_str(),
    ] {
        let meant = mirror.address(&Asked { host: Some(host), name: "a/b", ..Asked::default() });
        assert!(matches!(meant, Ok(Addressed::Unknown(_))), "{host:?}: {meant:?}");
    }
}

#[test]
fn contradictions_are_refused() {
    let host = |text: &str| text.parse::<Host>().unwrap();
    let domain = |text: &str| Front { domain: Some(host(text)), ..Front::default() };
    let hub = Registry::docker_hub;
    let own = |aliases: &[&str]| {
        Upstreams::new(vec![upstream("docker.io", aliases), upstream("a.cn", &[])]).unwrap()
    };
    for (upstreams, front, expected) in [
        (
            own(&[]),
            Front { default: Some("b.cn".parse().unwrap()), ..Front::default() },
            "it knows docker.io, a.cn",
        ),
        (own(&[]), domain("a.cn"), "ask itself"),
        (own(&["a.cn"]), Front::default(), "ask itself"),
        (own(&["m.cn"]), domain("m.cn:5000"), "own domain"),
        (own(&["hub", "hub.m.cn"]), domain("m.cn"), "has a meaning already"),
        (
            own(&["x.cn"]),
            Front { defaults: vec![(host("x.cn:1"), hub())], ..Front::default() },
            "has a meaning already",
        ),
        (
            own(&[]),
            Front { defaults: vec![(host("x.cn"), hub()), (host("X.cn."), hub())], ..Front::default() },
            "has a meaning already",
        ),
    ] {
        let error = Addressing::new(upstreams, front).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Addressing::new(own(&["hub"]), domain("10.0.0.5:5000")).is_ok());
    assert!(Addressing::new(own(&[]), domain("cn")).is_ok());
}

proptest! {
    #[test]
    fn any_request_is_handled(
        host in "\\PC{0,30}|[a-zA-Z0-9.:-]{0,10}cr\\.example\\.cn[.:0-9]{0,5}",
        ns in proptest::option::of("\\PC{0,30}|[a-zA-Z0-9.:/@-]{0,20}|(gcr|quay)\\.io[.:0-9]{0,4}"),
        base in proptest::option::of("\\PC{0,10}|gcr\\.io"),
        name in "\\PC{0,40}|[a-zA-Z0-9.:/%_-]{0,40}|(gcr|docker)\\.io/[a-z/.]{0,20}",
    ) {
        let mirror = mirror();
        let asked = Asked { host: Some(&host), ns: ns.as_deref(), base: base.as_deref(), name: &name };
        match mirror.address(&asked) {
            // By construction on the list; the name ends as the text does, so that nothing was read into it.
            Ok(Addressed::Upstream { name: meant, .. }) => {
                let last = meant.as_str().rsplit('/').next().unwrap_or_default().to_owned();
                prop_assert!(name.ends_with(&last), "{meant}");
            }
            Ok(Addressed::Hosted(meant)) => prop_assert_eq!(meant.as_str(), name),
            Ok(Addressed::Unknown(unknown)) => prop_assert!(unknown.asked.chars().count() <= 120),
            Err(malformed) => prop_assert!(malformed.input.chars().count() <= 121),
        }
    }
}
