use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ferry_storage::{FileStaging, StagingOptions};
use ferry_store::{Side, Staging};
use ferry_transfer::{Copier, Options, Outcome};
use tokio_util::sync::CancellationToken;

use crate::Environment;
use crate::endpoint::Endpoint;
use crate::exit::{self, Exit};
use crate::report::{self, Summary};
use crate::settings::{Copy, Pair, StateDir};
use crate::stores::Stores;

/// Runs `ferry copy`.
pub(crate) async fn copy(
    settings: Copy,
    environment: Environment,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let mut stores = Stores::new(&environment)?;
    let staging = staging(&settings.state_dir).await?;
    let (mut pairs, mut jobs) = (Vec::new(), Vec::new());
    for pair in settings.pairs {
        let (pair, job) = stores.job(pair).await?;
        pairs.push(pair);
        jobs.push(job);
    }
    let options = Options { staging, recheck: settings.recheck, ..Options::default() };
    let copier = Copier::new(options, stop);
    let mut summary = Summary::default();
    let mut hints: Vec<String> = Vec::new();
    copier
        .copy_all(jobs, |place, outcome| {
            say(&report::line(&pairs[place], &outcome));
            hints.extend(hint(&pairs[place], &outcome).filter(|hint| !hints.contains(hint)));
            summary.add(&outcome);
        })
        .await;
    say(&summary.text(started.elapsed()));
    for hint in hints {
        eprintln!("hint: {hint}");
    }
    if summary.exit() == Exit::Stopped {
        eprintln!("hint: stopped before everything was done; run the same command again to go on");
    }
    Ok(summary.exit())
}

/// Prints a line. That nobody reads any more is no reason to end a copy.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn hint(pair: &Pair, outcome: &Outcome) -> Option<String> {
    let Outcome::Failed { error, .. } = outcome else { return None };
    let endpoint = match error.side() {
        Some(Side::Source) => &pair.source,
        Some(Side::Target) => &pair.target,
        None => return exit::hint(error, None),
    };
    let registry = match endpoint {
        Endpoint::Registry(image) => Some(image.registry.as_str()),
        Endpoint::Layout { .. } => None,
    };
    exit::hint(error, registry)
}

async fn staging(state_dir: &StateDir) -> anyhow::Result<Option<Arc<dyn Staging>>> {
    let opened = match state_dir {
        StateDir::Given(directory) => Some(open(directory).await?),
        StateDir::Usual(directory) => open(directory)
            .await
            .inspect_err(|error| {
                tracing::warn!(
                    "{error}; a copy that is cut short will start its blobs afresh (see --state-dir)"
                );
            })
            .ok(),
        StateDir::Nowhere => None,
    };
    Ok(opened.map(|staging| staging as Arc<dyn Staging>))
}

async fn open(state_dir: &Path) -> ferry_store::Result<Arc<FileStaging>> {
    FileStaging::open(&state_dir.join("staging"), StagingOptions::new(SystemTime::now())).await
}
