//! What a mirror shall do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use ferry_oci::Registry;
use ferry_policy::address::{Addressing, Front};
use ferry_policy::freshness::Freshness;
use ferry_policy::upstream::{Upstream, Upstreams};

use crate::config::{DefaultUpstream, FreshnessConfig, Listed, Loaded, MirrorConfig};

/// What a mirror shall do.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) addressing: Addressing,
    pub(crate) freshness: Freshness,
    /// `None` for the time that is usual.
    pub(crate) keep_withdrawn: Option<Duration>,
    /// What is configured that decides how upstreams are asked and what is kept of them, as text: while it stays the same
    /// their stores can stay.
    pub(crate) behind: String,
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
        Self::of(config, behind(config, loaded)).map(Some).with_context(within)
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
        Ok(Self {
            addressing: Addressing::new(upstreams, front)?,
            freshness: freshness(config.freshness.clone().unwrap_or_default()),
            keep_withdrawn: config.keep_withdrawn.as_ref().map(|term| term.value.0),
            behind,
        })
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
    let config = MirrorConfig {
        domain: front.domain,
        upstreams: front.upstreams,
        aliases: front.aliases,
        default: front.default,
        default_at: front.default_at,
        hosted: front.hosted,
        freshness: front.freshness,
        ..config.clone()
    };
    serde_json::json!([config, loaded.config.registries]).to_string()
}

/// Whether a registry is found where we listen, as far as its name tells.
fn is_at(registry: &Registry, listen: SocketAddr) -> bool {
    let Some((host, port)) = registry.as_str().rsplit_once(':') else { return false };
    let own = |ip: IpAddr| ip == listen.ip() || (listen.ip().is_unspecified() && ip.is_loopback());
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    port.parse() == Ok(listen.port()) && (host == "localhost" || address.is_ok_and(own))
}

fn upstreams(config: &MirrorConfig) -> anyhow::Result<Upstreams> {
    let mut listed = Vec::new();
    for one in &config.upstreams.0 {
        match &one.value {
            Listed::BuiltIn => listed.extend(Upstreams::built_in().iter().cloned()),
            Listed::One(registry) => listed.push(Upstream::new(registry.clone())),
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

fn freshness(config: FreshnessConfig) -> Freshness {
    let usual = Freshness::default();
    Freshness {
        moving: config.moving.map_or(usual.moving, |term| term.value.0),
        version_like: config.version_like.map_or(usual.version_like, |term| term.value.0),
        rules: config.rules.into_iter().map(|rule| (rule.tags.value, rule.term.value.0)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ferry_policy::address::{Addressed, Asked};

    use super::*;
    use crate::Environment;

    fn mirror(text: &str) -> anyhow::Result<Option<Mirror>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ferry.yaml");
        std::fs::write(&path, format!("serve:\n  mirror: {text}\n")).unwrap();
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
            assert_eq!((mirror.freshness, mirror.keep_withdrawn), (Freshness::default(), None));
        }
    }

    #[test]
    fn what_is_configured_counts() {
        let text = "{domain: cr.example.cn, upstreams: [quay.io, r.corp:5000], aliases: {r.corp:5000: corp}, \
             default_at: {h.example.cn: quay.io}, hosted: own/**, keep_withdrawn: 0s, \
             freshness: {moving: 2s, rules: [{tags: latest, for: 0s}]}}";
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
        assert_eq!(mirror.keep_withdrawn, Some(Duration::ZERO));
        let seconds = |tag: &str| mirror.freshness.for_tag(&tag.parse().unwrap()).as_secs();
        assert_eq!((seconds("latest"), seconds("stable"), seconds("v1.2.3")), (0, 2, 86_400));
    }

    #[test]
    fn contradictions_are_named() {
        for (text, says) in [
            ("{upstreams: [quay.io, quay.io]}", "it is listed twice"),
            ("{upstreams: quay.io, aliases: {gcr.io: gcr}}", "aliases: gcr.io: it is none of the upstreams"),
            ("{upstreams: quay.io, default: docker.io}", "docker.io"),
            ("{aliases: {quay.io: gcr}}", "gcr"),
            ("{domain: quay.io}", "ask itself"),
        ] {
            let error = format!("{:#}", mirror(text).unwrap_err());
            assert!(error.contains("serve: mirror") && error.contains(says), "{text}: {error}");
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
