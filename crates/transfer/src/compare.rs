//! What is to be done about an image, in the fewest requests.

use std::collections::HashSet;
use std::sync::Arc;

use ferry_oci::{Descriptor, Digest, Manifest, Reference, media_type};
use ferry_policy::degrade::{Changes, Degradation};
use ferry_policy::platforms::{Mode, Selection};
use ferry_store::{Kind, Repository, RepositoryMut, Side};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use crate::copier::Run;
use crate::graph::{ENTRIES, Job, Shared, fail};
use crate::plan::Plan;
use crate::platforms::of_sparse;
use crate::reader::Origin;

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
    fn by(how: &Changes) -> Self {
        if how.degradations.contains(Degradation::DockerTypes) { Self::All } else { Self::Indexes }
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
    ///
    /// The digest of an index says nothing about what is there of a sparse one. So where one is asked for, or is known to have
    /// been brought, each of the wanted manifests is asked for: one request for the index and one for each of those, at the
    /// target.
    pub(crate) async fn compare(&self) -> Shared<Compared> {
        let how = self.changes();
        match self.compare_roots(&how).await? {
            Compared::Unchanged(arrived) if !self.has_children(&arrived.descriptor.digest).await? => {
                let plan = Plan::make(&self.origin(), self.fetch(&self.job.reference).await?, &how).await?;
                Ok(Compared::Wanted { current: Some(arrived.descriptor.digest), plan })
            }
            compared => Ok(compared),
        }
    }

    async fn compare_roots(&self, how: &Changes) -> Shared<Compared> {
        let current = self.current(how).await?;
        let there = current.as_ref().map(|found| found.digest);
        let root = match self.wanted(current, how).await? {
            Wanted::Unchanged(arrived) => return Ok(Compared::Unchanged(arrived)),
            Wanted::Root(root) => root,
        };
        let plan = Plan::make(&self.origin(), root, how).await?;
        let now = plan.root.digest();
        let is_there = !self.run.recheck
            && (there == Some(now) || (plan.degraded.is_some() && self.has_untagged(&now).await?));
        if is_there {
            self.run.known.rewrote(plan.original, how, now).await;
            return Ok(Compared::Unchanged(plan.arrived()));
        }
        Ok(Compared::Wanted { current: there, plan })
    }

    /// The same for what is never rewritten. Also says whether the target has something in its place.
    pub(crate) async fn compare_as_is(&self) -> Shared<(bool, Wanted)> {
        let current = self.current(&Changes::default()).await?;
        Ok((current.is_some(), self.wanted(current, &Changes::default()).await?))
    }

    /// What is changed in the image on its way.
    fn changes(&self) -> Changes {
        let degradations = self.run.degradations(&self.job.target.id);
        Changes { degradations, platforms: self.job.platforms.clone() }
    }

    /// Records what was brought, so that it need not be found out again.
    pub(crate) async fn remember(&self, plan: &Plan) {
        let (how, known, root) = (self.changes(), &self.run.known, plan.root.digest());
        if plan.degraded.is_some() || how.selection().is_some() {
            known.rewrote(plan.original, &how, root).await;
        }
        if plan.only.is_some() || known.is_sparse(&self.job.target, &root).await {
            known.learn_sparse(&self.job.target, root, plan.only.is_some()).await;
        }
    }

    fn origin(&self) -> Origin {
        self.run.origin(&self.job.source.id, Arc::clone(self.source))
    }

    async fn fetch(&self, reference: &Reference) -> Shared<Manifest> {
        fetch(&**self.source, reference).await
    }

    /// Which manifests of the index are brought, if it stays as it is although some are not.
    pub(crate) fn sparse(&self) -> Option<&Selection> {
        self.job.platforms.as_ref().filter(|selection| selection.mode() == Mode::Sparse)
    }

    /// Whether the target has all of an index that was asked for, as far as its digest does not say it.
    async fn has_children(&self, root: &Digest) -> Shared<bool> {
        let sparse = self.sparse();
        let (known, target) = (&self.run.known, &self.job.target);
        if sparse.is_none() && !known.is_sparse(target, root).await {
            return Ok(true);
        }
        let index = match self.target.manifest(&Reference::Digest(*root)).await {
            Ok(index) => index,
            Err(error) if error.kind() == Kind::NotFound => return Ok(false),
            Err(error) => return Err(Arc::new(error.on(Side::Target))),
        };
        let children = match sparse {
            Some(selection) => of_sparse(selection, &index),
            None => index.children().to_vec(),
        };
        let all = children.len() == index.children().len();
        let there = stream::iter(children)
            .map(|child| async move { self.has_child(&child).await })
            .buffer_unordered(ENTRIES)
            .try_all(|there| async move { there })
            .await?;
        if there && all && known.is_sparse(target, root).await {
            known.learn_sparse(target, *root, false).await;
        }
        Ok(there)
    }

    async fn has_child(&self, child: &Descriptor) -> Shared<bool> {
        if media_type::is_manifest(&child.media_type) {
            return Ok(self.resolve_target(&Reference::Digest(child.digest)).await?.is_some());
        }
        let size = self.target.stat(&child.digest).await;
        Ok(size.map_err(|error| Arc::new(error.on(Side::Target)))?.is_some())
    }

    /// What the target has in the image's place.
    async fn current(&self, how: &Changes) -> Shared<Option<Descriptor>> {
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
    async fn wanted(&self, current: Option<Descriptor>, how: &Changes) -> Shared<Wanted> {
        let Some(current) = current.filter(|_| !self.run.recheck) else {
            return self.fetch(&self.job.reference).await.map(Wanted::Root);
        };
        let digest = match &self.job.reference {
            Reference::Digest(digest) => *digest,
            tag @ Reference::Tag(_) => {
                let resolved = self.source.resolve(tag).await;
                resolved.map_err(|error| Arc::new(error.on(Side::Source)))?.descriptor.digest
            }
        };
        // A target that has the original has taken it, so it is not replaced by less. But platforms that were chosen are
        // what is meant to be there, as some readers want a single manifest: then all platforms make way for those.
        let chosen = how.selection().is_some() && !is_image(&current);
        if digest == current.digest && !chosen {
            return Ok(Wanted::Unchanged(Arrived::unread(current, Changed::Only(HashSet::new()))));
        }
        if self.run.known.rewritten(&digest, how).await == Some(current.digest) {
            self.run.known.rewrote(digest, how, current.digest).await;
            return Ok(Wanted::Unchanged(Arrived::unread(current, Changed::by(how))));
        }
        self.fetch(&Reference::Digest(digest)).await.map(Wanted::Root)
    }
}

/// Whether it is certainly no index, of which there can be less.
fn is_image(found: &Descriptor) -> bool {
    media_type::is_manifest(&found.media_type) && !media_type::is_index(&found.media_type)
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
