//! What an image becomes on its way: what its target does not take is changed, and what was not asked for left out.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::rewrite::{Children, Inexpressible};
use ferry_oci::{Descriptor, Digest, Manifest, Tag, media_type};
use ferry_policy::degrade::{Changes, Degradation, Degradations};
use ferry_policy::platforms::Mode;
use ferry_store::{Error, Kind, Side};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use crate::compare::{Arrived, Changed, fetch_child};
use crate::graph::{ENTRIES, Limit, Load, Shared, fail};
use crate::platforms::{Chooser, check_sparse};
use crate::reader::Origin;

/// Rewritten manifests are kept until they are sent. An image with more than so many bytes of them is none.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// What was changed in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Degraded {
    /// The image at the source.
    pub original: Digest,
    /// Those of the declared degradations, and of what the choice of platforms does, that had something to do.
    pub applied: Degradations,
}

/// An image as the target gets it.
pub(crate) struct Plan {
    pub(crate) root: Manifest,
    /// The manifests below the root that had to be looked at, by what they are at the target.
    made: HashMap<Digest, Manifest>,
    /// The digests of the root's children that are brought; `None` for all.
    pub(crate) only: Option<HashSet<Digest>>,
    /// The image at the source.
    pub(crate) original: Digest,
    /// `None` if the image stays as it is.
    pub(crate) degraded: Option<Degraded>,
    /// Those of its manifests that are not what they were.
    changed: HashSet<Digest>,
}

impl Plan {
    /// Chooses what is brought of an image and rewrites it, children first. Only manifests are fetched, and only those that
    /// may have to change, and configurations where nothing else says a platform.
    pub(crate) async fn make(origin: &Origin, root: Manifest, how: &Changes) -> Shared<Self> {
        let Some(selection) = &how.platforms else { return Self::whole(origin, root, how).await };
        let chooser = Arc::new(Chooser::new(origin, selection));
        let (original, rest) = (root.digest(), how.of_all_platforms());
        if !media_type::is_index(root.media_type()) {
            chooser.look(&root).await?;
            chooser.found(original)?;
            return Self::whole(origin, root, &rest).await;
        }
        match selection.mode() {
            Mode::Rewrite => {
                let plan = Planner::plan(origin, root.clone(), how, Some(Arc::clone(&chooser))).await?;
                // An image that says nothing of platforms is taken as it is.
                match (chooser.found(original)?, plan) {
                    (true, Some(plan)) => Ok(plan),
                    _ => Self::whole(origin, root, &rest).await,
                }
            }
            Mode::Single => match chooser.single(&root).await? {
                Some(one) => Ok(Self::whole(origin, one, &rest).await?.in_place_of(original)),
                None => Self::whole(origin, root, &rest).await,
            },
            Mode::Sparse => {
                let plan = Self::whole(origin, root, &rest).await?;
                let only = check_sparse(selection, &plan.root)?;
                Ok(Self { only, ..plan })
            }
        }
    }

    /// The image with all its platforms.
    async fn whole(origin: &Origin, root: Manifest, how: &Changes) -> Shared<Self> {
        let original = root.digest();
        let plan = Planner::plan(origin, root, how, None).await?;
        plan.ok_or_else(|| fail(Kind::Invalid, original, "nothing is left of it", Side::Source))
    }

    /// The same for an image that takes the place of the one that was asked for.
    fn in_place_of(self, original: Digest) -> Self {
        let applied = self.degraded.map(|degraded| degraded.applied).unwrap_or_default();
        let applied = applied.with(Degradation::SinglePlatform);
        Self { original, degraded: Some(Degraded { original, applied }), ..self }
    }

    /// What the walk begins with. What was made for it goes along.
    pub(crate) fn load(&mut self, tag: Option<Tag>, fresh: bool) -> Arc<Load> {
        let (made, only) = (std::mem::take(&mut self.made), self.only.clone());
        Arc::new(Load { root: self.root.clone(), tag, fresh, made, only })
    }

    /// The image once the target has it.
    pub(crate) fn arrived(self) -> Arrived {
        Arrived {
            descriptor: describe(&self.root),
            manifest: Some(self.root),
            changed: Changed::Only(self.changed),
        }
    }
}

fn describe(manifest: &Manifest) -> Descriptor {
    Descriptor::new(manifest.media_type(), manifest.digest(), manifest.bytes().len() as u64)
}

