use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use ferry_storage::{CheckOptions, CollectOptions, Depth, StorageOptions};

use super::Mirror;
use super::operation::Operation;
use crate::Environment;
use crate::cli::{CheckArguments, GcArguments, Output, ServeArguments, StatsArguments, StorageVerb};
use crate::config::Loaded;

/// What `ferry serve` shall do.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) storage: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) options: StorageOptions,
    /// How often the storage is put in order.
    pub(crate) upkeep_every: Duration,
    /// What is mirrored, if anything is.
    pub(crate) mirror: Option<Mirror>,
    /// How it is looked after.
    pub(crate) operation: Operation,
    /// Others may reach it.
    pub(crate) open: bool,
}

/// Where to listen if nobody says.
const LISTEN: &str = "127.0.0.1:5000";

impl Serve {
    /// What is not typed is as configured.
    pub(crate) fn new(
        typed: ServeArguments,
        loaded: &Loaded,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let configured = loaded.config.serve.clone().unwrap_or_default();
        let storage = directory(typed.storage, loaded)?;
        let mut options = storage_options(loaded);
        options.size_limit = typed.size_limit.map(|limit| limit.as_u64()).or(options.size_limit);
        options.evict_hosted |= typed.evict_pushed;
        options.untagged_older_than = typed.untagged_older_than.or(options.untagged_older_than);
        let upkeep_every = configured.upkeep_every.map_or(UPKEEP_EVERY, |every| every.value.0);
        let open = typed.open || configured.open;
        let mirror = Mirror::new(loaded, typed.mirror)?;
        let allowed = if open { Ok(()) } else { Err(risk(mirror.as_ref())) };
        let listen = match (typed.listen, configured.listen) {
            (Some(listen), _) => listening(&listen, ("--listen", "add --open"), allowed)?,
            (None, Some(listen)) => listening(&listen, (&in_file(loaded), "write open: true"), allowed)?,
            (None, None) => listening(LISTEN, ("--listen", "add --open"), allowed)?,
        };
        if let Some(mirror) = &mirror {
            mirror.listening(listen)?;
        }
        let operation = Operation::new(loaded, environment)?;
        if operation.admin.as_ref().is_some_and(|admin| admin.listen == listen && listen.port() != 0) {
            bail!("{}: serve: admin: listen: the registry listens on {listen}", loaded.name());
        }
        Ok(Self { storage, listen, options, upkeep_every, mirror, operation, open })
    }

    /// Checks what is configured.
    pub(crate) fn check(loaded: &Loaded, environment: &Environment) -> anyhow::Result<()> {
        let configured = loaded.config.serve.clone().unwrap_or_default();
        let listen = configured.listen.as_deref().unwrap_or(LISTEN);
        let mirror = Mirror::new(loaded, false)?;
        Operation::new(loaded, environment)?;
        let allowed = if configured.open { Ok(()) } else { Err(risk(mirror.as_ref())) };
        listening(listen, (&in_file(loaded), "write open: true"), allowed).map(|_| ())
    }
}

/// How often the storage is put in order if nobody says.
const UPKEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// The directory that holds the images.
fn directory(typed: Option<PathBuf>, loaded: &Loaded) -> anyhow::Result<PathBuf> {
    let configured = loaded.config.serve.as_ref().and_then(|serve| serve.storage.as_ref());
    let directory = typed.or_else(|| configured.map(|path| loaded.resolve(path)));
    directory.context("--storage DIR is needed: the directory that holds the images")
}

fn storage_options(loaded: &Loaded) -> StorageOptions {
    let configured = loaded.config.serve.clone().unwrap_or_default();
    let usual = StorageOptions::default();
    StorageOptions {
        unused_older_than: configured.unused_older_than.map(|age| age.value.0),
        size_limit: configured.size_limit.map(|limit| limit.value.as_u64()),
        evict_hosted: configured.evict_pushed,
        untagged_older_than: configured.untagged_older_than.map(|age| age.value.0),
        upload_expiry: configured.upload_expiry.map_or(usual.upload_expiry, |age| age.value.0),
        grace: configured.grace.map_or(usual.grace, |age| age.value.0),
        ..usual
    }
}

/// What `ferry storage` shall do, and where.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) storage: PathBuf,
    pub(crate) options: StorageOptions,
    pub(crate) output: Output,
    pub(crate) task: Task,
}

/// What is done to a storage.
#[derive(Debug)]
pub(crate) enum Task {
    Check(CheckOptions),
    Collect(CollectOptions),
    Count,
}

impl Upkeep {
    pub(crate) fn new(typed: StorageVerb, loaded: &Loaded) -> anyhow::Result<Self> {
        let mut options = storage_options(loaded);
        let (of, task) = match typed {
            StorageVerb::Check(CheckArguments { of, repair, quick }) => {
                let depth = if quick { Depth::Sizes } else { Depth::Digests };
                (of, Task::Check(CheckOptions { depth, repair }))
            }
            StorageVerb::Gc(GcArguments { of, untagged_older_than, grace }) => {
                let untagged_older_than = untagged_older_than.or(options.untagged_older_than);
                options.grace = grace.unwrap_or(options.grace);
                (of, Task::Collect(CollectOptions { grace, untagged_older_than, orphans: true }))
            }
            StorageVerb::Stats(StatsArguments { of }) => (of, Task::Count),
        };
        let storage = directory(of.storage, loaded)?;
        if !storage.is_dir() {
            bail!("{}: there is no such directory", storage.display());
        }
        Ok(Self { storage, options, output: of.output, task })
    }
}

fn in_file(loaded: &Loaded) -> String {
    format!("{}: serve: listen:", loaded.name())
}

/// What others could do who reach the address.
fn risk(mirror: Option<&Mirror>) -> &'static str {
    match mirror.is_none_or(Mirror::takes_pushes) {
        true => "push and delete",
        false => "fetch images through the mirror",
    }
}

/// Where to listen; others must not reach it unless that is `allowed`, because of what they could do.
fn listening(
    text: &str,
    (place, remedy): (&str, &str),
    allowed: Result<(), &str>,
) -> anyhow::Result<SocketAddr> {
    let listen: SocketAddr = text.parse().with_context(|| {
        format!("{place} {text}: write an address and a port, as in 127.0.0.1:5000 or [::1]:5000")
    })?;
    if let Err(risk) = allowed
        && !listen.ip().is_loopback()
    {
        bail!(
            "{place} {listen}: others could reach this address, and {risk} without a password; {remedy} \
             if that is meant, or listen on 127.0.0.1"
        );
    }
    Ok(listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_let_in_only_when_asked() {
        let serve = |listen: &str, open| {
            let (storage, listen) = (Some("d".into()), Some(listen.to_owned()));
            let typed = ServeArguments {
                storage,
                listen,
                open,
                mirror: false,
                untagged_older_than: None,
                size_limit: None,
                evict_pushed: false,
            };
            Serve::new(typed, &Loaded::default(), &Environment::default())
        };
        assert!(serve("127.0.0.1:0", false).is_ok() && serve("[::1]:5000", false).is_ok());
        assert!(serve("0.0.0.0:5000", false).is_err() && serve("0.0.0.0:5000", true).is_ok());
        assert!(serve("localhost", true).is_err());
    }
}
