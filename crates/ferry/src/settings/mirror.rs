//! What a mirror shall do.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use ferry_oci::Registry;
use ferry_policy::address::{Addressing, Front};
use ferry_policy::freshness::Freshness;
use ferry_policy::host::Alias;
use ferry_policy::upstream::{Upstream, Upstreams};

use crate::config::{Blobs, DefaultUpstream, FreshnessConfig, Listed, Loaded, MirrorConfig, Switch, Which};

/// What a mirror shall do.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) addressing: Addressing,
    /// For registries of which nothing else is said.
    usual: OfUpstream,
    special: HashMap<Registry, OfUpstream>,
    /// What is configured that decides how upstreams are asked and what is kept of them, as text: while it stays the same
    /// their stores can stay.
    pub(crate) behind: String,
}

/// How one registry is mirrored.
#[derive(Debug, Clone)]
pub(crate) struct OfUpstream {
    pub(crate) freshness: Freshness,
    /// `None` for the time that is usual.
    pub(crate) keep_withdrawn: Option<Duration>,
    /// Its tags are listed.
    pub(crate) lists_tags: bool,
    /// Clients are sent to where its blobs are.
    pub(crate) redirects: bool,
}

impl Mirror {
    /// What is configured, or the usual if it is only `wanted`. `None` if neither.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub(crate) fn new(loaded: &Loaded, wanted: bool) -> anyhow::Result<Option<Self>> {
        let configured = loaded.config.serve.as_ref().and_then(|serve| serve.mirror.as_ref());
        let usual = MirrorConfig::default();
        let Some(config) = configured.or(wanted.then_some(&usual)) else { return Ok(None) };
        let within = || format!("{}: serve: mirror", loaded.name());
        let mirror = Self::of(config, behind(config, loaded)).and_then(|mirror| mirror.redirecting(loaded));
        mirror.map(Some).with_context(within)
    }

    /// How a registry is mirrored.
    pub(crate) fn upstream(&self, registry: &Registry) -> &OfUpstream {
        self.special.get(registry).unwrap_or(&self.usual)
    }

    /// Those whose tags are not listed.
    pub(crate) fn unlisted(&self) -> impl Iterator<Item = Registry> {
        self.special.iter().filter(|(_, one)| !one.lists_tags).map(|(registry, _)| registry.clone())
    }

    /// Refuses to send clients with an account's link, or past the mirrors that shall be asked first.
    fn redirecting(self, loaded: &Loaded) -> anyhow::Result<Self> {
        for (which, config) in &loaded.config.registries {
            let Which::One(registry) = &which.value else { continue };
            let used = !config.accounts.is_empty() || !config.mirrors.is_empty();
            if used && self.upstream(registry).redirects {
                bail!(
                    "settings: {}: blobs: redirect cannot go with the accounts or mirrors in registries: {}; \
                     write blobs: proxy or remove these",
                    which.text,
                    which.text
                );
            }
        }
        Ok(self)
    }

    fn of(config: &MirrorConfig, behind: String) -> anyhow::Result<Self> {
        let upstreams = upstreams(config)?;
        let front = Front {
            domain: config.domain.as_ref().map(|domain| domain.value.clone()),
            defaults: config
                .default_at
                .iter()
                .map(|(at, one)| (at.value.clone(), one.value.clone()))
                .collect(),
            default: default(config, &upstreams),
            hosted: config.hosted.0.iter().map(|pattern| pattern.value.clone()).collect(),
        };
        let usual = OfUpstream {
            freshness: freshness(config.freshness.as_ref(), Freshness::default()),
            keep_withdrawn: config.keep_withdrawn.as_ref().map(|term| term.value.0),
            lists_tags: true,
            redirects: false,
        };
        let special = special(config, &upstreams, &usual)?;
        Ok(Self { addressing: Addressing::new(upstreams, front)?, usual, special, behind })
    }

    /// Whether it has repositories of its own, which can be pushed to.
    pub(crate) fn takes_pushes(&self) -> bool {
        !self.addressing.front().hosted.is_empty()
    }

    /// Refuses a mirror that would ask itself.
    pub(crate) fn listening(&self, listen: SocketAddr) -> anyhow::Result<()> {
        let itself = |upstream: &&Upstream| is_at(&upstream.registry, listen);
        match self.addressing.upstreams().iter().find(itself) {
            Some(upstream) => bail!("mirror: upstreams: {upstream} is this mirror, which would ask itself"),
            None => Ok(()),
        }
    }

    /// The upstreams as people read them.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> =
            self.addressing.upstreams().iter().map(|upstream| upstream.registry.as_str()).collect();
        names.join(", ")
    }
}