struct Planner {
    origin: Origin,
    how: Changes,
    chooser: Option<Arc<Chooser>>,
    limit: Limit,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Work {
    /// What became of a child, however many indexes name it; `None` if nothing is left of it.
    children: HashMap<Digest, Arc<OnceCell<Option<Descriptor>>>>,
    made: HashMap<Digest, Manifest>,
    bytes: usize,
    applied: Degradations,
    changed: HashSet<Digest>,
}

impl Planner {
    /// The plan for an image; `None` if nothing that was chosen is left of it.
    async fn plan(
        origin: &Origin,
        root: Manifest,
        how: &Changes,
        chooser: Option<Arc<Chooser>>,
    ) -> Shared<Option<Plan>> {
        let original = root.digest();
        let (origin, how) = (origin.clone(), how.clone());
        let planner =
            Arc::new(Self { origin, how, chooser, limit: Limit::default(), work: Mutex::default() });
        let root = match planner.how.is_empty() {
            true => Some(root),
            false => Arc::clone(&planner).rewrite(root, 0).await?,
        };
        let Some(root) = root else { return Ok(None) };
        let work = std::mem::take(&mut *planner.work());
        let changed = root.digest() != original;
        let degraded = changed.then_some(Degraded { original, applied: work.applied });
        Ok(Some(Plan { root, made: work.made, only: None, original, degraded, changed: work.changed }))
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        // A panic elsewhere cannot leave the map half-written, so the poison is of no account.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of a manifest; `None` if nothing that was chosen is left of it.
    fn rewrite(
        self: Arc<Self>,
        manifest: Manifest,
        depth: usize,
    ) -> BoxFuture<'static, Shared<Option<Manifest>>> {
        async move {
            self.limit.admit(&manifest, depth)?;
            let gone = self.gone(&manifest, depth).await?;
            let mut children = self.how.children(&manifest, &gone);
            children.retain(|child| self.how.concern(child));
            let children = stream::iter(once_each(children))
                .map(|child| Arc::clone(&self).rewrite_child(child, depth))
                .buffer_unordered(ENTRIES)
                .try_collect::<Vec<_>>()
                .await?;
            let children: Children =
                children.into_iter().filter_map(|(old, new)| Some((old, new?))).collect();
            let rewritten = self.how.apply(&manifest, &gone, &children);
            let Some((new, applied)) = rewritten.map_err(|why| inexpressible(&manifest, why))? else {
                return Ok(None);
            };
            if new.digest() != manifest.digest() {
                self.work().changed.insert(new.digest());
            }
            self.keep(&new, applied)?;
            Ok(Some(new))
        }
        .boxed()
    }

    /// The children of an index that turn out not to be wanted when they are looked at.
    async fn gone(self: &Arc<Self>, index: &Manifest, depth: usize) -> Shared<HashSet<Digest>> {
        let Some(chooser) = &self.chooser else { return Ok(HashSet::new()) };
        chooser.note_entries(index);
        let gone = stream::iter(once_each(self.how.looks(index)))
            .map(|child| self.look(Arc::clone(chooser), child, depth))
            .buffer_unordered(ENTRIES)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(gone.into_iter().flatten().collect())
    }

    /// The digest of a child that is not wanted.
    async fn look(
        self: &Arc<Self>,
        chooser: Arc<Chooser>,
        child: Descriptor,
        depth: usize,
    ) -> Shared<Option<Digest>> {
        if media_type::is_index(&child.media_type) {
            let (old, new) = Arc::clone(self).rewrite_child(child, depth).await?;
            return Ok(new.is_none().then_some(old));
        }
        let image = fetch_child(&*self.origin.repository, &child).await?;
        self.limit.admit(&image, depth + 1)?;
        let wanted = chooser.look(&image).await?;
        if wanted {
            self.keep(&image, Degradations::NONE)?;
        }
        Ok((!wanted).then_some(child.digest))
    }

    async fn rewrite_child(
        self: Arc<Self>,
        child: Descriptor,
        depth: usize,
    ) -> Shared<(Digest, Option<Descriptor>)> {
        let once = Arc::clone(self.work().children.entry(child.digest).or_default());
        let make = || async {
            let looked_at = self.work().made.get(&child.digest).cloned();
            let manifest = match looked_at {
                Some(manifest) => manifest,
                None => fetch_child(&*self.origin.repository, &child).await?,
            };
            let new = Arc::clone(&self).rewrite(manifest, depth + 1).await?;
            Ok(new.as_ref().map(describe))
        };
        let new: Shared<&Option<Descriptor>> = once.get_or_try_init(make).await;
        Ok((child.digest, new?.clone()))
    }

    fn keep(&self, new: &Manifest, applied: Degradations) -> Shared<()> {
        let mut work = self.work();
        work.applied = work.applied.and(applied);
        work.bytes += new.bytes().len();
        if work.bytes > MOST_BYTES {
            let detail = "its manifests are too large to be rewritten";
            return Err(fail(Kind::Invalid, new.digest(), detail, Side::Source));
        }
        work.made.insert(new.digest(), new.clone());
        Ok(())
    }
}

fn once_each(descriptors: Vec<Descriptor>) -> impl Iterator<Item = Descriptor> {
    let mut seen = HashSet::new();
    descriptors.into_iter().filter(move |descriptor| seen.insert(descriptor.digest))
}

/// It is the target that would not have it otherwise.
fn inexpressible(manifest: &Manifest, why: Inexpressible) -> Arc<Error> {
    let error = Error::new(Kind::Invalid, "rewrite manifest", manifest.digest(), why.to_string());
    Arc::new(error.caused_by(why).on(Side::Target))
}
