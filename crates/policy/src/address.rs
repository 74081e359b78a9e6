//! What a request to a mirror means: an upstream and a name, a hosted name, or nothing that is known.
//!
//! | a client asks | and means |
//! | --- | --- |
//! | `cr.example.cn`, `/v2/gcr.io/foo/bar/…` | a prefix, at any host that stands for no single upstream; podman, CRI-O |
//! | `gcr.cr.example.cn`, `/v2/foo/bar/…` | an alias host: the whole name is the upstream's; dockerd's `registry-mirrors` |
//! | any host, `/v2/foo/bar/…?ns=gcr.io` | the namespace of containerd, regclient and k3s (distribution-spec, "Registry Proxying") |
//! | any host, `/v2/gcr.io/foo/bar/…?ns=gcr.io` | the same with a path in the mirror's URL: BuildKit, `override_path`, a k3s rewrite |
//! | `cr.example.cn`, `/gcr.io/v2/foo/bar/…` | a prefix before `/v2`: a mirror's URL with a path at dockerd and containerd |
//! | a host with a default upstream, `/v2/library/mysql/…` | transparent: what no prefix claims and nothing hosted is called |
//!
//! All but the last decide for themselves; `ns` is looked at first. What names a registry that is not on the list is
//! answered with the list, and never hosted or passed on.

mod mirrored;

use std::borrow::Cow;

use ferry_oci::{Malformed, Name, Registry};

use crate::host::{Alias, Host, without_dot};
use crate::pattern::Pattern;
use crate::upstream::{Unknown, Upstream, Upstreams};

pub use mirrored::Unmirrored;

/// What a request says about the repository that it wants. All of it is a stranger's text.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The `Host` header, or the authority of HTTP/2. What is no host counts as none.
    pub host: Option<&'a str>,
    /// The query's `ns`, decoded; empty counts as absent.
    pub ns: Option<&'a str>,
    /// What stands in the path before `/v2`, without slashes at its ends; empty counts as absent.
    pub base: Option<&'a str>,
    /// What stands in the path where the repository's name does.
    pub name: &'a str,
}

/// How a client addresses an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// `cr.example.cn/gcr.io/foo/bar`
    Prefix,
    /// `gcr.cr.example.cn/foo/bar`
    AliasHost,
    /// The image's own name, which the client sends as `ns`.
    Namespace,
    /// The image's own name, and the client sends no word about the registry.
    Transparent,
}

/// What a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressed<'a> {
    /// A repository of an upstream.
    Upstream {
        /// The upstream.
        upstream: &'a Upstream,
        /// The repository there, `library/` completed.
        name: Name,
        /// How the client said so.
        form: Form,
    },
    /// A repository of the mirror's own.
    Hosted(Name),
    /// Neither.
    Unknown(Unknown),
}

/// Where the mirror is found, and what it does with names that no upstream claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Front {
    /// The mirror's own name, above the labels of its aliases. References to the mirror are written with its port.
    pub domain: Option<Host>,
    /// At these hosts a name without prefix is the registry's.
    pub defaults: Vec<(Host, Registry)>,
    /// The same at all hosts that are neither there nor an alias.
    pub default: Option<Registry>,
    /// Names of repositories that are the mirror's own. They win over defaults, not over prefixes.
    pub hosted: Vec<Pattern>,
}

/// The upstreams and where they are found: what decides about each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressing {
    upstreams: Upstreams,
    front: Front,
}

impl Addressing {
    /// Checks that every host has one meaning.
    ///
    /// # Errors
    /// [`Malformed`] if a default is no upstream, two hosts are for the same requests, or an upstream is the mirror itself.
    pub fn new(upstreams: Upstreams, front: Front) -> Result<Self, Malformed> {
        let addressing = Self { upstreams, front };
        let front = &addressing.front;
        let defaults = front.defaults.iter().map(|(_, registry)| registry).chain(&front.default);
        if let Some(unknown) = defaults.into_iter().find(|d| addressing.upstreams.get(d).is_none()) {
            let unknown = addressing.upstreams.unknown(unknown.as_str());
            return Err(refuse("default upstream", &unknown.asked, unknown.to_string()));
        }
        addressing.check_hosts()?;
        Ok(addressing)
    }