/// See [`Mirror::behind`]. What changes nothing for a store is left out, so that whatever is added counts.
fn behind(config: &MirrorConfig, loaded: &Loaded) -> String {
    let front = MirrorConfig::default();
    let stripped = MirrorConfig {
        domain: front.domain,
        upstreams: front.upstreams,
        aliases: front.aliases,
        default: front.default,
        default_at: front.default_at,
        hosted: front.hosted,
        freshness: front.freshness,
        ..config.clone()
    };
    serde_json::json!([stripped, loaded.config.registries]).to_string()
}

/// Whether a registry is found where we listen, as far as its name tells.
fn is_at(registry: &Registry, listen: SocketAddr) -> bool {
    let Some((host, port)) = registry.as_str().rsplit_once(':') else { return false };
    let own = |ip: IpAddr| ip == listen.ip() || (listen.ip().is_unspecified() && ip.is_loopback());
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    port.parse() == Ok(listen.port()) && (host == "localhost" || address.is_ok_and(own))
}

/// A registry that is listed by its name: if everybody knows it, with the word that is usual for it, unless that word was
/// given to another.
fn alone(registry: &Registry, config: &MirrorConfig) -> Upstream {
    let given =
        |alias: &Alias| config.aliases.values().any(|all| all.0.iter().any(|one| one.value == *alias));
    let known = Upstreams::built_in().get(registry).cloned();
    let mut upstream = known.unwrap_or_else(|| Upstream::new(registry.clone()));
    upstream.aliases.retain(|alias| !given(alias));
    upstream
}

fn upstreams(config: &MirrorConfig) -> anyhow::Result<Upstreams> {
    let mut listed = Vec::new();
    for one in &config.upstreams.0 {
        match &one.value {
            Listed::BuiltIn => listed.extend(Upstreams::built_in().iter().cloned()),
            Listed::One(registry) => listed.push(alone(registry, config)),
        }
    }
    if listed.is_empty() {
        listed.extend(Upstreams::built_in().iter().cloned());
    }
    for (registry, aliases) in &config.aliases {
        let Some(upstream) = listed.iter_mut().find(|one| one.registry == registry.value) else {
            bail!("aliases: {}: it is none of the upstreams; add it there", registry.text);
        };
        // Those that were chosen here are the ones to recommend.
        let mut all: Vec<_> = aliases.0.iter().map(|alias| alias.value.clone()).collect();
        all.append(&mut upstream.aliases);
        upstream.aliases = all;
    }
    Upstreams::new(listed).context("upstreams and aliases")
}

fn default(config: &MirrorConfig, upstreams: &Upstreams) -> Option<Registry> {
    match &config.default {
        Some(written) => {
            let DefaultUpstream(registry) = &written.value;
            registry.clone()
        }
        None => Some(Registry::docker_hub()).filter(|hub| upstreams.get(hub).is_some()),
    }
}

/// What is said of single registries.
fn special(
    config: &MirrorConfig,
    upstreams: &Upstreams,
    usual: &OfUpstream,
) -> anyhow::Result<HashMap<Registry, OfUpstream>> {
    let mut special = HashMap::new();
    for (registry, of) in &config.settings {
        if upstreams.get(&registry.value).is_none() {
            bail!("settings: {}: it is none of the upstreams; add it there", registry.text);
        }
        let keep_withdrawn = of.keep_withdrawn.as_ref().map(|term| term.value.0);
        let one = OfUpstream {
            freshness: freshness(of.freshness.as_ref(), usual.freshness.clone()),
            keep_withdrawn: keep_withdrawn.or(usual.keep_withdrawn),
            lists_tags: of.tags != Some(Switch::Off),
            redirects: of.blobs == Some(Blobs::Redirect),
        };
        if special.insert(registry.value.clone(), one).is_some() {
            bail!("settings: {}: the same registry stands there twice", registry.text);
        }
    }
    Ok(special)
}

