use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, media_type};
use ferry_policy::platforms::Selection;
use ferry_store::{Error, Kind, Repository, RepositoryMut, Scope, Side, Store};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::belongings::{Belongings, Purpose, look_ahead};
use crate::compare::{Arrived, Compared, Sides, fetch_child};
use crate::copier::{Key, Landing, Run};
use crate::flight::{Flight, Landed, Trust};
use crate::plan::{Degraded, Plan};
use crate::platforms::refused_sparse;

/// An index inside an index inside an index … is followed so far and no further.
const MAX_DEPTH: usize = 4;
/// The most manifests of one image.
const MAX_MANIFESTS: usize = 5_000;
/// Entries of one manifest that are worked on at once; the blobs among them have a limit of their own.
pub(crate) const ENTRIES: usize = 8;

/// A repository of a store.
#[derive(Clone)]
pub struct Place {
    /// Names the store: two places with the same text are in the same store and may mount from each other.
    pub id: Arc<str>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The repository.
    pub repository: Name,
}

/// One image to copy.
#[derive(Clone)]
pub struct Job {
    /// Where it is.
    pub source: Place,
    /// Which it is.
    pub reference: Reference,
    /// Where it shall be.
    pub target: Place,
    /// Under which tag; `None` leaves it without one, to be asked for by digest.
    pub tag: Option<Tag>,
    /// Which of its platforms, and how; `None` brings all. What is chosen by rewriting the index or by taking one of its
    /// manifests replaces an image at the target that has all platforms, because it was asked for; what the target does
    /// not take ([`crate::Options::degradations`]) never does.
    pub platforms: Option<Selection>,
}

/// What became of an image.
#[derive(Debug)]
pub enum Outcome {
    /// The target had it already.
    Unchanged {
        /// The image as the target has it.
        digest: Digest,
    },
    /// It was copied, and the target's tag points at it.
    Copied {
        /// The image as the target has it.
        digest: Digest,
        /// What that took.
        figures: Figures,
    },
    /// It could not be copied; the target's tag is as it was, unless `arrived` says otherwise.
    Failed {
        /// Why, and on which side.
        error: Arc<Error>,
        /// The image itself, if it is at the target, under its tag: what could not be copied is an artifact that belongs
        /// to it, which the error names.
        arrived: Option<Digest>,
        /// What was done before.
        figures: Figures,
    },
    /// The run was stopped first; what was moved so far is kept.
    Stopped,
}

/// What copying an image took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Blobs sent to the target.
    pub moved: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the target took from another of its repositories.
    pub mounted: usize,
    /// Blobs that were there, or that another image of the run brought.
    pub present: usize,
    /// Manifests sent to the target.
    pub manifests: usize,
    /// Artifacts that belong to the image and were copied: its referrers, and what is under tags such as cosign makes.
    pub referrers: usize,
    /// Artifacts that stayed behind because the target is known to take no OCI types.
    pub left_behind: usize,
    /// What was changed in the image, if anything was.
    pub degraded: Option<Degraded>,
}

impl Outcome {
    /// What was changed in an image that was copied, and which it was before; `None` if it arrived as it is.
    pub fn degraded(&self) -> Option<&Degraded> {
        match self {
            Self::Copied { figures, .. } => figures.degraded.as_ref(),
            Self::Unchanged { .. } | Self::Failed { .. } | Self::Stopped => None,
        }
    }
}

/// What a walk begins with.
pub(crate) struct Load {
    pub(crate) root: Manifest,
    pub(crate) tag: Option<Tag>,
    /// Nothing of it is expected at the target, so asking for its manifests is a waste.
    pub(crate) fresh: bool,
    /// Manifests that were fetched already, as the target gets them, by what they are there.
    pub(crate) made: HashMap<Digest, Manifest>,
    /// The children of the root that are brought, if not all are.
    pub(crate) only: Option<HashSet<Digest>>,
}

impl Load {
    /// The children of `manifest`, which is at `depth` below the root, that are brought.
    pub(crate) fn children(&self, manifest: &Manifest, depth: usize) -> Vec<Descriptor> {
        let only = self.only.as_ref().filter(|_| depth == 0);
        let wanted = |child: &&Descriptor| only.is_none_or(|only| only.contains(&child.digest));
        manifest.children().iter().filter(wanted).cloned().collect()
    }
}

/// The walk over one image.
pub(crate) struct Image {
    run: Arc<Run>,
    source_place: Place,
    target_place: Place,
    source: Arc<dyn Repository>,
    target: Arc<dyn RepositoryMut>,
    load: Arc<Load>,
    trust: Trust,
    limit: Limit,
    figures: Mutex<Figures>,
}

pub(crate) type Shared<T> = Result<T, Arc<Error>>;

