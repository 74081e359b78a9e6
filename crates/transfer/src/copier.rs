use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Digest, Name};
use ferry_policy::degrade::Degradations;
use ferry_store::{Error, Hints, Kind, Repository, Staging};
use futures_util::future::{BoxFuture, FutureExt, Shared};
use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::belongings::Artifacts;
use crate::flight::{Landed, Trust};
use crate::graph::{Image, Job, Outcome};
use crate::known::Known;
use crate::lanes::Lanes;
use crate::progress::{Meter, Progress};
use crate::reader::Origin;
use crate::retry::Retry;
use crate::spool::Spools;
use crate::survey::{Ledger, Survey, survey};

/// So much of what was brought is remembered to be there. Beyond it it is forgotten, which costs requests and nothing
/// else.
const MOST: usize = 50_000;

/// How a run behaves.
#[derive(Clone)]
pub struct Options {
    /// Images that are walked at once.
    pub images: usize,
    /// Blobs that are moved, and connections that content is fetched over, at once.
    pub jobs: usize,
    /// Where large blobs are kept while they are moved; without it a broken run starts them from their beginning.
    pub staging: Option<Arc<dyn Staging>>,
    /// Blobs of at least so many bytes are staged; smaller ones go through memory.
    pub stage_from: u64,
    /// What earlier runs saw of the targets.
    pub hints: Option<Arc<dyn Hints>>,
    /// How failures that may pass are tried again.
    pub retry: Retry,
    /// Checks every blob and manifest of an image at the target, even if its tag is the source's already.
    pub recheck: bool,
    /// Brings what belongs to an image after it, also if the image is there already: its referrers, and the artifacts
    /// under cosign's tags. That costs one listing of the tags of each source repository and one request for the
    /// referrers of each manifest where the source has an API for them; the target is asked only about what was found,
    /// and once for the index of an image that is there already.
    pub belongings: bool,
    /// What is changed in images that go to the stores with these ids; nothing for others. A matter of the store, not
    /// of the image, so that all images of a run that share content agree on what it becomes there.
    pub degradations: HashMap<Arc<str>, Degradations>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            images: 6,
            jobs: 8,
            staging: None,
            stage_from: 8 * 1024 * 1024,
            hints: None,
            retry: Retry::default(),
            recheck: false,
            belongings: true,
            degradations: HashMap::new(),
        }
    }
}

/// One run: copies images and remembers between them what is where.
#[derive(Clone)]
pub struct Copier(Arc<Run>);

pub(crate) struct Run {
    pub(crate) known: Known,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) spools: Spools,
    pub(crate) retry: Retry,
    pub(crate) recheck: bool,
    pub(crate) belongings: Option<Artifacts>,
    pub(crate) ledger: Ledger,
    pub(crate) meter: Meter,
    degradations: HashMap<Arc<str>, Degradations>,
    pub(crate) stop: CancellationToken,
    images: usize,
    jobs: usize,
    sources: Mutex<HashMap<Arc<str>, Arc<Lanes>>>,
    once: Mutex<HashMap<Key, SharedLanding>>,
    tasks: TaskTracker,
}

/// Content in a repository of a store, and how much was trusted when it was put there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) store: Arc<str>,
    pub(crate) repository: Name,
    pub(crate) digest: Digest,
    /// The same bytes may be wanted as a manifest and as a blob: one of them is not the other.
    pub(crate) is_manifest: bool,
    pub(crate) trust: Trust,
}

pub(crate) type Landing = Result<Landed, Arc<Error>>;
type SharedLanding = Shared<BoxFuture<'static, Landing>>;

