use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferry_oci::Registry;
use ferry_storage::{FileHints, FileStaging, StagingOptions};
use ferry_store::{Hints, Staging};
use ferry_transfer::{Copier, Options};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Environment;
use crate::config::Registries;
use crate::exit::{self, Exit};
use crate::progress::Shown;
use crate::reporter::Reporter;
use crate::settings::{Copy, Pair, StateDir};
use crate::stores::Stores;

/// What is left of a budget when work stops, so that targets can confirm what they have; shorter for short ones.
const RESERVE: Duration = Duration::from_secs(10);

/// Runs `ferry copy`.
pub(crate) async fn copy(
    settings: Copy,
    registries: Registries,
    environment: Environment,
    verbose: bool,
    stop: CancellationToken,
) -> anyhow::Result<Exit> {
    let plain_http = settings.targets.keys().filter(|registry| registries.is_plain_http(registry));
    let plain_http = plain_http.cloned().collect();
    let mut reporter = Reporter::new(settings.shown.clone(), verbose, &settings.targets, plain_http);
    let mut stores = Stores::of_copy(&settings, registries, environment.clone())?;
    let kept = Kept::open(&settings).await?;
    let (mut pairs, mut jobs) = (Vec::new(), Vec::new());
    for pair in settings.pairs {
        let (pair, job) = stores.job(pair).await?;
        pairs.push(pair);
        jobs.push(job);
    }
    let options = Options {
        images: (2 * settings.jobs).min(MOST_IMAGES),
        jobs: settings.jobs,
        staging: kept.staging,
        hints: kept.hints,
        recheck: settings.recheck,
        degradations: settings
            .targets
            .iter()
            .map(|(to, fit)| (to.as_str().into(), fit.degradations))
            .collect(),
        ..Options::default()
    };
    let watch = settings.budget.map(|budget| stop_in_time(budget, stop.clone()));
    let copier = Copier::new(options, stop);
    let progress = Shown::start(&copier, jobs.len(), settings.shown.progress, verbose, &environment);
    let mut warnings = Warnings::new(pairs.len());
    copier
        .copy_all(jobs, |place, outcome| {
            reporter.image(&pairs[place], &outcome);
            warnings.quota(&stores, &pairs[place]);
        })
        .await;
    if let Some(watch) = watch {
        watch.abort();
    }
    progress.end().await;
    Ok(reporter
        .end(copier.fetched(), |elapsed| left(settings.budget.filter(|budget| elapsed + RESERVE >= *budget))))
}

/// Warns of quotas before they hurt, once for each registry.
struct Warnings {
    left: u64,
    warned: Vec<Registry>,
}

impl Warnings {
    fn new(images: usize) -> Self {
        Self { left: images as u64, warned: Vec::new() }
    }

    /// An image is done: do those that are left fit into what its source still allows?
    fn quota(&mut self, stores: &Stores, pair: &Pair) {
        self.left -= 1;
        let Some((registry, quota)) = stores.quota(&pair.source) else { return };
        if quota.remaining < self.left && !self.warned.contains(registry) {
            self.warned.push(registry.clone());
            note!("warning: {}", exit::quota(registry, &quota, self.left));
        }
    }
}

/// Images walked at once; more would only hold more connections to look things up.
const MOST_IMAGES: usize = 32;

/// Stops the run when most of its time is over.
fn stop_in_time(budget: Duration, stop: CancellationToken) -> JoinHandle<()> {
    let reserve = RESERVE.min(budget / 10);
    tokio::spawn(async move {
        tokio::time::sleep(budget - reserve).await;
        stop.cancel();
    })
}

/// What to do about a run that was stopped, by its budget if one is given.
fn left(budget: Option<Duration>) -> String {
    let why = budget.map_or_else(
        || "stopped before everything was done".to_owned(),
        |budget| format!("the budget of {} is used up", humantime::format_duration(budget)),
    );
    format!("{why}; what was moved is kept, and the same command goes on from there")
}

/// What outlives a run: unfinished blobs, and what was seen of targets.
#[derive(Default)]
struct Kept {
    staging: Option<Arc<dyn Staging>>,
    hints: Option<Arc<dyn Hints>>,
}

impl Kept {
    /// Does without what cannot be had in the usual place; a place that was given must work.
    async fn open(settings: &Copy) -> anyhow::Result<Self> {
        Ok(match &settings.state_dir {
            StateDir::Given(directory) => Self::open_in(directory, settings.spool_limit).await?,
            StateDir::Usual(directory) => Self::open_in(directory, settings.spool_limit)
                .await
                .inspect_err(|error| {
                    tracing::warn!(
                        "{error}; a copy that is cut short will start its blobs afresh (see --state-dir)"
                    );
                })
                .unwrap_or_default(),
            StateDir::Nowhere => Self::default(),
        })
    }

    async fn open_in(directory: &Path, limit: Option<u64>) -> ferry_store::Result<Self> {
        let now = SystemTime::now();
        let staging = FileStaging::open(&directory.join("staging"), StagingOptions { limit, now }).await?;
        let hints = FileHints::open(&directory.join("seen.db"), now).await;
        // A file that cannot be read is no reason not to copy.
        let hints = hints.inspect_err(|error| tracing::warn!("{error}; it can be removed")).ok();
        Ok(Self { staging: Some(staging), hints: hints.map(|hints| Arc::new(hints) as Arc<dyn Hints>) })
    }
}
