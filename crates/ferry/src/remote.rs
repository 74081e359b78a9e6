//! The one client that all registries of a run are reached through.

use std::sync::Arc;

use anyhow::{Context, bail};
use ferry_oci::Registry;
use ferry_registry::{Anonymous, Client, ClientOptions};

use ferry_store::Store;
use ferry_transfer::{Mirror, Mirrors};

use crate::Environment;
use crate::config::{Account, Registries, Source};
use crate::credentials::{Logins, OfSides};
use crate::settings::MirrorOf;

/// How registries are reached, as configured.
pub(crate) fn options(registries: &Registries) -> ClientOptions {
    let (usual, sites) = (registries.usual.clone(), registries.sites.clone());
    ClientOptions { usual, sites, ..ClientOptions::default() }
}

/// Checks what only shows when registries are used: whether connections can be set up as configured, and whether secrets
/// are where they are said to be. Commands are not run for that.
pub(crate) fn check(registries: &Registries, environment: &Environment) -> anyhow::Result<()> {
    let client = Client::new(options(registries), Arc::new(Anonymous))?;
    for registry in registries.sites.keys() {
        client.registry(registry)?;
    }
    for (registry, account) in
        registries.accounts.iter().flat_map(|(to, all)| all.iter().map(move |one| (to, one)))
    {
        let source = match account {
            Account::Password { password, .. } => password,
            Account::IdentityToken(token) => token,
            Account::Helper(_) | Account::Cloud(_) => continue,
        };
        let within = || format!("registries: {registry}: accounts");
        match source {
            Source::Env(name) if environment.variable(name).is_none() => {
                bail!("{}: the environment variable {name} is not set", within());
            }
            Source::File(path) => {
                std::fs::read_to_string(path)
                    .with_context(|| format!("{}: cannot read {}", within(), path.display()))?;
            }
            Source::Env(_) | Source::Command(_) => {}
        }
    }
    Ok(())
}

/// A registry behind those of `mirrors` that are its own, each opened by `open`.
pub(crate) fn mirrored(
    mirrors: &[MirrorOf],
    registry: &Registry,
    open: impl Fn(&Registry) -> ferry_store::Result<Arc<dyn Store>>,
) -> ferry_store::Result<Arc<dyn Store>> {
    let itself = open(registry)?;
    let of_it = mirrors.iter().filter(|(of, _)| of == registry);
    let mirror =
        |(_, place): &MirrorOf| Ok(Mirror { store: open(&place.registry)?, prefix: place.prefix.clone() });
    let mirrors = of_it.map(mirror).collect::<ferry_store::Result<Vec<Mirror>>>()?;
    Ok(if mirrors.is_empty() { itself } else { Arc::new(Mirrors::new(mirrors, itself)) })
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