    /// The upstreams.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Where the mirror is found.
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// Every host under which the mirror is reached: its domain, the aliases, and where defaults are.
    pub fn hosts(&self) -> Vec<Host> {
        let aliases = self.upstreams.iter().flat_map(|upstream| &upstream.aliases);
        let aliases = aliases.filter_map(|alias| self.host_of(alias));
        let defaults = self.front.defaults.iter().map(|(host, _)| host.clone());
        self.front.domain.iter().cloned().chain(aliases).chain(defaults).collect()
    }

    /// What a request means.
    ///
    /// # Errors
    /// [`Malformed`] if the name is none, by the grammar of the distribution specification.
    pub fn address(&self, asked: &Asked<'_>) -> Result<Addressed<'_>, Malformed> {
        let base = asked.base.filter(|base| !base.is_empty());
        let name: Cow<'_, str> = match base {
            Some(base) => format!("{base}/{}", asked.name).into(),
            None => asked.name.into(),
        };
        let ns = asked.ns.filter(|ns| !ns.is_empty());
        let host = match ns {
            None => asked.host.and_then(|host| host.parse().ok()),
            Some(ns) => match (self.named(ns), ns.parse::<Host>().ok().filter(|host| self.is_own(host))) {
                (Some(upstream), _) => return self.in_namespace(upstream, &name),
                // Who reaches the mirror by another way than its name says that name here.
                (None, Some(own)) => Some(own),
                (None, None) => return Ok(Addressed::Unknown(self.upstreams.unknown(ns))),
            },
        };
        if base.is_some() {
            let unknown = || Addressed::Unknown(self.upstreams.unknown(&name));
            return Ok(self.by_prefix(&name)?.unwrap_or_else(unknown));
        }
        self.at(host.as_ref(), &name)
    }

