//! The registries that a mirror asks: a closed list. No text of a client is ever dialled; it can only name one of these.

use std::fmt;

use ferry_oci::{Malformed, Name, Registry};

use crate::cut;
use crate::host::Alias;
use crate::naming::legal;

/// A registry behind the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its host as references write it; the mirror's own business is where its requests go.
    pub registry: Registry,
    /// Hosts of the mirror that stand for it, the one to recommend first.
    pub aliases: Vec<Alias>,
    /// Whether a repository of one part means one below `library/`, as at Docker Hub.
    pub completes: bool,
}

impl Upstream {
    /// A registry without aliases.
    pub fn new(registry: Registry) -> Self {
        let completes = registry.is_docker_hub();
        Self { registry, aliases: Vec::new(), completes }
    }

    /// The first part of names that are addressed to it: its host, where a dash stands for the colon before a port.
    pub fn prefix(&self) -> String {
        legal(&self.registry)
    }

    /// The repository that is meant by `name`.
    ///
    /// # Errors
    /// [`Malformed`] if it is too long once `library/` is in front.
    pub fn complete(&self, name: Name) -> Result<Name, Malformed> {
        if self.completes && !name.as_str().contains('/') {
            format!("library/{name}").parse()
        } else {
            Ok(name)
        }
    }
}

/// Hosts and their usual labels, as the mirrors that people know have them.
const BUILT_IN: [(&str, &str); 12] = [
    ("cr.l5d.io", "l5d"),
    ("docker.elastic.co", "elastic"),
    ("docker.io", "docker"),
    ("gcr.io", "gcr"),
    ("ghcr.io", "ghcr"),
    ("k8s.gcr.io", "k8s-gcr"),
    ("mcr.microsoft.com", "mcr"),
    ("nvcr.io", "nvcr"),
    ("quay.io", "quay"),
    ("registry.jujucharms.com", "jujucharms"),
    ("registry.k8s.io", "k8s"),
    ("rocks.canonical.com", "rocks-canonical"),
];

/// All registries behind a mirror, in the order in which they are listed to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstreams(Vec<Upstream>);

impl Upstreams {
    /// A list of one's own.
    ///
    /// # Errors
    /// [`Malformed`] if two are the same registry, have the same alias or would be called by the same prefix, or if no
    /// reference could name one.
    pub fn new(upstreams: Vec<Upstream>) -> Result<Self, Malformed> {
        for (at, upstream) in upstreams.iter().enumerate() {
            check_name(&upstream.registry)?;
            let before = &upstreams[..at];
            if let Some(other) = before.iter().find(|other| other.prefix() == upstream.prefix()) {
                let reason = match other.registry == upstream.registry {
                    true => "it is listed twice".to_owned(),
                    false => format!("its prefix {} is that of {} too", upstream.prefix(), other.registry),
                };
                return Err(bad(&upstream.registry, reason));
            }
            for (place, alias) in upstream.aliases.iter().enumerate() {
                let has = |other: &&Upstream| other.aliases.contains(alias);
                if let Some(other) = before.iter().find(has) {
                    let reason = format!("it stands for {} and for {}", other.registry, upstream.registry);
                    return Err(Malformed { what: "alias", input: alias.to_string(), reason });
                }
                if upstream.aliases[..place].contains(alias) {
                    return Err(bad(&upstream.registry, format!("its alias {alias} is listed twice")));
                }
            }
        }
        Ok(Self(upstreams))
    }

    /// Those that every mirror knows unless it is configured otherwise.
    pub fn built_in() -> Self {
        // The tests see that the table loses nothing on this way and holds no contradiction.
        let upstream = |(host, label): (&str, &str)| {
            let aliases = vec![label.parse().ok()?];
            Some(Upstream { aliases, ..Upstream::new(host.parse().ok()?) })
        };
        Self(BUILT_IN.into_iter().filter_map(upstream).collect())
    }

    /// One more, or another in the place of the one of this registry.
    ///
    /// # Errors
    /// As [`Upstreams::new`].
    pub fn with(self, upstream: Upstream) -> Result<Self, Malformed> {
        let mut upstreams = self.0;
        match upstreams.iter_mut().find(|known| known.registry == upstream.registry) {
            Some(known) => *known = upstream,
            None => upstreams.push(upstream),
        }
        Self::new(upstreams)
    }

    /// The upstream of that registry.
    pub fn get(&self, registry: &Registry) -> Option<&Upstream> {
        self.iter().find(|upstream| upstream.registry == *registry)
    }