/// What is not configured is as `usual`, whose rules come last.
fn freshness(config: Option<&FreshnessConfig>, usual: Freshness) -> Freshness {
    let Some(config) = config else { return usual };
    let own = config.rules.iter().map(|rule| (rule.tags.value.clone(), rule.term.value.0));
    Freshness {
        moving: config.moving.as_ref().map_or(usual.moving, |term| term.value.0),
        version_like: config.version_like.as_ref().map_or(usual.version_like, |term| term.value.0),
        rules: own.chain(usual.rules).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ferry_policy::address::{Addressed, Asked};

    use super::*;
    use crate::Environment;

    const DAY: Duration = Duration::from_secs(86_400);

    fn mirror(text: &str) -> anyhow::Result<Option<Mirror>> {
        mirror_of(text, "{}")
    }

    fn mirror_of(text: &str, registries: &str) -> anyhow::Result<Option<Mirror>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        std::fs::write(&path, format!("registries: {registries}\nserve:\n  mirror: {text}\n")).unwrap();
        let loaded = Loaded::find(Some(Path::new(&path)), &Environment::default()).unwrap();
        Mirror::new(&loaded, false)
    }

    fn means(mirror: &Mirror, host: &str, name: &str) -> String {
        match mirror.addressing.address(&Asked { host: Some(host), name, ..Asked::default() }).unwrap() {
            Addressed::Upstream { upstream, name, .. } => format!("{upstream} {name}"),
            Addressed::Hosted(name) => format!("own {name}"),
            Addressed::Unknown(_) => "unknown".to_owned(),
        }
    }

    #[test]
    fn what_is_not_configured_is_usual() {
        assert!(Mirror::new(&Loaded::default(), false).unwrap().is_none());
        for mirror in [Mirror::new(&Loaded::default(), true), mirror("{}")] {
            let mirror = mirror.unwrap().unwrap();
            assert_eq!(means(&mirror, "x", "quay.io/a/b"), "quay.io a/b");
            assert_eq!(means(&mirror, "x", "a/b"), "docker.io a/b");
            assert!(!mirror.takes_pushes() && mirror.names().contains("docker.io, gcr.io"));
            let of = mirror.upstream(&Registry::docker_hub());
            assert_eq!((&of.freshness, of.keep_withdrawn), (&Freshness::default(), None));
            assert!(of.lists_tags && !of.redirects && mirror.unlisted().next().is_none());
        }
    }

    #[test]
    fn usual_words_stand_for_what_is_listed_alone() {
        let text = "{domain: cr.cn, upstreams: [quay.io, gcr.io, r.corp], aliases: {r.corp: gcr, quay.io: [quay, q]}}";
        let mirror = mirror(text).unwrap().unwrap();
        for (host, expected) in [
            ("quay.cr.cn", "quay.io a/b"),
            ("q.cr.cn", "quay.io a/b"),
            ("gcr.cr.cn", "r.corp a/b"),
            ("docker.cr.cn", "unknown"),
        ] {
            assert_eq!(means(&mirror, host, "a/b"), expected, "{host}");
        }
    }

    #[test]
    fn what_is_configured_counts() {
        let text = "{domain: cr.example.cn, upstreams: [quay.io, r.corp:5000], aliases: {r.corp:5000: corp}, \
             default_at: {h.example.cn: quay.io}, hosted: own/**, keep_withdrawn: 0s, \
             freshness: {moving: 2s, rules: [{tags: latest, for: 0s}]}, settings: {r.corp:5000: {tags: off, \
             blobs: redirect, keep_withdrawn: 1d, freshness: {moving: 1h, rules: [{tags: edge, for: 1s}]}}}}";
        let mirror = mirror(text).unwrap().unwrap();
        assert_eq!(mirror.names(), "quay.io, r.corp:5000");
        for (host, name, expected) in [
            ("corp.cr.example.cn", "a", "r.corp:5000 a"),
            ("h.example.cn", "a", "quay.io a"),
            ("cr.example.cn", "a", "unknown"),
            ("cr.example.cn", "docker.io/a", "unknown"),
            ("h.example.cn", "own/a", "own own/a"),
        ] {
            assert_eq!(means(&mirror, host, name), expected, "{host} {name}");
        }
        assert!(mirror.takes_pushes());
        let [quay, corp] = ["quay.io", "r.corp:5000"].map(|at| mirror.upstream(&at.parse().unwrap()));
        assert_eq!(
            (quay.keep_withdrawn, quay.lists_tags, quay.redirects),
            (Some(Duration::ZERO), true, false)
        );
        assert_eq!((corp.keep_withdrawn, corp.lists_tags, corp.redirects), (Some(DAY), false, true));
        let seconds = |of: &OfUpstream| {
            ["latest", "edge", "stable", "v1.2.3"]
                .map(|tag| of.freshness.for_tag(&tag.parse().unwrap()).as_secs())
        };
        assert_eq!((seconds(quay), seconds(corp)), ([0, 2, 2, 86_400], [0, 1, 3600, 86_400]));
        assert_eq!(mirror.unlisted().collect::<Vec<_>>(), ["r.corp:5000".parse().unwrap()]);
    }

    #[test]
    fn contradictions_are_named() {
        for (text, says) in [
            ("{upstreams: [quay.io, quay.io]}", "it is listed twice"),
            ("{upstreams: quay.io, aliases: {gcr.io: gcr}}", "aliases: gcr.io: it is none of the upstreams"),
            ("{upstreams: quay.io, default: docker.io}", "docker.io"),
            ("{aliases: {quay.io: gcr}}", "gcr"),
            ("{domain: quay.io}", "ask itself"),
            ("{upstreams: quay.io, settings: {gcr.io: {}}}", "settings: gcr.io: it is none of the upstreams"),
            ("{settings: {docker.io: {}, index.docker.io: {}}}", "the same registry stands there twice"),
        ] {
            let error = format!("{:#}", mirror(text).unwrap_err());
            assert!(error.contains("serve: mirror") && error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn clients_are_not_sent_with_an_account_nor_past_mirrors() {
        let redirecting = |registries| mirror_of("{settings: {quay.io: {blobs: redirect}}}", registries);
        for registries in ["{quay.io: {accounts: [{helper: x}]}}", "{quay.io: {mirrors: [m.corp]}}"] {
            let error = format!("{:#}", redirecting(registries).unwrap_err());
            assert!(error.contains("settings: quay.io: blobs: redirect cannot go with"), "{error}");
        }
        for registries in ["{quay.io: {proxy: none}}", "{gcr.io: {accounts: [{helper: x}]}}"] {
            assert!(redirecting(registries).unwrap().is_some());
        }
    }

    #[test]
    fn a_mirror_does_not_ask_itself() {
        for (registry, listen, itself) in [
            ("127.0.0.1:5000", "127.0.0.1:5000", true),
            ("localhost:5000", "127.0.0.1:5000", true),
            ("[::1]:5000", "[::]:5000", true),
            ("127.0.0.1:5000", "0.0.0.0:5000", true),
            ("127.0.0.1:5001", "127.0.0.1:5000", false),
            ("10.0.0.1:5000", "127.0.0.1:5000", false),
            ("quay.io", "127.0.0.1:5000", false),
        ] {
            let mirror = mirror(&format!("{{upstreams: \"{registry}\"}}")).unwrap().unwrap();
            assert_eq!(mirror.listening(listen.parse().unwrap()).is_err(), itself, "{registry} {listen}");
        }
    }
}