    /// What a name means at a host.
    fn at(&self, host: Option<&Host>, name: &str) -> Result<Addressed<'_>, Malformed> {
        if let Some(host) = host {
            if let Some(upstream) = self.stood_for(host) {
                return found(upstream, name, Form::AliasHost);
            }
            if self.is_stray(host) {
                return Ok(Addressed::Unknown(self.upstreams.unknown(&host.to_string())));
            }
        }
        if let Some(addressed) = self.by_prefix(name)? {
            return Ok(addressed);
        }
        let parsed: Name = name.parse()?;
        if self.front.hosted.iter().any(|pattern| pattern.matches(name)) {
            return Ok(Addressed::Hosted(parsed));
        }
        match self.default_at(host) {
            Some(upstream) => found(upstream, name, Form::Transparent),
            None => Ok(Addressed::Unknown(self.upstreams.unknown(name))),
        }
    }

    /// The name of an upstream that the client named in `ns`; clients with a path in the mirror's URL repeat the
    /// upstream's host in front.
    fn in_namespace<'a>(&'a self, upstream: &'a Upstream, name: &str) -> Result<Addressed<'a>, Malformed> {
        let own = |first: &str| self.named(first) == Some(upstream);
        match name.split_once('/') {
            Some((first, rest)) if own(first) => found(upstream, rest, Form::Namespace),
            _ => found(upstream, name, Form::Namespace),
        }
    }

    /// What a name means whose first part looks like a registry; `None` for any other.
    fn by_prefix(&self, name: &str) -> Result<Option<Addressed<'_>>, Malformed> {
        let (first, rest) = match name.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (name, None),
        };
        match (self.named(first), rest) {
            (Some(upstream), Some(rest)) => found(upstream, rest, Form::Prefix).map(Some),
            (Some(upstream), None) => {
                let reason = format!("it is a registry; write {}/REPOSITORY", upstream.prefix());
                Err(refuse("repository name", first, reason))
            }
            // A name of one part has no registry in front of it, whatever it looks like.
            (None, Some(_)) if looks_like_registry(first) => {
                Ok(Some(Addressed::Unknown(self.upstreams.unknown(first))))
            }
            (None, _) => Ok(None),
        }
    }

    /// The upstream that a text names, as a prefix or as references do.
    fn named(&self, text: &str) -> Option<&Upstream> {
        let text = without_dot(text).to_ascii_lowercase();
        let registry = || text.parse().ok().and_then(|registry| self.upstreams.get(&registry));
        self.upstreams.by_prefix(&text).or_else(registry)
    }

    /// The upstream that a host stands for.
    fn stood_for(&self, host: &Host) -> Option<&Upstream> {
        let label = self.front.domain.as_ref().and_then(|domain| domain.below(host));
        let fits = |alias: &Alias| match alias {
            Alias::Label(alias) => label == Some(alias),
            Alias::Host(alias) => alias.covers(host),
        };
        self.upstreams.iter().find(|upstream| upstream.aliases.iter().any(fits))
    }

    /// The upstream of names that nothing else claims.
    fn default_at(&self, host: Option<&Host>) -> Option<&Upstream> {
        let here = |(ours, _): &&(Host, Registry)| host.is_some_and(|host| ours.covers(host));
        let configured = self.front.defaults.iter().find(here).map(|(_, registry)| registry);
        configured.or(self.front.default.as_ref()).and_then(|registry| self.upstreams.get(registry))
    }

    /// Whether a host is below the domain and nobody's: most likely an alias with a mistake in it, and then the default
    /// upstream has other images of the same names.
    fn is_stray(&self, host: &Host) -> bool {
        let below = self.front.domain.as_ref().is_some_and(|domain| domain.below(host).is_some());
        below && !self.front.defaults.iter().any(|(ours, _)| ours.covers(host))
    }

    /// Whether a host is the mirror.
    fn is_own(&self, host: &Host) -> bool {
        let default = self.front.defaults.iter().any(|(ours, _)| ours.covers(host));
        default
            || self.front.domain.as_ref().is_some_and(|ours| ours.covers(host))
            || self.stood_for(host).is_some()
    }

    /// The host of an alias, if it has one here.
    fn host_of(&self, alias: &Alias) -> Option<Host> {
        match alias {
            Alias::Host(host) => Some(host.clone()),
            Alias::Label(label) => {
                let domain = self.front.domain.as_ref().filter(|domain| !domain.is_address())?;
                Some(domain.sub(label))
            }
        }
    }

    fn check_hosts(&self) -> Result<(), Malformed> {
        let aliases = self.upstreams.iter().flat_map(|upstream| &upstream.aliases);
        let mut hosts: Vec<Host> = aliases.filter_map(|alias| self.host_of(alias)).collect();
        let overlap = |a: &Host, b: &Host| a.covers(b) || b.covers(a);
        if let Some(domain) = &self.front.domain
            && let Some(alias) = hosts.iter().find(|alias| overlap(alias, domain))
        {
            return Err(refuse("alias", &alias.to_string(), "it is the mirror's own domain".to_owned()));
        }
        hosts.extend(self.front.defaults.iter().map(|(host, _)| host.clone()));
        for (at, host) in hosts.iter().enumerate() {
            if let Some(other) = hosts[..at].iter().find(|other| overlap(other, host)) {
                return Err(refuse(
                    "host",
                    &host.to_string(),
                    format!("it has a meaning already, as {other}"),
                ));
            }
        }
        hosts.extend(self.front.domain.clone());
        let itself = |upstream: &&Upstream| {
            upstream.registry.as_str().parse().is_ok_and(|host: Host| hosts.contains(&host))
        };
        match self.upstreams.iter().find(itself) {
            None => Ok(()),
            Some(upstream) => {
                let reason = "it is a host of the mirror, which would ask itself".to_owned();
                Err(refuse("upstream", upstream.registry.as_str(), reason))
            }
        }
    }
}

fn found<'a>(upstream: &'a Upstream, name: &str, form: Form) -> Result<Addressed<'a>, Malformed> {
    let name = upstream.complete(name.parse()?)?;
    Ok(Addressed::Upstream { upstream, name, form })
}

/// Whether references would take the first part of a name for a registry.
fn looks_like_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first.eq_ignore_ascii_case("localhost")
}

fn refuse(what: &'static str, input: &str, reason: String) -> Malformed {
    Malformed { what, input: crate::cut(input), reason }
}

#[cfg(test)]
mod tests;
