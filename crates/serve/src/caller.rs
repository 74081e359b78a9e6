//! Who asks, and what was given.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ferry_oci::{Name, Reference, Registry};
use ferry_policy::access::Action;
use http::Extensions;

/// Where a connection comes from. [`crate::serve`] puts it into the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its other end.
    pub address: SocketAddr,
    /// It is encrypted.
    pub secure: bool,
}

/// Who asks. Stands in the extensions of a request once it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Where the request comes from.
    pub address: IpAddr,
    /// The client speaks HTTPS, to us or to a proxy before us.
    pub secure: bool,
    /// Who has logged in.
    pub user: Option<Arc<str>>,
}

impl Caller {
    /// The other end of the connection, who has not logged in. A request that came over no connection comes from nowhere.
    pub fn at(extensions: &Extensions) -> Self {
        let peer = extensions.get::<Peer>();
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self {
            address: peer.map_or(nowhere, |peer| peer.address.ip().to_canonical()),
            secure: peer.is_some_and(|peer| peer.secure),
            user: None,
        }
    }

    /// As it was found out, else [`Caller::at`].
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| Self::at(extensions))
    }
}

/// What a request to the API was about. Stands in the extensions of its answer, also of an error, once it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Whose repository; `None` if it is hosted here.
    pub upstream: Option<Registry>,
    /// The repository there.
    pub repository: Name,
    /// The manifest or the blob, as it was asked for; `None` for listings and uploads.
    pub reference: Option<Reference>,
    /// What for.
    pub action: Action,
    /// Its body is that of a blob.
    pub blob: bool,
    /// No rule limits this client here: `access::Decision::Privileged`.
    pub privileged: bool,
}
