//! The one client that all registries of a run are reached through.

use std::sync::Arc;

use ferry_registry::{Client, ClientOptions};

use crate::Environment;
use crate::config::Registries;
use crate::credentials::{Logins, OfSides};

/// How registries are reached, as configured.
pub(crate) fn options(registries: &Registries) -> ClientOptions {
    let (usual, sites) = (registries.usual.clone(), registries.sites.clone());
    ClientOptions { usual, sites, ..ClientOptions::default() }
}

/// A client that behaves as `options` say and finds its credentials.
pub(crate) fn client(
    options: ClientOptions,
    of_sides: OfSides,
    registries: Registries,
    environment: Environment,
) -> ferry_store::Result<Arc<Client>> {
    let logins = Logins::new(of_sides, registries, environment, &options)?;
    Client::new(options, Arc::new(logins))
}
