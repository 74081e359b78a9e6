use ferry_oci::{ImageReference, Registry};
use ferry_policy::address::Form;
use ferry_policy::clients::{Client, PublicUrl, Reached};

use super::{Access, Mirror};
use crate::cli::{ClientConfigArguments, Output, ResolveArguments};
use crate::config::Loaded;

/// Which configuration `ferry client-config` shall print.
#[derive(Debug)]
pub(crate) struct ClientConfig {
    pub(crate) client: Client,
    pub(crate) mirror: Reached,
    pub(crate) only: Vec<Registry>,
}

impl ClientConfig {
    pub(crate) fn new(typed: ClientConfigArguments, loaded: &Loaded) -> anyhow::Result<Self> {
        let ClientConfigArguments { client, mirror, upstreams: only } = typed;
        Ok(Self { client, mirror: reached(mirror, loaded)?, only })
    }
}

/// What `ferry resolve` shall look for.
#[derive(Debug)]
pub(crate) struct Resolve {
    pub(crate) image: ImageReference,
    pub(crate) mirror: Reached,
    pub(crate) mode: Option<Form>,
    pub(crate) output: Output,
}

impl Resolve {
    pub(crate) fn new(typed: ResolveArguments, loaded: &Loaded) -> anyhow::Result<Self> {
        let ResolveArguments { image, mirror, mode, output } = typed;
        Ok(Self { image: image.parse()?, mirror: reached(mirror, loaded)?, mode, output })
    }
}

/// A mirror at a URL: the one that is configured here, else a usual one.
fn reached(url: PublicUrl, loaded: &Loaded) -> anyhow::Result<Reached> {
    Ok(match Mirror::new(loaded, false)? {
        Some(mirror) => Reached::new(&mirror.addressing, url, wants_login(&mirror, loaded)),
        None => Reached::usual(url)?,
    })
}

/// Whoever may not read the file of users is still told to log in.
fn wants_login(mirror: &Mirror, loaded: &Loaded) -> bool {
    Access::new(loaded, Some(mirror))
        .map_or(true, |access| access.is_some_and(|access| access.asks_everybody(Some(mirror))))
}
