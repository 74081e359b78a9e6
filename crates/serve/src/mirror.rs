//! What a mirror adds: whose repository a request means, and what the answer says of where it came from.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ferry_oci::{ErrorCode, Name, Reference, Registry};
use ferry_policy::address::{Addressed, Addressing, Asked, Form};
use ferry_policy::upstream::Upstream;
use ferry_store::{Repository, Store, Told};
use http::header::{AGE, HOST};
use http::request::Parts;
use http::{HeaderName, Response};

use crate::answer::{Answer, Headers, header};
use crate::body::ResponseBody;
use crate::error::{Failure, Thing};
use crate::manifests;

/// The namespace that was understood: distribution-spec, "Registry Proxying".
pub(crate) const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
/// RFC 9211.
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The upstreams of a mirror: how requests name them, and the store that answers for each.
pub struct Mirror {
    addressing: Addressing,
    stores: HashMap<Registry, Arc<dyn Store>>,
    unlisted: HashSet<Registry>,
}

/// A repository that a request means.
pub(crate) enum Place<'a> {
    Hosted(Name),
    Upstream(Proxied<'a>),
}

/// A repository of an upstream.
pub(crate) struct Proxied<'a> {
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) registry: &'a Registry,
    pub(crate) name: Name,
    /// The client named the upstream in `ns`.
    pub(crate) by_namespace: bool,
    /// Its tags are listed to those who ask.
    pub(crate) lists_tags: bool,
}

impl Mirror {
    /// Opens the store of every upstream; each is asked for all repositories of its upstream, by their names there and, as
    /// it knows of no others, under [`ferry_store::Scope::Hosted`].
    ///
    /// # Errors
    /// The first of `open`.
    pub fn new<E>(
        addressing: Addressing,
        mut open: impl FnMut(&Upstream) -> Result<Arc<dyn Store>, E>,
    ) -> Result<Self, E> {
        let upstreams = addressing.upstreams().iter();
        let stores = upstreams.map(|upstream| Ok((upstream.registry.clone(), open(upstream)?)));
        let stores = stores.collect::<Result<_, E>>()?;
        Ok(Self { addressing, stores, unlisted: HashSet::new() })
    }

    /// Lists no tags of these upstreams.
    #[must_use]
    pub fn without_tags(mut self, upstreams: impl IntoIterator<Item = Registry>) -> Self {
        self.unlisted.extend(upstreams);
        self
    }

    /// What a request means.
    pub(crate) fn find(&self, asked: &Asked<'_>) -> Result<Place<'_>, Failure> {
        let addressed =
            self.addressing.address(asked).map_err(|e| Failure::Malformed(ErrorCode::NameInvalid, e))?;
        match addressed {
            Addressed::Hosted(name) => Ok(Place::Hosted(name)),
            Addressed::Unknown(unknown) => Err(Failure::UnknownUpstream(unknown)),
            Addressed::Upstream { upstream, name, form } => {
                let registry = &upstream.registry;
                let store = self.stores.get(registry).ok_or_else(|| {
                    Failure::UnknownUpstream(self.addressing.upstreams().unknown(registry.as_str()))
                })?;
                let (by_namespace, lists_tags) = (form == Form::Namespace, !self.unlisted.contains(registry));
                Ok(Place::Upstream(Proxied { store, registry, name, by_namespace, lists_tags }))
            }
        }
    }

    /// Whether a name at this host is a repository of the mirror's own.
    pub(crate) fn hosts(&self, host: Option<&str>, name: &Name) -> bool {
        let asked = Asked { host, name: name.as_str(), ..Asked::default() };
        matches!(self.find(&asked), Ok(Place::Hosted(_)))
    }
}

/// The host that a request is for (RFC 9112 section 3.2.2: what stands in the target goes before the header).
pub(crate) fn host(parts: &Parts) -> Option<&str> {
    parts.uri.authority().map(|authority| authority.as_str()).or_else(|| header(parts, HOST))
}

/// A manifest of an upstream. By tag it also says how old the answer is; by digest there is no age.
pub(crate) async fn manifest(repository: &dyn Repository, reference: &Reference, parts: &Parts) -> Answer {
    if let Reference::Digest(_) = reference {
        return manifests::read(repository, reference, parts).await;
    }
    let resolved = repository.resolve(reference).await.map_err(Failure::of(Thing::Manifest))?;
    let response = match manifests::without_body(&resolved.descriptor, parts) {
        Some(response) => response,
        None => manifests::whole(repository, &Reference::Digest(resolved.descriptor.digest)).await?,
    };
    Ok(aged(response, resolved.told))
}

/// Says how long ago the upstream confirmed the answer, and whether it was asked (RFC 9211). What is no older than this
/// request was asked for.
pub(crate) fn aged(response: Response<ResponseBody>, told: Told) -> Response<ResponseBody> {
    let status = match told {
        Told { stale: true, .. } => "ferry; hit; detail=stale",
        Told { renewed: true, .. } => "ferry; fwd=stale",
        Told { age, .. } if age.is_zero() => MISS,
        Told { .. } => HIT,
    };
    response.with(AGE, told.age.as_secs()).with(CACHE_STATUS, status)
}

const HIT: &str = "ferry; hit";
const MISS: &str = "ferry; fwd=miss";

/// Says whether the upstream was asked for the content.
pub(crate) fn from_cache(response: Response<ResponseBody>, hit: bool) -> Response<ResponseBody> {
    response.with(CACHE_STATUS, if hit { HIT } else { MISS })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::*;
    use crate::answer::nothing;

    #[test]
    fn answers_say_how_old_they_are_and_where_they_come_from() {
        let said = |age: u64, stale, renewed| {
            let told = Told { age: Duration::from_millis(age), stale, renewed };
            let response = aged(nothing(StatusCode::OK), told);
            let header = |name| response.headers()[name].to_str().unwrap().to_owned();
            (header(AGE), header(CACHE_STATUS))
        };
        let expected = |age: &str, status: &str| (age.to_owned(), status.to_owned());
        assert_eq!(said(0, false, false), expected("0", "ferry; fwd=miss"));
        assert_eq!(said(0, false, true), expected("0", "ferry; fwd=stale"));
        assert_eq!(said(1500, false, false), expected("1", "ferry; hit"));
        assert_eq!(said(90_000, true, false), expected("90", "ferry; hit; detail=stale"));
        assert_eq!(said(0, true, false), expected("0", "ferry; hit; detail=stale"));
    }
}
