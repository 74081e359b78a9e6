use std::fmt::Write;

use super::*;

fn reached(url: &str) -> Reached {
    Reached::usual(url.parse().unwrap()).unwrap()
}

/// A mirror of two registries, in front of which are these.
fn own(front: Front, url: &str) -> Reached {
    let corp = Upstream {
        aliases: vec!["corp".parse().unwrap(), "hub.corp.cn".parse().unwrap()],
        ..Upstream::new("registry.corp:5000".parse().unwrap())
    };
    let upstreams = Upstreams::new(vec![corp, Upstream::new("quay.io".parse().unwrap())]).unwrap();
    Reached::new(&Addressing::new(upstreams, front).unwrap(), url.parse().unwrap(), false)
}

fn told(reached: &Reached, only: &[Registry]) -> String {
    let mut text = String::new();
    for client in Client::ALL {
        writeln!(text, "##### {client}").unwrap();
        match reached.configuration(client, only) {
            Err(error) => writeln!(text, "{error}").unwrap(),
            Ok(Configuration { snippets, notes }) => {
                for Snippet { file, text: content, .. } in snippets {
                    writeln!(text, "--- {file}\n{content}").unwrap();
                }
                for note in notes {
                    writeln!(text, "* {}\n* {}", note.text(Language::English), note.text(Language::Chinese))
                        .unwrap();
                }
            }
        }
    }
    text
}

fn ways(reached: &Reached, image: &str) -> String {
    let mut text = format!("##### {image} at {}\n", reached.url());
    for Way { form, name, commands } in reached.ways(&image.parse().unwrap()) {
        match name {
            Ok(name) => writeln!(text, "{form}: {name}").unwrap(),
            Err(error) => writeln!(text, "{form}: no, {error}").unwrap(),
        }
        for Command { line, .. } in commands {
            writeln!(text, "    {line}").unwrap();
        }
    }
    text
}

#[test]
fn every_client_is_told_what_it_needs() {
    insta::assert_snapshot!("https", told(&reached("https://cr.example.cn"), &[]));
    insta::assert_snapshot!("http", told(&reached("http://10.0.0.5:5000"), &[]));
    let one = ["quay.io".parse().unwrap(), "docker.io".parse().unwrap()];
    insta::assert_snapshot!("chosen", told(&reached("https://cr.example.cn:8443"), &one));
    let login = Reached { login: true, ..reached("https://cr.example.cn") };
    insta::assert_snapshot!("login", told(&login, &one));
    insta::assert_snapshot!("own", told(&own(Front::default(), "http://localhost:5000"), &[]));
    insta::assert_snapshot!("nameless", told(&reached("https://mirror"), &[]));
}

#[test]
fn every_way_to_an_image() {
    let digest = format!("quay.io/a/b@sha256:{}", "0".repeat(64));
    let both = format!("quay.io/a/b:1@sha256:{}", "0".repeat(64));
    let domain = Front { domain: Some("cr.example.cn".parse().unwrap()), ..Front::default() };
    let corp = "registry.corp:5000/a/b:1";
    insta::assert_snapshot!(
        "ways",
        [
            ways(&reached("https://cr.example.cn"), "alpine"),
            ways(&reached("http://10.0.0.5:5000"), "registry.k8s.io/pause:3.10"),
            ways(&reached("https://cr.example.cn:8443"), &digest),
            ways(&reached("https://cr.example.cn"), &both),
            ways(&reached("https://mirror"), "alpine"),
            ways(&reached("https://cr.example.cn"), "registry.example.com/a"),
            ways(&own(Front::default(), "http://localhost:5000"), corp),
            ways(&own(domain.clone(), "http://cr.example.cn:5000"), corp),
            ways(&own(domain.clone(), "http://quay.cr.example.cn:5000"), corp),
            ways(&own(domain.clone(), "http://10.0.0.5:5000"), corp),
            ways(&own(domain, "https://hub.corp.cn"), corp),
        ]
        .join("\n")
    );
}

#[test]
fn what_is_not_mirrored_is_not_configured() {
    let error = reached("https://cr.example.cn")
        .configuration(Client::Podman, &["registry.example.com".parse().unwrap()])
        .unwrap_err();
    assert!(error.to_string().contains("it knows cr.l5d.io, "), "{error}");
    let error = Reached::usual("https://quay.io".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("ask itself"), "{error}");
}

#[test]
fn urls() {
    for (text, expected) in [
        ("https://CR.example.cn/", Ok("https://cr.example.cn")),
        ("cr.example.cn:8443", Ok("https://cr.example.cn:8443")),
        ("http://[::1]:5000", Ok("http://[::1]:5000")),
        ("http://cr.example.cn:80", Ok("http://cr.example.cn")),
        ("http://cr.example.cn:443", Err("port of the other scheme")),
        ("ftp://cr.example.cn", Err("begins with https://")),
        ("https://cr.example.cn/v2", Err("only its scheme, host and port")),
        ("https://me:secret@cr.example.cn", Err("only its scheme, host and port")),
        ("https://\"]\nevil", Err("is not a valid URL of a mirror")),
        ("", Err("is not a valid URL of a mirror")),
    ] {
        let parsed = text.parse::<PublicUrl>();
        match expected {
            Ok(expected) => assert_eq!(parsed.unwrap().to_string(), expected),
            Err(expected) => {
                let error = parsed.unwrap_err().to_string();
                assert!(error.contains(expected), "{error}");
            }
        }
    }
}

#[test]
fn names_of_options_are_read_back() {
    assert!(Client::ALL.iter().all(|client| client.as_str().parse() == Ok(*client)));
    assert!(Form::ALL.iter().all(|form| form.as_str().parse() == Ok(*form)));
    let error = "docker-compose".parse::<Client>().unwrap_err().to_string();
    assert!(error.contains("there are docker, containerd, podman"), "{error}");
    assert_eq!("zh-CN".parse(), Ok(Language::Chinese));
    assert!("de".parse::<Language>().is_err());
}
