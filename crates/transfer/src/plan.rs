//! What an image becomes on its way to a target that does not take it as it is.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::rewrite::{Children, Inexpressible};
use ferry_oci::{Descriptor, Digest, Manifest};
use ferry_policy::degrade::Degradations;
use ferry_store::{Error, Kind, Repository, Side};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use crate::compare::{Arrived, Changed, fetch_child};
use crate::graph::{ENTRIES, Limit, Shared, fail};

/// Rewritten manifests are kept until they are sent. An image with more than so many bytes of them is none.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// What was changed in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Degraded {
    /// The image at the source.
    pub original: Digest,
    /// Those of the declared degradations that had something to do.
    pub applied: Degradations,
}

/// An image as the target gets it.
pub(crate) struct Plan {
    pub(crate) root: Manifest,
    /// The manifests below the root that had to be looked at, by what they are at the target.
    pub(crate) made: HashMap<Digest, Manifest>,
    /// `None` if the image stays as it is.
    pub(crate) degraded: Option<Degraded>,
    /// Those of its manifests that are not what they were.
    changed: HashSet<Digest>,
}

impl Plan {
    /// Rewrites an image, children first. Only manifests are fetched, and only those that may have to change.
    pub(crate) async fn make(source: Arc<dyn Repository>, root: Manifest, how: Degradations) -> Shared<Self> {
        let original = root.digest();
        let planner = Arc::new(Planner { source, how, limit: Limit::default(), work: Mutex::default() });
        let root = if how.is_empty() { root } else { Arc::clone(&planner).rewrite(root, 0).await? };
        let work = std::mem::take(&mut *planner.work());
        let changed = root.digest() != original;
        let degraded = changed.then_some(Degraded { original, applied: work.applied });
        Ok(Self { root, made: work.made, degraded, changed: work.changed })
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
    source: Arc<dyn Repository>,
    how: Degradations,
    limit: Limit,
    work: Mutex<Work>,
}

#[derive(Default)]
struct Work {
    /// What became of a child, however many indexes name it.
    children: HashMap<Digest, Arc<OnceCell<Descriptor>>>,
    made: HashMap<Digest, Manifest>,
    bytes: usize,
    applied: Degradations,
    changed: HashSet<Digest>,
}

impl Planner {
    fn work(&self) -> MutexGuard<'_, Work> {
        // A panic elsewhere cannot leave the map half-written, so the poison is of no account.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rewrite(self: Arc<Self>, manifest: Manifest, depth: usize) -> BoxFuture<'static, Shared<Manifest>> {
        async move {
            self.limit.admit(&manifest, depth)?;
            let mut seen = HashSet::new();
            let mut children = self.how.children(&manifest);
            children.retain(|child| self.how.concern(child) && seen.insert(child.digest));
            let children: Children = stream::iter(children)
                .map(|child| Arc::clone(&self).rewrite_child(child, depth))
                .buffer_unordered(ENTRIES)
                .try_collect()
                .await?;
            let rewritten = self.how.apply(&manifest, &children);
            let (new, applied) = rewritten.map_err(|why| inexpressible(&manifest, why))?;
            if new.digest() != manifest.digest() {
                self.work().changed.insert(new.digest());
            }
            self.keep(&new, applied)?;
            Ok(new)
        }
        .boxed()
    }

    async fn rewrite_child(self: Arc<Self>, child: Descriptor, depth: usize) -> Shared<(Digest, Descriptor)> {
        let once = Arc::clone(self.work().children.entry(child.digest).or_default());
        let make = || async {
            let manifest = fetch_child(&*self.source, &child).await?;
            let new = Arc::clone(&self).rewrite(manifest, depth + 1).await?;
            Ok(describe(&new))
        };
        let new: Shared<&Descriptor> = once.get_or_try_init(make).await;
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

/// It is the target that would not have it otherwise.
fn inexpressible(manifest: &Manifest, why: Inexpressible) -> Arc<Error> {
    let error = Error::new(Kind::Invalid, "rewrite manifest", manifest.digest(), why.to_string());
    Arc::new(error.caused_by(why).on(Side::Target))
}