/// Counts the manifests of an image.
#[derive(Default)]
pub(crate) struct Limit(AtomicUsize);

impl Limit {
    /// One more manifest at this depth; an error if it is one too many.
    pub(crate) fn admit(&self, manifest: &Manifest, depth: usize) -> Shared<()> {
        let many = manifest.children().len() >= MAX_MANIFESTS;
        if depth > MAX_DEPTH || many || self.0.fetch_add(1, Ordering::Relaxed) >= MAX_MANIFESTS {
            let detail = "the image is nested too deeply or has too many manifests";
            return Err(fail(Kind::Invalid, manifest.digest(), detail, Side::Source));
        }
        Ok(())
    }
}

/// What became of an image so far.
#[derive(Default)]
struct Progress {
    figures: Mutex<Figures>,
    /// What it is at the target, once it is there.
    arrived: OnceLock<Digest>,
}

impl Sides<'_> {
    /// Brings `load` to the target; twice, if it lacks what it was believed to hold.
    pub(crate) async fn bring(&self, load: &Arc<Load>, total: &Mutex<Figures>) -> Shared<()> {
        let mut image = Image::new(self, load, if self.run.recheck { Trust::Nothing } else { Trust::Hints });
        let mut result = Arc::clone(&image).put(load.root.clone(), load.tag.clone(), 0).await;
        add(total, &image.figures);
        if image.trust == Trust::Hints && matches!(&result, Err(e) if e.kind() == Kind::Incomplete) {
            tracing::debug!(digest = %load.root.digest(), "the target lacks what it was believed to hold, asking for everything");
            image = Image::new(self, load, Trust::Nothing);
            result = Arc::clone(&image).put(load.root.clone(), load.tag.clone(), 0).await;
            add(total, &image.figures);
        }
        result
    }
}

impl Job {
    /// The repository that it writes to.
    pub(crate) fn writable(&self) -> Shared<Arc<dyn RepositoryMut>> {
        let target = &self.target;
        target.store.writable(&Scope::Hosted, &target.repository).ok_or_else(|| {
            let error = Error::new(Kind::Denied, "push to", &target.repository, "it can only be read");
            Arc::new(error.on(Side::Target))
        })
    }
}

