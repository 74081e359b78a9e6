//! What is to be done about an image, in the fewest requests.

use std::sync::Arc;

use ferry_oci::{Descriptor, Digest, Manifest, Reference};
use ferry_policy::degrade::Degradations;
use ferry_store::{Kind, Repository, RepositoryMut, Side};

use crate::copier::Run;
use crate::graph::{Job, Shared, fail};
use crate::plan::Plan;

/// The two ends of a job.
pub(crate) struct Sides<'a> {
    pub(crate) run: &'a Run,
    pub(crate) job: &'a Job,
    pub(crate) source: &'a Arc<dyn Repository>,
    pub(crate) target: &'a Arc<dyn RepositoryMut>,
}

pub(crate) enum Compared {
    /// The target has it; this is what it is there.
    Unchanged(Digest),
    /// The target has something else in its place, or nothing.
    Wanted { current: Option<Digest>, plan: Plan },
}

impl Sides<'_> {
    /// Looks at the target, then at the source. An image that has to be rewritten is, if no run remembers what became of
    /// it: only then can it be compared.
    pub(crate) async fn compare(&self) -> Shared<Compared> {
        let how = self.run.degradations(&self.job.target.id);
        let current = self.current(how).await?;
        let root = match self.wanted(current, how).await? {
            Wanted::Unchanged(digest) => return Ok(Compared::Unchanged(digest)),
            Wanted::Root(root) => root,
        };
        let plan = Plan::make(Arc::clone(self.source), root, how).await?;
        if let Some(degraded) = plan.degraded.filter(|_| !self.run.recheck) {
            let now = plan.root.digest();
            if current == Some(now) || self.has_untagged(&now).await? {
                self.run.known.rewrote(degraded.original, how, now).await;
                return Ok(Compared::Unchanged(now));
            }
        }
        Ok(Compared::Wanted { current, plan })
    }

    /// What the target has in the image's place.
    async fn current(&self, how: Degradations) -> Shared<Option<Digest>> {
        let reference = match (&self.job.tag, &self.job.reference) {
            (Some(tag), _) => Reference::Tag(tag.clone()),
            (None, Reference::Digest(digest)) => {
                Reference::Digest(self.run.known.rewritten(digest, how).await.unwrap_or(*digest))
            }
            (None, tag) => tag.clone(),
        };
        self.resolve_target(&reference).await
    }

    async fn resolve_target(&self, reference: &Reference) -> Shared<Option<Digest>> {
        match self.target.resolve(reference).await {
            Ok(found) => Ok(Some(found.descriptor.digest)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(Arc::new(error.on(Side::Target))),
        }
    }

    /// Whether the target has the manifest, if the job is about that and not about a tag.
    async fn has_untagged(&self, digest: &Digest) -> Shared<bool> {
        match self.job.tag {
            Some(_) => Ok(false),
            None => Ok(self.resolve_target(&Reference::Digest(*digest)).await?.is_some()),
        }
    }

    /// What the source has: nothing to compare with means that the manifest is wanted at once; otherwise a look at its
    /// digest, which costs no quota, comes first.
    async fn wanted(&self, current: Option<Digest>, how: Degradations) -> Shared<Wanted> {
        let Some(current) = current.filter(|_| !self.run.recheck) else {
            return fetch(&**self.source, &self.job.reference).await.map(Wanted::Root);
        };
        let digest = match &self.job.reference {
            Reference::Digest(digest) => *digest,
            tag @ Reference::Tag(_) => {
                let resolved = self.source.resolve(tag).await;
                resolved.map_err(|error| Arc::new(error.on(Side::Source)))?.descriptor.digest
            }
        };
        // A target that has the original has taken it, so it is not replaced by less.
        if digest == current {
            return Ok(Wanted::Unchanged(digest));
        }
        if self.run.known.rewritten(&digest, how).await == Some(current) {
            self.run.known.rewrote(digest, how, current).await;
            return Ok(Wanted::Unchanged(current));
        }
        fetch(&**self.source, &Reference::Digest(digest)).await.map(Wanted::Root)
    }
}

enum Wanted {
    Unchanged(Digest),
    Root(Manifest),
}

async fn fetch(source: &dyn Repository, reference: &Reference) -> Shared<Manifest> {
    source.manifest(reference).await.map_err(|error| Arc::new(error.on(Side::Source)))
}

/// The manifest behind an entry of an index, which must be what the entry says.
pub(crate) async fn fetch_child(source: &dyn Repository, child: &Descriptor) -> Shared<Manifest> {
    let manifest = fetch(source, &Reference::Digest(child.digest)).await?;
    let size = manifest.bytes().len() as u64;
    if size == child.size && manifest.media_type() == child.media_type {
        return Ok(manifest);
    }
    let detail = format!(
        "it is {} of {size} bytes where the index says {} of {}",
        manifest.media_type(),
        child.media_type,
        child.size
    );
    Err(fail(Kind::Invalid, child.digest, &detail, Side::Source))
}
