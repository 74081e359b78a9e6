//! What is to be done about an image, in the fewest requests.

use std::collections::HashSet;
use std::sync::Arc;

use ferry_oci::{Descriptor, Digest, Manifest, Reference, media_type};
use ferry_policy::degrade::{Degradation, Degradations};
use ferry_store::{Kind, Repository, RepositoryMut, Side};

use crate::copier::Run;
use crate::graph::{Job, Shared, fail};
use crate::plan::Plan;

/// The two ends of a job.
pub(crate) struct Sides<'a> {
    pub(crate) run: &'a Arc<Run>,
    pub(crate) job: &'a Job,
    pub(crate) source: &'a Arc<dyn Repository>,
    pub(crate) target: &'a Arc<dyn RepositoryMut>,
}

pub(crate) enum Compared {
    /// The target has it; this is what it is there.
    Unchanged(Arrived),
    /// The target has something else in its place, or nothing.
    Wanted { current: Option<Digest>, plan: Plan },
}

/// An image that is at its target.
pub(crate) struct Arrived {
    /// What it is there.
    pub(crate) descriptor: Descriptor,
    /// The same, if it was read already.
    pub(crate) manifest: Option<Manifest>,
    pub(crate) changed: Changed,
}

/// Which manifests of an image have another digest at the target than at the source.
pub(crate) enum Changed {
    /// These.
    Only(HashSet<Digest>),
    /// An earlier run rewrote it: indexes, and nothing that they name.
    Indexes,
    /// An earlier run rewrote it: whatever could be.
    All,
}

impl Changed {
    /// What an earlier run changed by `how`.
    fn by(how: Degradations) -> Self {
        if how.contains(Degradation::DockerTypes) { Self::All } else { Self::Indexes }
    }

    /// Whether a manifest is at the target what it is at the source.
    pub(crate) fn spares(&self, manifest: &Descriptor) -> bool {
        match self {
            Self::Only(changed) => !changed.contains(&manifest.digest),
            Self::Indexes => !media_type::is_index(&manifest.media_type),
            Self::All => false,
        }
    }
}

impl Arrived {
    fn unread(descriptor: Descriptor, changed: Changed) -> Self {
        Self { descriptor, manifest: None, changed }
    }
}

impl Sides<'_> {
    /// Looks at the target, then at the source. An image that has to be rewritten is, if no run remembers what became of
    /// it: only then can it be compared.
    pub(crate) async fn compare(&self) -> Shared<Compared> {
        let how = self.run.degradations(&self.job.target.id);
        let current = self.current(how).await?;
        let there = current.as_ref().map(|found| found.digest);
        let root = match self.wanted(current, how).await? {
            Wanted::Unchanged(arrived) => return Ok(Compared::Unchanged(arrived)),
            Wanted::Root(root) => root,
        };
        let plan = Plan::make(Arc::clone(self.source), root, how).await?;
        if let Some(degraded) = plan.degraded.filter(|_| !self.run.recheck) {
            let now = plan.root.digest();
            if there == Some(now) || self.has_untagged(&now).await? {
                self.run.known.rewrote(degraded.original, how, now).await;
                return Ok(Compared::Unchanged(plan.arrived()));
            }
        }
        Ok(Compared::Wanted { current: there, plan })
    }

    /// The same for what is never rewritten. Also says whether the target has something in its place.
    pub(crate) async fn compare_as_is(&self) -> Shared<(bool, Wanted)> {
        let current = self.current(Degradations::NONE).await?;
        Ok((current.is_some(), self.wanted(current, Degradations::NONE).await?))
    }

    /// What the target has in the image's place.
    async fn current(&self, how: Degradations) -> Shared<Option<Descriptor>> {
        let reference = match (&self.job.tag, &self.job.reference) {
            (Some(tag), _) => Reference::Tag(tag.clone()),
            (None, Reference::Digest(digest)) => {
                Reference::Digest(self.run.known.rewritten(digest, how).await.unwrap_or(*digest))
            }
            (None, tag) => tag.clone(),
        };
        self.resolve_target(&reference).await
    }

    pub(crate) async fn resolve_target(&self, reference: &Reference) -> Shared<Option<Descriptor>> {
        match self.target.resolve(reference).await {
            Ok(found) => Ok(Some(found.descriptor)),
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
    async fn wanted(&self, current: Option<Descriptor>, how: Degradations) -> Shared<Wanted> {
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
        if digest == current.digest {
            return Ok(Wanted::Unchanged(Arrived::unread(current, Changed::Only(HashSet::new()))));
        }
        if self.run.known.rewritten(&digest, how).await == Some(current.digest) {
            self.run.known.rewrote(digest, how, current.digest).await;
            return Ok(Wanted::Unchanged(Arrived::unread(current, Changed::by(how))));
        }
        fetch(&**self.source, &Reference::Digest(digest)).await.map(Wanted::Root)
    }
}

pub(crate) enum Wanted {
    Unchanged(Arrived),
    Root(Manifest),
}

pub(crate) async fn fetch(source: &dyn Repository, reference: &Reference) -> Shared<Manifest> {
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
