//! What can be written about who may use a registry.

use std::path::PathBuf;
use std::str::FromStr;

use ferry_policy::access::{Action, IpNet, Place, network};
use ferry_policy::pattern::Pattern;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{OneOrMore, Parsed};

/// Who may use a registry, and for what.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessConfig {
    /// How people log in: open (they need not; default), basic (a password with every request) or token (what docker login
    /// speaks best, and the only one where Docker can be used both with and without a login).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Login>,
    /// The file of users, with lines NAME:HASH as ferry user add and htpasswd -B write them. Needed for basic and token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) users: Option<PathBuf>,
    /// Who may have what: the first rule that fits decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rules: Vec<AccessRule>,
    /// Who may read where no rule fits: allow (everybody), users (who has logged in) or deny (nobody). By default users if the
    /// mode is basic or token, else allow. To push always takes a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otherwise: Option<Otherwise>,
    /// Where clients get tokens, if that is not /token at the host that they ask: https://cr.example.cn/token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) realm: Option<String>,
    /// What the registry is called in tokens and where people log in; servers that share `keys` need the same. By default
    /// the mirror's domain, else ferry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    /// The directory of the keys that tokens are signed with, which several servers may share: access-keys in the storage by
    /// default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<PathBuf>,
    /// Networks of proxies whose X-Forwarded-For, -Proto and -Host, or Forwarded, are believed: 10.0.0.0/8. None by default.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) trusted_proxies: OneOrMore<Parsed<Network>>,
}

/// How people log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Login {
    /// They need not.
    Open,
    /// With name and password in every request.
    Basic,
    /// For tokens.
    Token,
}

/// Who may read where no rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Otherwise {
    /// Everybody.
    Allow,
    /// Who has logged in.
    Users,
    /// Nobody.
    Deny,
}

/// A rule: one of `allow`, `privilege` and `deny`, and for whom and what. It fits if all that is written fits.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AccessRule {
    /// Allow this: read, push (brings read), delete, all; list (tags and repositories) alone.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) allow: OneOrMore<Parsed<Grants>>,
    /// The same, and no limit of speed or quota applies.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) privilege: OneOrMore<Parsed<Grants>>,
    /// Forbid this: read, push, delete, all, list.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) deny: OneOrMore<Parsed<Grants>>,
    /// What people are told whom `deny` meets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// Patterns of the names of users: ci-*. "*" is for everybody who has logged in; without this the rule is for strangers,
    /// too.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) users: OneOrMore<Parsed<Pattern>>,
    /// Networks that the client is in: 10.0.0.0/8, 192.0.2.7.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) addresses: OneOrMore<Parsed<Network>>,
    /// Patterns of the registries that are mirrored: quay.io, "*.gcr.io"; hosted is what was pushed here.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) upstreams: OneOrMore<Parsed<Place>>,
    /// Patterns of repositories as they are called at their registry: library/*, team/**.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) repositories: OneOrMore<Parsed<Pattern>>,
    /// Patterns of tags. What is asked for by digest has none, and is not kept from anybody by its tag.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) tags: OneOrMore<Parsed<Pattern>>,
    /// Patterns of platforms: linux/s390x, linux/arm/v7, windows/*.
    #[serde(skip_serializing_if = "is_none")]
    pub(crate) platforms: OneOrMore<Parsed<Pattern>>,
}

fn is_none<T>(list: &OneOrMore<T>) -> bool {
    list.0.is_empty()
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grants {
    Read,
    List,
    Push,
    Delete,
    All,
}

impl Grants {
    /// What it allows. Nobody can push who cannot look whether it is there.
    pub(crate) fn allowed(self) -> &'static [Action] {
        match self {
            Self::Read => &[Action::Pull, Action::List],
            Self::List => &[Action::List],
            Self::Push => &[Action::Pull, Action::List, Action::Push],
            Self::Delete => &[Action::Delete],
            Self::All => &[Action::Pull, Action::List, Action::Push, Action::Delete],
        }
    }

    /// What it forbids.
    pub(crate) fn denied(self) -> &'static [Action] {
        match self {
            Self::Push => &[Action::Push],
            Self::Read | Self::List | Self::Delete | Self::All => self.allowed(),
        }
    }
}

impl FromStr for Grants {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "read" => Ok(Self::Read),
            "list" => Ok(Self::List),
            "push" => Ok(Self::Push),
            "delete" => Ok(Self::Delete),
            "all" => Ok(Self::All),
            _ => Err("read, list, push, delete or all is needed"),
        }
    }
}

/// A network as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network(pub(crate) IpNet);

impl FromStr for Network {
    type Err = ferry_oci::Malformed;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        network(text).map(Self)
    }
}
