//! What people who use a mirror have to type and to configure: the names of an image there, the commands that pull it, and
//! the configuration of clients. The page of a mirror and the command line show the same.

mod commands;
mod configuration;
mod notes;
mod quote;
mod url;
mod ways;

pub use commands::{Pull, Tool, familiar, shell_word};
pub use configuration::{Client, Configuration, Snippet, Syntax};
pub use notes::{Language, Note};
pub use url::PublicUrl;
pub use ways::{Command, Way, described};

use ferry_oci::{ImageReference, Malformed, Name, Registry};

use crate::address::{Addressed, Addressing, Asked, Form, Front, Unmirrored};
use crate::host::{Alias, Host};
use crate::upstream::{Upstream, Upstreams};

/// A mirror as somebody reaches it.
#[derive(Debug, Clone)]
pub struct Reached {
    url: PublicUrl,
    /// As it is configured, at the port of the URL.
    configured: Addressing,
    /// As if the host of the URL were the mirror's name: names with a prefix mean the same at any host.
    here: Addressing,
    login: bool,
}

impl Reached {
    /// A mirror that is found at `url`, whatever it calls itself. With `login` it shows nothing to those who do not log in.
    pub fn new(addressing: &Addressing, url: PublicUrl, login: bool) -> Self {
        let ours = addressing.front().domain.as_ref();
        let ours =
            ours.filter(|domain| domain.name() == url.host().name() || domain.below(url.host()).is_some());
        let renamed = |domain: Host, upstreams: Upstreams| {
            let front = Front { domain: Some(domain), ..addressing.front().clone() };
            // What cannot have this name keeps its own.
            Addressing::new(upstreams, front).unwrap_or_else(|_| addressing.clone())
        };
        let (configured, here) = match ours {
            Some(domain) => {
                let named = renamed(domain.at_port_of(url.host()), addressing.upstreams().clone());
                (named.clone(), named)
            }
            None => (addressing.clone(), renamed(url.host().clone(), without_labels(addressing.upstreams()))),
        };
        Self { url, configured, here, login }
    }

    /// A mirror of the built-in registries with the host of `url` for its domain, of which nothing else is known.
    ///
    /// # Errors
    /// [`Malformed`] if that host is one of the registries.
    pub fn usual(url: PublicUrl) -> Result<Self, Malformed> {
        let front = Front {
            domain: Some(url.host().clone()),
            default: Some(Registry::docker_hub()),
            ..Front::default()
        };
        Ok(Self::new(&Addressing::new(Upstreams::built_in(), front)?, url, false))
    }

    /// Where it is reached.
    pub fn url(&self) -> &PublicUrl {
        &self.url
    }

    /// What is mirrored, and how it is called.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.configured.upstreams().iter()
    }

    /// Those who do not log in see nothing.
    pub fn wants_login(&self) -> bool {
        self.login
    }

    /// What stands in front of the repositories of an upstream in a form: `cr.example.cn/quay.io`, `quay.cr.example.cn`;
    /// `None` if nothing does.
    pub fn place(&self, upstream: &Upstream, form: Form) -> Option<String> {
        match form {
            Form::Prefix => self.prefix(upstream).ok(),
            Form::AliasHost => self.configured.alias_of(upstream).map(|host| host.to_string()),
            Form::Namespace | Form::Transparent => None,
        }
    }

    /// What an image is called; see [`Addressing::mirrored`].
    fn name(&self, image: &ImageReference, form: Form) -> Result<ImageReference, Unmirrored> {
        match form {
            Form::Prefix => self.here.mirrored(image, form),
            Form::AliasHost | Form::Namespace | Form::Transparent => self.configured.mirrored(image, form),
        }
    }

    /// What stands for an upstream in front of its repositories: `cr.example.cn/quay.io`.
    fn prefix(&self, upstream: &Upstream) -> Result<String, Unmirrored> {
        let domain = self.here.front().domain.as_ref().filter(|domain| domain.is_written());
        Ok(format!("{}/{}", domain.ok_or(Unmirrored::NoDomain)?, upstream.prefix()))
    }

    /// A host at which names mean Docker Hub, for clients that send nothing else: the one that was named if it is.
    fn hub(&self) -> Option<Host> {
        let hub = Registry::docker_hub();
        let name: Name = "library/alpine".parse().ok()?;
        let host = self.url.host().to_string();
        let asked = Asked { host: Some(&host), name: name.as_str(), ..Asked::default() };
        match self.configured.address(&asked) {
            Ok(Addressed::Upstream { upstream, .. }) if upstream.registry == hub => {
                Some(self.url.host().clone())
            }
            _ => self.configured.host_for(&hub),
        }
    }

    /// The upstreams of these registries, all if there are none.
    fn chosen(&self, only: &[Registry]) -> Result<Vec<&Upstream>, Unmirrored> {
        if only.is_empty() {
            return Ok(self.upstreams().collect());
        }
        let upstreams = self.configured.upstreams();
        let found = |one: &Registry| Ok(upstreams.get(one).ok_or_else(|| upstreams.unknown(one.as_str()))?);
        only.iter().map(found).collect()
    }
}

/// Labels mean nothing below a host that is not configured as the domain.
fn without_labels(upstreams: &Upstreams) -> Upstreams {
    let bare = |upstream: &Upstream| Upstream {
        aliases: upstream.aliases.iter().filter(|alias| matches!(alias, Alias::Host(_))).cloned().collect(),
        ..upstream.clone()
    };
    // With less in it, the list holds no new contradiction.
    Upstreams::new(upstreams.iter().map(bare).collect()).unwrap_or_else(|_| upstreams.clone())
}

#[cfg(test)]
mod tests;
