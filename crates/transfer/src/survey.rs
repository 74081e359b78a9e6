//! What a run would do, found out by reading.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Descriptor, Digest, Manifest, Reference, media_type};
use ferry_store::{Error, Kind, Scope, Side};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use crate::belongings::{Belongings, Purpose};
use crate::compare::{Compared, Sides, fetch_child};
use crate::copier::{Key, Run};
use crate::flight::Trust;
use crate::graph::{ENTRIES, Figures, Job, Limit, Load, Shared};
use crate::plan::Degraded;

/// So much is remembered of what was counted. A run of more counts some of it again.
const MOST: usize = 1_000_000;

/// What copying an image would do.
#[derive(Debug)]
pub enum Survey {
    /// Nothing: the target has it, and what belongs to it.
    Unchanged {
        /// The image as the target has it.
        digest: Digest,
    },
    /// Something would be sent.
    Wanted {
        /// The image as the target would get it.
        digest: Digest,
        /// What would be changed in the image, if anything would.
        degraded: Option<Degraded>,
        /// Manifests that would be sent.
        manifests: usize,
        /// Blobs that would be sent. Each is counted once for all images that bring it to the same store, from which the
        /// others could mount it; one that only a repository holds where no image of the run goes to is counted as sent.
        blobs: usize,
        /// Their bytes.
        bytes: u64,
        /// Blobs that are there, or that the target could mount from what another image of the run brings or finds there, or
        /// from the source if that is in the same store.
        present: usize,
        /// Artifacts that belong to the image and would be copied; what they are made of is in the figures above.
        referrers: usize,
        /// Artifacts that would stay behind because the target is known to take no OCI types.
        left_behind: usize,
    },
    /// It cannot be told, and it could not be copied.
    Failed {
        /// Why, and on which side.
        error: Arc<Error>,
    },
    /// The run was stopped first.
    Stopped,
}

/// What was counted in a run.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// Whether the repository has it, asked once.
    there: HashMap<Key, Arc<OnceCell<bool>>>,
    /// Blobs that a repository of the store has, or would have been sent.
    held: HashSet<(Arc<str>, Digest)>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic elsewhere cannot leave the maps half-written, so the poison is of no account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, key: Key) -> Arc<OnceCell<bool>> {
        let mut entries = self.lock();
        if entries.there.len() >= MOST {
            *entries = Entries::default();
        }
        Arc::clone(entries.there.entry(key).or_default())
    }

    /// Records that the store holds the blob then. True if that is news.
    fn holds(&self, store: &Arc<str>, digest: Digest) -> bool {
        self.lock().held.insert((Arc::clone(store), digest))
    }
}

/// What copying the image of `job` would do.
pub(crate) async fn survey(run: &Arc<Run>, job: &Job) -> Survey {
    let figures = Mutex::default();
    let result = tokio::select! {
        result = survey_image(run, job, &figures) => result,
        () = run.stop.cancelled() => return Survey::Stopped,
    };
    let figures = *figures.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Err(error) => Survey::Failed { error },
        Ok((digest, false)) if figures.referrers == 0 => Survey::Unchanged { digest },
        Ok((digest, _)) => Survey::Wanted {
            digest,
            degraded: figures.degraded,
            manifests: figures.manifests,
            blobs: figures.moved,
            bytes: figures.bytes,
            present: figures.present,
            referrers: figures.referrers,
            left_behind: figures.left_behind,
        },
    }
}

/// The digest of the image at the target, and whether anything would have to be done about the image itself.
async fn survey_image(run: &Arc<Run>, job: &Job, figures: &Mutex<Figures>) -> Shared<(Digest, bool)> {
    let source = job.source.store.repository(&Scope::Hosted, &job.source.repository);
    let target = job.writable()?;
    let sides = Sides { run, job, source: &source, target: &target };
    let (wanted, arrived) = match sides.compare().await? {
        Compared::Unchanged(arrived) => (false, arrived),
        Compared::Wanted { current, mut plan } => {
            let load = plan.load(job.tag.clone(), current.is_none());
            look(&sides, &load, figures).await?;
            figures.lock().unwrap_or_else(PoisonError::into_inner).degraded = plan.degraded;
            (true, plan.arrived())
        }
    };
    Belongings::new(&sides, Purpose::Survey, figures).bring(&arrived).await?;
    Ok((arrived.descriptor.digest, wanted))
}

/// Counts what bringing `load` would take.
pub(crate) async fn look(sides: &Sides<'_>, load: &Load, figures: &Mutex<Figures>) -> Shared<()> {
    Walk { sides, load, figures, limit: Limit::default() }.manifest(load.root.clone(), 0).await
}

/// The walk over one image, as `graph` has it, without a step that writes.
struct Walk<'a> {
    sides: &'a Sides<'a>,
    load: &'a Load,
    figures: &'a Mutex<Figures>,
    limit: Limit,
}

impl Walk<'_> {
    /// A manifest that would be sent.
    fn manifest(&self, manifest: Manifest, depth: usize) -> BoxFuture<'_, Shared<()>> {
        async move {
            self.limit.admit(&manifest, depth)?;
            let mut needed = self.load.children(&manifest, depth);
            needed.extend(manifest.blobs().into_iter().cloned());
            stream::iter(needed)
                .map(|descriptor| self.content(descriptor, depth))
                .buffer_unordered(ENTRIES)
                .try_collect::<()>()
                .await?;
            self.count(|figures| figures.manifests += 1);
            Ok(())
        }
        .boxed()
    }

    /// What a manifest names, looked at once for all images of the run that want it in the same repository.
    async fn content(&self, descriptor: Descriptor, depth: usize) -> Shared<()> {
        let place = &self.sides.job.target;
        let is_manifest = media_type::is_manifest(&descriptor.media_type);
        let cell = self.sides.run.ledger.entry(Key {
            store: Arc::clone(&place.id),
            repository: place.repository.clone(),
            digest: descriptor.digest,
            is_manifest,
            trust: Trust::Hints,
        });
        let mut first = false;
        let there = *cell
            .get_or_try_init(|| {
                first = true;
                self.is_there(&descriptor, depth)
            })
            .await?;
        if is_manifest {
            return Ok(());
        }
        let mounts = self.sides.job.source.id == place.id;
        let news = self.sides.run.ledger.holds(&place.id, descriptor.digest);
        if first && !there && !mounts && news {
            self.count(|figures| {
                figures.moved += 1;
                // Nobody has verified what a manifest says.
                figures.bytes = figures.bytes.saturating_add(descriptor.size);
            });
        } else {
            self.count(|figures| figures.present += 1);
        }
        Ok(())
    }

    /// A manifest that is not there is walked.
    async fn is_there(&self, descriptor: &Descriptor, depth: usize) -> Shared<bool> {
        if !media_type::is_manifest(&descriptor.media_type) {
            return match self.sides.target.stat(&descriptor.digest).await {
                Ok(size) => Ok(size == Some(descriptor.size)),
                Err(error) if error.kind() == Kind::NotFound => Ok(false),
                Err(error) => Err(Arc::new(error.on(Side::Target))),
            };
        }
        let reference = Reference::Digest(descriptor.digest);
        let ask = !self.load.fresh && !self.sides.run.recheck;
        if ask && self.sides.resolve_target(&reference).await?.is_some() {
            return Ok(true);
        }
        let manifest = match self.load.made.get(&descriptor.digest) {
            Some(made) => made.clone(),
            None => fetch_child(&**self.sides.source, descriptor).await?,
        };
        self.manifest(manifest, depth + 1).await?;
        Ok(false)
    }

    fn count(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