    /// The upstream that is called by this first part of a name; see [`Upstream::prefix`].
    pub fn by_prefix(&self, prefix: &str) -> Option<&Upstream> {
        self.iter().find(|upstream| upstream.prefix() == prefix)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Upstream> {
        self.0.iter()
    }

    /// The error for what is none of them.
    pub fn unknown(&self, asked: &str) -> Unknown {
        let known = self.iter().map(|upstream| upstream.registry.to_string()).collect();
        Unknown { asked: cut(asked), known }
    }
}

/// Somebody asked for what is at no registry on the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{asked:?} names no registry that this mirror knows; {}", listed(known))]
pub struct Unknown {
    /// What was asked for, cut to 120 characters.
    pub asked: String,
    /// The registries that there are.
    pub known: Vec<String>,
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { "it knows none".to_owned() } else { format!("it knows {}", known.join(", ")) }
}

/// A reference names a registry only by a word that cannot be a part of a repository name.
fn check_name(registry: &Registry) -> Result<(), Malformed> {
    let text = registry.as_str();
    if text.contains(['.', ':']) || text == "localhost" {
        return Ok(());
    }
    Err(bad(
        registry,
        format!("references take it for a repository of Docker Hub; write its port too, as in {text}:443"),
    ))
}

fn bad(registry: &Registry, reason: String) -> Malformed {
    Malformed { what: "upstream", input: registry.to_string(), reason }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(registry: &str, aliases: &[&str]) -> Upstream {
        let aliases = aliases.iter().map(|alias| alias.parse().unwrap()).collect();
        Upstream { aliases, ..Upstream::new(registry.parse().unwrap()) }
    }

    #[test]
    fn the_built_in_table() {
        let upstreams = Upstreams::built_in();
        assert_eq!(Upstreams::new(upstreams.iter().cloned().collect()), Ok(upstreams.clone()));
        let written: Vec<String> =
            upstreams.iter().map(|u| format!("{} {} {}", u.registry, u.aliases[0], u.completes)).collect();
        assert_eq!(
            written,
            [
                "cr.l5d.io l5d false",
                "docker.elastic.co elastic false",
                "docker.io docker true",
                "gcr.io gcr false",
                "ghcr.io ghcr false",
                "k8s.gcr.io k8s-gcr false",
                "mcr.microsoft.com mcr false",
                "nvcr.io nvcr false",
                "quay.io quay false",
                "registry.jujucharms.com jujucharms false",
                "registry.k8s.io k8s false",
                "rocks.canonical.com rocks-canonical false",
            ]
        );
    }

    #[test]
    fn contradictions_are_refused() {
        for (upstreams, expected) in [
            (vec![upstream("a.io", &[]), upstream("A.io", &[])], "listed twice"),
            (vec![upstream("a.io", &["x"]), upstream("b.io", &["X"])], "stands for a.io and for b.io"),
            (vec![upstream("a.io", &["x.cn"]), upstream("b.io", &["x.cn."])], "stands for a.io and for b.io"),
            (vec![upstream("a.io", &["x", "x"])], "its alias x is listed twice"),
            (vec![upstream("r:5000", &[]), upstream("r.io", &[]), upstream("R:5000", &[])], "listed twice"),
            (vec![upstream("r:1", &[]), upstream("r-1.io", &[]), upstream("Registry", &[])], "Registry:443"),
            (
                vec![upstream("a.io:5000", &[]), upstream("a.io-5000", &[])],
                "prefix a.io-5000 is that of a.io:5000",
            ),
        ] {
            let error = Upstreams::new(upstreams).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn one_more_and_another_instead() {
        let upstreams = Upstreams::built_in();
        let more = upstreams.clone().with(upstream("registry.gitlab.com", &["gitlab"])).unwrap();
        assert_eq!(more.iter().count(), upstreams.iter().count() + 1);
        let other = upstreams.clone().with(upstream("index.docker.io", &["hub"])).unwrap();
        assert_eq!(other.iter().count(), upstreams.iter().count());
        assert_eq!(other.get(&Registry::docker_hub()).unwrap().aliases[0].to_string(), "hub");
        assert!(upstreams.with(upstream("other.io", &["quay"])).is_err());
    }

    #[test]
    fn who_asks_for_another_is_told_what_there_is() {
        let upstreams = Upstreams::new(vec![upstream("a.io", &[]), upstream("b.io", &[])]).unwrap();
        let error = upstreams.unknown("evil.example\u{1b}[2J").to_string();
        assert_eq!(
            error,
            "\"evil.example\\u{1b}[2J\" names no registry that this mirror knows; it knows a.io, b.io"
        );
        assert_eq!(upstreams.unknown(&"x".repeat(500)).asked.len(), 120);
    }
}
