//! What can be written about a mirror.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use ferry_oci::{Malformed, Registry};
use ferry_policy::host::{Alias, Host};
use ferry_policy::pattern::Pattern;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{OneOrMore, Parsed};

/// A mirror of other registries: what is asked for is fetched from them once and kept in the storage.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MirrorConfig {
    /// The name under which the mirror is reached: cr.example.cn. A registry with the alias gcr is then found at
    /// gcr.cr.example.cn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<Parsed<Host>>,
    /// The registries that are mirrored, and no others; built_in stands for those that every mirror knows: [built_in] by
    /// default.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) upstreams: OneOrMore<Parsed<Listed>>,
    /// Hosts that stand for one of the registries, beside those that are built in: a word is below `domain`, anything else a
    /// whole host.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) aliases: BTreeMap<Parsed<Registry>, OneOrMore<Parsed<Alias>>>,
    /// The registry that is meant where a name says none: docker.io by default, if it is mirrored. With none such names
    /// are unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<Parsed<DefaultUpstream>>,
    /// The same for single hosts under which the mirror is reached: {hub.example.cn: docker.io}.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) default_at: BTreeMap<Parsed<Host>, Parsed<Registry>>,
    /// Patterns of names that are the mirror's own repositories, which can be pushed to: team/**. None by default.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) hosted: OneOrMore<Parsed<Pattern>>,
    /// How long a tag is served without asking its registry whether it has moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) freshness: Option<FreshnessConfig>,
    /// How long an image is still served that its registry does not show any more, if it was fetched without an account: 7d
    /// by default, 0s for not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_withdrawn: Option<Parsed<Term>>,
    /// What is different for single registries.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settings: BTreeMap<Parsed<Registry>, UpstreamConfig>,
}

/// What is different for one registry of a mirror.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpstreamConfig {
    /// How long its tags are served without asking whether they have moved. Its rules go before those for all registries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) freshness: Option<FreshnessConfig>,
    /// How long an image is still served that it does not show any more, if it was fetched without an account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_withdrawn: Option<Parsed<Term>>,
    /// Whether its tags are listed to those who ask: on by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Switch>,
    /// What becomes of a blob that is not in the storage: proxy fetches and keeps it, as is the default; redirect sends clients to
    /// where the registry itself sends them, and keeps nothing. Only for a registry without accounts and mirrors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blobs: Option<Blobs>,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// What becomes of blobs that are not in the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Blobs {
    /// They are fetched and kept.
    Proxy,
    /// Clients are sent to where they are.
    Redirect,
}

/// How long tags are believed.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FreshnessConfig {
    /// Tags that move, as latest and 1.27 do: 1m by default, 0s to ask each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) moving: Option<Parsed<Term>>,
    /// Tags that look like a version that was released once, as 1.27.4 does: 1d by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version_like: Option<Parsed<Term>>,
    /// Tags that fit a pattern; the first that fits decides, before `moving` and `version_like`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rules: Vec<FreshnessRule>,
}

/// How long the tags of a pattern are believed.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FreshnessRule {
    /// The pattern of the tags: nightly-*.
    pub(crate) tags: Parsed<Pattern>,
    /// How long: 30s, 12h, 0s.
    #[serde(rename = "for")]
    pub(crate) term: Parsed<Term>,
}

fn is_none<T>(list: &OneOrMore<T>) -> bool {
    list.0.is_empty()
}

/// What stands in the list of upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Those that every mirror knows.
    BuiltIn,
    /// This one.
    One(Registry),
}

impl FromStr for Listed {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "built_in" => Ok(Self::BuiltIn),
            "builtin" | "built-in" => Err(Malformed {
                what: "registry",
                input: text.to_owned(),
                reason: "write built_in for those that every mirror knows".to_owned(),
            }),
            _ => text.parse().map(Self::One),
        }
    }
}

/// The registry of names without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DefaultUpstream(pub(crate) Option<Registry>);

impl FromStr for DefaultUpstream {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|registry| Self(Some(registry))) }
    }
}

/// A time that may be none at all: `0s`, `90s`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term(pub(crate) Duration);

impl FromStr for Term {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self).map_err(|_| "a time is needed, as in 0s, 90s or 7d")
    }
}