impl Copier {
    /// A run that ends early, keeping what it has, when `stop` is cancelled.
    pub fn new(options: Options, stop: CancellationToken) -> Self {
        Self(Arc::new(Run {
            known: Known::new(options.hints),
            slots: Arc::new(Semaphore::new(options.jobs.max(1))),
            spools: Spools::new(options.staging, options.stage_from),
            retry: options.retry,
            recheck: options.recheck,
            belongings: options.belongings.then(Artifacts::default),
            ledger: Ledger::default(),
            meter: Meter::default(),
            degradations: options.degradations,
            stop,
            images: options.images.max(1),
            jobs: options.jobs.max(1),
            sources: Mutex::default(),
            once: Mutex::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Copies one image.
    pub async fn copy(&self, job: Job) -> Outcome {
        if self.0.stop.is_cancelled() {
            return Outcome::Stopped;
        }
        let _walking = self.0.meter.walk();
        Image::copy(Arc::clone(&self.0), job).await
    }

    /// Copies many images, several at once, and hands each outcome to `done` as it comes, with the place of its job in
    /// `jobs`.
    pub async fn copy_all(&self, jobs: Vec<Job>, mut done: impl FnMut(usize, Outcome)) {
        let images = self.0.images;
        let mut outcomes = stream::iter(jobs.into_iter().enumerate())
            .map(|(place, job)| async move { (place, self.copy(job).await) })
            .buffer_unordered(images);
        while let Some((place, outcome)) = outcomes.next().await {
            done(place, outcome);
        }
        self.settle().await;
    }

    /// What copying one image would do, without writing anything anywhere.
    pub async fn survey(&self, job: Job) -> Survey {
        if self.0.stop.is_cancelled() {
            return Survey::Stopped;
        }
        survey(&self.0, &job).await
    }

    /// What copying many images would do, several looked at at once, each handed to `done` as it comes, with the place of
    /// its job in `jobs`. What several of them share is counted for one.
    pub async fn survey_all(&self, jobs: Vec<Job>, mut done: impl FnMut(usize, Survey)) {
        let images = self.0.images;
        let mut surveys = stream::iter(jobs.into_iter().enumerate())
            .map(|(place, job)| async move { (place, self.survey(job).await) })
            .buffer_unordered(images);
        while let Some((place, survey)) = surveys.next().await {
            done(place, survey);
        }
        self.settle().await;
    }

    /// Waits until every flight has ended. Those of an image that failed go on, and after a stop each has still to
    /// record how its upload is resumed; to be awaited before the process ends.
    pub async fn settle(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.tasks.reopen();
        self.0.known.hand_over().await;
    }

    /// Bytes of blobs that were read from sources so far, those that were read in vain included.
    pub fn fetched(&self) -> u64 {
        self.0.sources().values().map(|lanes| lanes.bytes()).sum()
    }

    /// Where the run is now. Cheap enough to be asked many times a second.
    pub fn progress(&self) -> Progress {
        self.0.meter.progress(self.fetched())
    }
}

impl Run {
    fn sources(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Lanes>>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is changed in images that go to the store `id`.
    pub(crate) fn degradations(&self, id: &Arc<str>) -> Degradations {
        self.degradations.get(id).copied().unwrap_or_default()
    }

    /// A repository of the store `id` as something to read from.
    pub(crate) fn origin(&self, id: &Arc<str>, repository: Arc<dyn Repository>) -> Origin {
        let mut sources = self.sources();
        // One connection of a job is that of its blob.
        let lanes = sources.entry(Arc::clone(id)).or_insert_with(|| Lanes::new(self.jobs - 1));
        Origin { repository, lanes: Arc::clone(lanes), retry: self.retry }
    }

    fn once(&self) -> MutexGuard<'_, HashMap<Key, SharedLanding>> {
        // A panic elsewhere cannot leave the map half-written, so the poison is of no account.
        self.once.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `make` for `key` unless it ran or runs already, and waits for its result. What failed may be tried again by
    /// the next who asks. Also says whether it was this call that started it.
    pub(crate) async fn land<F>(&self, key: Key, make: impl FnOnce() -> F) -> (bool, Landing)
    where
        F: Future<Output = Landing> + Send + 'static,
    {
        let (first, landing) = {
            let mut once = self.once();
            match once.get(&key) {
                Some(landing) => (false, landing.clone()),
                None => {
                    if once.len() >= MOST {
                        once.retain(|_, landing| landing.peek().is_none());
                    }
                    let landing = self.own_task(make()).shared();
                    once.insert(key.clone(), landing.clone());
                    (true, landing)
                }
            }
        };
        let result = landing.clone().await;
        if result.is_err() {
            let mut once = self.once();
            if once.get(&key).is_some_and(|current| current.ptr_eq(&landing)) {
                once.remove(&key);
            }
        }
        (first, result)
    }

    /// Runs on a task of its own, so that it goes on when whoever waits goes away.
    fn own_task(&self, work: impl Future<Output = Landing> + Send + 'static) -> BoxFuture<'static, Landing> {
        let task = self.tasks.spawn(work);
        async move {
            match task.await {
                Ok(result) => result,
                Err(e) => Err(Arc::new(Error::new(Kind::Invalid, "copy", "content", e.to_string()))),
            }
        }
        .boxed()
    }
}
