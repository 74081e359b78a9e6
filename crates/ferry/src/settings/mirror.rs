//! What a mirror shall do.

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
        Self::of(config).map(Some).with_context(within)
    }

    fn of(config: &MirrorConfig) -> anyhow::Result<Self> {
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
        })
    }

    /// Whether it has repositories of its own, which can be pushed to.
    pub(crate) fn takes_pushes(&self) -> bool {
        !self.addressing.front().hosted.is_empty()
    }

    /// The upstreams as people read them.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> =
            self.addressing.upstreams().iter().map(|upstream| upstream.registry.as_str()).collect();
        names.join(", ")
    }
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
