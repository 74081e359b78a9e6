use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::anyhow;
use ferry_oci::Registry;
use ferry_storage::{FileHints, FileStaging, StagingOptions};
use ferry_store::{Hints, Staging};
use ferry_transfer::{Copier, Figures, Job, Options, Outcome, Survey};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Environment;
use crate::config::Registries;
use crate::exit::{self, Exit};
use crate::progress::Shown;
use crate::reporter::{Reporter, Tone};
use crate::say;
use crate::settings::{self, Copy, Pair, StateDir, Wish};
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
    let plain_http = settings.target_registries().filter(|registry| registries.is_plain_http(registry));
    let tone = Tone { verbose, dry: settings.dry_run, plain_http: plain_http.cloned().collect() };
    let mut stores = Stores::of_copy(&settings, registries, environment.clone())?;
    let kept = Kept::open(&settings).await?;
    let started = Instant::now();
    let watch = settings.budget.map(|budget| stop_in_time(budget, stop.clone()));
    let expanded = tokio::select! {
        expanded = expand(&settings, &mut stores) => expanded,
        () = stop.cancelled() => Err(Unlisted::Stopped),
    };
    let wishes = match expanded {
        Ok(wishes) => wishes,
        Err(unlisted) => return unlisted.exit(|| left(settings.budget, started.elapsed())),
    };
    let wanted = settings.pairs(&wishes)?;
    let mut reporter = Reporter::new(settings.shown.clone(), tone, &wanted.targets, started);
    let (pairs, jobs) = match jobs(wanted.pairs, &mut stores).await {
        Err(error) if exit::may_pass(&error) => return Ok(exit::failed(&error)),
        found => found?,
    };
    let options = Options {
        images: (2 * settings.jobs).min(MOST_IMAGES),
        jobs: settings.jobs,
        staging: kept.staging,
        hints: kept.hints,
        recheck: settings.recheck,
        belongings: settings.belongings,
        degradations: wanted.targets.iter().map(|(to, fit)| (to.as_str().into(), fit.degradations)).collect(),
        ..Options::default()
    };
    let copier = Copier::new(options, stop);
    let progress = Shown::start(&copier, jobs.len(), settings.shown.progress, verbose, &environment);
    let mut warnings = Warnings::new(pairs.len());
    let done = |place: usize, outcome: Outcome| {
        reporter.image(&pairs[place], &outcome);
        warnings.quota(&stores, &pairs[place]);
    };
    if settings.dry_run {
        let mut done = done;
        copier.survey_all(jobs, |place, survey| done(place, as_outcome(survey))).await;
    } else {
        copier.copy_all(jobs, done).await;
    }
    if let Some(watch) = watch {
        watch.abort();
    }
    progress.end().await;
    let unfinished = stores.finish(&reporter.archives());
    Ok(reporter.end(copier.fetched(), unfinished, |elapsed| left(settings.budget, elapsed)))
}

/// The jobs that pairs mean, and the pairs with all tags filled in.
async fn jobs(wanted: Vec<Pair>, stores: &mut Stores) -> anyhow::Result<(Vec<Pair>, Vec<Job>)> {
    stores.open_sources(&wanted)?;
    let (mut pairs, mut jobs) = (Vec::new(), Vec::new());
    for pair in wanted {
        let (pair, job) = stores.job(pair).await?;
        pairs.push(pair);
        jobs.push(job);
    }
    // Layouts that were named alone have their tags only now.
    settings::refuse_collisions(&pairs)?;
    Ok((pairs, jobs))
}

/// What would become of an image, told in the words of what became of one.
fn as_outcome(survey: Survey) -> Outcome {
    match survey {
        Survey::Unchanged { digest } => Outcome::Unchanged { digest },
        Survey::Wanted { digest, degraded, manifests, blobs, bytes, present, referrers, left_behind } => {
            let (moved, mounted) = (blobs, 0);
            let figures =
                Figures { moved, bytes, mounted, present, manifests, referrers, left_behind, degraded };
            Outcome::Copied { digest, figures }
        }
        Survey::Failed { error } => Outcome::Failed { error, arrived: None, figures: Figures::default() },
        Survey::Stopped => Outcome::Stopped,
    }
}

/// The wishes with those about all that a source holds spelt out.
///
/// A source that cannot tell ends the run before anything moves: without its images nobody knows which names clash.
async fn expand(settings: &Copy, stores: &mut Stores) -> Result<Vec<Wish>, Unlisted> {
    let mut wishes = Vec::new();
    for wish in &settings.wishes {
        let unlisted = |error| Unlisted::Failed { registry: wish.source.registry().cloned(), error };
        if settings.is_about_all(wish).map_err(unlisted)? {
            let all = stores.all_of(&wish.source).await.map_err(unlisted)?;
            if all.is_empty() {
                return Err(unlisted(anyhow!("{}: it holds no tagged image", wish.source)));
            }
            wishes.extend(all.into_iter().map(|source| wish.about(source)));
        } else {
            wishes.push(wish.clone());
        }
    }
    Ok(wishes)
}

/// Why it is not known what a source holds.
enum Unlisted {
    Failed { registry: Option<Registry>, error: anyhow::Error },
    Stopped,
}

impl Unlisted {
    /// How the run ends then; `left` tells why images are left.
    fn exit(self, left: impl FnOnce() -> String) -> anyhow::Result<Exit> {
        match self {
            Self::Failed { registry, error } => exit::of_asking(Err(error), registry.as_ref()),
            Self::Stopped => {
                say::hint(&left());
                Ok(Exit::Stopped)
            }
        }
    }
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

/// What to do about a run that was stopped after `elapsed`, by its budget if that is used up.
fn left(budget: Option<Duration>, elapsed: Duration) -> String {
    let budget = budget.filter(|budget| elapsed + RESERVE.min(*budget / 10) >= *budget);
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