impl Image {
    pub(crate) async fn copy(run: Arc<Run>, job: Job) -> Outcome {
        let stop = run.stop.clone();
        let progress = Progress::default();
        let result = tokio::select! {
            result = Self::try_copy(&run, &job, &progress) => result,
            () = stop.cancelled() => return Outcome::Stopped,
        };
        let figures = *progress.figures.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok((digest, changed)) if changed || figures.referrers > 0 => Outcome::Copied { digest, figures },
            Ok((digest, _)) => Outcome::Unchanged { digest },
            Err(_) if stop.is_cancelled() => Outcome::Stopped,
            Err(error) => Outcome::Failed { error, arrived: progress.arrived.get().copied(), figures },
        }
    }

    /// The digest of the image at the target, and whether anything had to be done about the image itself.
    async fn try_copy(run: &Arc<Run>, job: &Job, progress: &Progress) -> Shared<(Digest, bool)> {
        let source = job.source.store.repository(&Scope::Hosted, &job.source.repository);
        let target = job.writable()?;
        let sides = Sides { run, job, source: &source, target: &target };
        match sides.compare().await? {
            Compared::Unchanged(arrived) => {
                Self::complete(&sides, &arrived, progress).await?;
                Ok((arrived.descriptor.digest, false))
            }
            Compared::Wanted { current, plan } => tokio::select! {
                biased;
                // To the end, for what was listed by half would be listed again.
                never = look_ahead(&sides) => match never {},
                copied = Self::bring_plan(&sides, current, plan, progress) => Ok((copied?, true)),
            },
        }
    }

    async fn bring_plan(
        sides: &Sides<'_>,
        current: Option<Digest>,
        mut plan: Plan,
        progress: &Progress,
    ) -> Shared<Digest> {
        let load = plan.load(sides.job.tag.clone(), current.is_none());
        sides.bring(&load, &progress.figures).await?;
        sides.remember(&plan).await;
        progress.figures.lock().unwrap_or_else(PoisonError::into_inner).degraded = plan.degraded;
        let arrived = plan.arrived();
        Self::complete(sides, &arrived, progress).await?;
        Ok(arrived.descriptor.digest)
    }

    /// Brings what belongs to an image that is there.
    async fn complete(sides: &Sides<'_>, arrived: &Arrived, progress: &Progress) -> Shared<()> {
        let _ = progress.arrived.set(arrived.descriptor.digest);
        Belongings::new(sides, Purpose::Copy, &progress.figures).bring(arrived).await
    }

    fn new(sides: &Sides<'_>, load: &Arc<Load>, trust: Trust) -> Arc<Self> {
        Arc::new(Self {
            run: Arc::clone(sides.run),
            source_place: sides.job.source.clone(),
            target_place: sides.job.target.clone(),
            source: Arc::clone(sides.source),
            target: Arc::clone(sides.target),
            load: Arc::clone(load),
            trust,
            limit: Limit::default(),
            figures: Mutex::default(),
        })
    }

    /// Puts a manifest after everything that it names.
    fn put(
        self: Arc<Self>,
        manifest: Manifest,
        tag: Option<Tag>,
        depth: usize,
    ) -> BoxFuture<'static, Shared<()>> {
        async move {
            self.limit.admit(&manifest, depth)?;
            let mut needed = self.load.children(&manifest, depth);
            needed.extend(manifest.blobs().into_iter().cloned());
            // What takes longest begins first.
            needed.sort_by_key(|descriptor| Reverse(descriptor.size));
            let blobs = needed.iter().filter(|descriptor| !media_type::is_manifest(&descriptor.media_type));
            let _wanting = self.run.meter.want(&self.target_place, blobs);
            stream::iter(needed)
                .map(|descriptor| Arc::clone(&self).bring(descriptor, depth))
                .buffer_unordered(ENTRIES)
                .try_collect::<()>()
                .await?;
            let stored = self.target.put_manifest(&manifest, tag.as_ref()).await;
            stored.map_err(|error| match self.load.only.as_ref().filter(|_| depth == 0) {
                Some(_) => refused_sparse(error, manifest.digest()),
                None => Arc::new(error.on(Side::Target)),
            })?;
            self.count(|figures| figures.manifests += 1);
            Ok(())
        }
        .boxed()
    }

    /// Brings one piece of content to the target, once for all images of the run that want it there.
    async fn bring(self: Arc<Self>, descriptor: Descriptor, depth: usize) -> Shared<()> {
        let place = &self.target_place;
        let is_manifest = media_type::is_manifest(&descriptor.media_type);
        let key = Key {
            store: Arc::clone(&place.id),
            repository: place.repository.clone(),
            digest: descriptor.digest,
            is_manifest,
            trust: self.trust,
        };
        let digest = descriptor.digest;
        let me = Arc::clone(&self);
        let (first, landed) = self
            .run
            .land(key, move || async move {
                if is_manifest {
                    me.bring_manifest(descriptor, depth).await
                } else {
                    me.bring_blob(descriptor).await
                }
            })
            .await;
        let landed = landed?;
        if !is_manifest {
            self.run.meter.settle(&self.target_place, &digest);
        }
        match landed {
            _ if is_manifest => {}
            Landed::Moved(bytes) if first => self.count(|figures| {
                figures.moved += 1;
                figures.bytes += bytes;
            }),
            Landed::Mounted if first => self.count(|figures| figures.mounted += 1),
            _ => self.count(|figures| figures.present += 1),
        }
        Ok(())
    }

    async fn bring_blob(self: Arc<Self>, blob: Descriptor) -> Landing {
        if self.source_place.id == self.target_place.id {
            // Within one store the source itself can be mounted from.
            self.run.known.holds(&self.source_place, &blob.digest).await;
        }
        let flight = Flight {
            run: Arc::clone(&self.run),
            source: self.run.origin(&self.source_place.id, Arc::clone(&self.source)),
            source_name: self.source_place.repository.clone(),
            target: Arc::clone(&self.target),
            place: self.target_place.clone(),
            gauge: self.run.meter.gauge(&blob),
            blob,
            trust: self.trust,
        };
        flight.fly().await.map_err(Arc::new)
    }

    async fn bring_manifest(self: Arc<Self>, child: Descriptor, depth: usize) -> Landing {
        let reference = Reference::Digest(child.digest);
        if self.trust == Trust::Hints && !self.load.fresh {
            match self.target.resolve(&reference).await {
                Ok(_) => return Ok(Landed::Present),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(Arc::new(error.on(Side::Target))),
            }
        }
        let manifest = match self.load.made.get(&child.digest) {
            Some(made) => made.clone(),
            None => fetch_child(&*self.source, &child).await?,
        };
        let size = manifest.bytes().len() as u64;
        self.put(manifest, None, depth + 1).await.map(|()| Landed::Moved(size))
    }

    fn count(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn add(total: &Mutex<Figures>, more: &Mutex<Figures>) {
    let more = *more.lock().unwrap_or_else(PoisonError::into_inner);
    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
    total.moved += more.moved;
    total.bytes += more.bytes;
    total.mounted += more.mounted;
    total.present += more.present;
    total.manifests += more.manifests;
}

pub(crate) fn fail(kind: Kind, digest: Digest, detail: &str, side: Side) -> Arc<Error> {
    Arc::new(Error::new(kind, "copy manifest", digest, detail).on(side))
}
