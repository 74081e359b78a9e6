use ferry_oci::{ImageReference, Malformed, Registry};

use super::{Addressed, Addressing, Asked, Form};
use crate::host::Host;
use crate::upstream::{Unknown, Upstream};

/// Why an image has no name in a form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmirrored {
    /// Its registry is not mirrored.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// The mirror has no domain that a reference could be written with.
    #[error("this mirror is configured without a domain that references can name")]
    NoDomain,
    /// No host of the mirror stands for its registry.
    #[error("no host of this mirror stands for {0}")]
    NoHost(Registry),
    /// The mirror would take the request for another image.
    #[error("asked for in this way, the mirror takes {0} for something else")]
    Taken(Box<ImageReference>),
    /// The name would be too long.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Addressing {
    /// The host to configure where clients can name one for a registry and send nothing else: dockerd's
    /// `registry-mirrors`. `None` if there is no such host by name; a default at all hosts is one without a name.
    pub fn host_for(&self, registry: &Registry) -> Option<Host> {
        let upstream = self.upstreams.get(registry)?;
        let default = self.front.defaults.iter().find(|(_, default)| default == registry);
        let domain = || self.front.domain.clone().filter(|_| self.front.default.as_ref() == Some(registry));
        self.alias_of(upstream).or_else(|| default.map(|(host, _)| host.clone())).or_else(domain)
    }

    /// What an image is called by clients that use the mirror in this form. For [`Form::Namespace`] and
    /// [`Form::Transparent`] that is its own name, once it is known that the mirror would be asked for the right image.
    ///
    /// # Errors
    /// [`Unmirrored`]; a name is only given if [`Addressing::address`] leads from it to the image.
    pub fn mirrored(&self, image: &ImageReference, form: Form) -> Result<ImageReference, Unmirrored> {
        let registry = &image.registry;
        let upstream =
            self.upstreams.get(registry).ok_or_else(|| self.upstreams.unknown(registry.as_str()))?;
        let mut repository = upstream.complete(image.repository.clone())?;
        let no_host = || Unmirrored::NoHost(registry.clone());
        let written = match form {
            Form::Prefix => {
                let domain = self.front.domain.as_ref().filter(|domain| domain.is_written());
                repository = format!("{}/{repository}", upstream.prefix()).parse()?;
                Some(domain.ok_or(Unmirrored::NoDomain)?.clone())
            }
            Form::AliasHost => Some(self.alias_of(upstream).ok_or_else(no_host)?),
            Form::Namespace => None,
            Form::Transparent => match self.host_for(registry) {
                None if self.front.default.as_ref() == Some(registry) => None,
                host => Some(host.ok_or_else(no_host)?),
            },
        };
        let host = written.as_ref().map(Host::to_string);
        let ns = (form == Form::Namespace).then_some(registry.as_str());
        let asked = Asked { host: host.as_deref(), ns, base: None, name: repository.as_str() };
        if !self.leads_to(&asked, upstream, image) {
            return Err(Unmirrored::Taken(Box::new(image.clone())));
        }
        let registry = match (form, host) {
            (Form::Prefix | Form::AliasHost, Some(host)) => host.parse()?,
            _ => registry.clone(),
        };
        Ok(ImageReference { registry, repository, ..image.clone() })
    }

    fn leads_to(&self, asked: &Asked<'_>, wanted: &Upstream, image: &ImageReference) -> bool {
        match self.address(asked) {
            Ok(Addressed::Upstream { upstream, name, .. }) => {
                upstream == wanted && Ok(name) == wanted.complete(image.repository.clone())
            }
            _ => false,
        }
    }

    /// The first host that stands for an upstream and can be written in references.
    pub(crate) fn alias_of(&self, upstream: &Upstream) -> Option<Host> {
        upstream.aliases.iter().filter_map(|alias| self.host_of(alias)).find(Host::is_written)
    }
}
