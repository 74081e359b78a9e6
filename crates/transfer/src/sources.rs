//! What the repositories that images come from say of the artifacts that belong to them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Descriptor, Digest, Name, Reference, Tag, artifact_tag, fallback_tag};
use ferry_store::{Error, Kind, PageRequest, Repository, Result, Scope, Side};
use tokio::sync::OnceCell;

use crate::graph::{Place, Shared};

/// So many tags are asked for at once, which is what most registries give at most.
const PAGE: usize = 1000;
/// The longest listing of tags that is followed.
const MOST_TAGS: usize = 1_000_000;
/// The most tags of artifacts that are kept of it.
const MOST_KEPT: usize = 200_000;
/// Manifests of an image that are asked for their tags one by one, where tags are not listed.
pub(crate) const MOST_ASKED: usize = 20;
/// Artifacts of artifacts of artifacts … are followed so far.
pub(crate) const MAX_DEPTH: usize = 4;
/// What is asked for where tags are not listed.
const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// The source repositories of a run.
#[derive(Default)]
pub(crate) struct Sources(Mutex<ByPlace>);

type ByPlace = HashMap<(Arc<str>, Name), Arc<Source>>;

/// A source repository. There is one of each for a run, so that what one image learnt of it holds for the others.
pub(crate) struct Source {
    pub(crate) repository: Arc<dyn Repository>,
    tags: OnceCell<Tags>,
    /// Held by the first who asks for referrers: whether there is an API for that is found out once.
    first: tokio::sync::Mutex<()>,
    asked: AtomicBool,
    warned: AtomicBool,
}

/// The tags of artifacts in a repository.
pub(crate) enum Tags {
    /// By the manifest that they belong to.
    Listed(HashMap<Digest, Vec<Tag>>),
    /// The repository does not list its tags.
    Unlisted,
}

impl Sources {
    pub(crate) fn get(&self, place: &Place) -> Arc<Source> {
        let key = (Arc::clone(&place.id), place.repository.clone());
        Arc::clone(self.lock().entry(key).or_insert_with(|| {
            Arc::new(Source::new(place.store.repository(&Scope::Hosted, &place.repository)))
        }))
    }

    fn lock(&self) -> MutexGuard<'_, ByPlace> {
        // A panic elsewhere cannot leave the map half-written, so the poison is of no account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// Nothing is asked yet.
    pub(crate) fn new(repository: Arc<dyn Repository>) -> Self {
        Self {
            repository,
            tags: OnceCell::new(),
            first: tokio::sync::Mutex::default(),
            asked: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }
    }

    /// The tags of what belongs to `subject`. Where tags are not listed it is asked for them one by one, if it is
    /// `worth_asking`.
    pub(crate) async fn tags_of(&self, subject: &Digest, worth_asking: bool) -> Shared<Vec<Tag>> {
        match self.tags().await? {
            Tags::Listed(tags) => Ok(tags.get(subject).cloned().unwrap_or_default()),
            Tags::Unlisted if worth_asking => self.ask_for_tags(subject).await,
            Tags::Unlisted => Ok(Vec::new()),
        }
    }

    /// The tags of artifacts, listed once.
    pub(crate) async fn tags(&self) -> Shared<&Tags> {
        let listed = self.tags.get_or_try_init(|| self.list_tags()).await;
        listed.map_err(|error| Arc::new(error.on(Side::Source)))
    }

    async fn list_tags(&self) -> Result<Tags> {
        match self.artifact_tags().await {
            Ok(tags) => Ok(Tags::Listed(tags)),
            Err(error) if error.kind().is_transient() => Err(error),
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Unauthorized | Kind::NotFound) => {
                tracing::debug!(%error, "tags are not listed, asking for those of signatures one by one");
                Ok(Tags::Unlisted)
            }
            Err(error) => {
                tracing::warn!(%error, "tags cannot be listed, asking for those of signatures one by one");
                Ok(Tags::Unlisted)
            }
        }
    }

    /// Asks for the usual tags of what belongs to `subject`.
    async fn ask_for_tags(&self, subject: &Digest) -> Shared<Vec<Tag>> {
        let mut found = Vec::new();
        for suffix in SUFFIXES {
            let Ok(tag) = format!("{}.{suffix}", fallback_tag(subject)).parse::<Tag>() else { continue };
            match self.repository.resolve(&Reference::Tag(tag.clone())).await {
                Ok(_) => found.push(tag),
                Err(error) if is_refusal(error.kind()) => {}
                Err(error) => return Err(Arc::new(error.on(Side::Source))),
            }
        }
        Ok(found)
    }

    /// Only tags of artifacts are kept, however many others there are.
    async fn artifact_tags(&self) -> Result<HashMap<Digest, Vec<Tag>>> {
        let (mut found, mut listed, mut kept) = (HashMap::<Digest, Vec<Tag>>::new(), 0, 0);
        let mut request = PageRequest { after: None, limit: Some(PAGE) };
        loop {
            let page = self.repository.tags(request.clone()).await?;
            // A cache may know of no more than what was asked of it.
            if page.told.stale {
                let detail = "the upstream does not list them at present";
                return Err(Error::new(Kind::Unavailable, "list tags", "of artifacts", detail));
            }
            // A page counts even if it is empty, so that a listing without end has one.
            listed += page.items.len().max(1);
            for entry in page.items {
                let Some((subject, _)) = artifact_tag(&entry.tag) else { continue };
                let tags = found.entry(subject).or_default();
                if !tags.contains(&entry.tag) {
                    tags.push(entry.tag);
                    kept += 1;
                }
            }
            if listed > MOST_TAGS || kept > MOST_KEPT {
                let detail = format!("there are too many: {listed} so far");
                return Err(Error::new(Kind::Invalid, "list tags", "of artifacts", detail));
            }
            let Some(next) = page.next else { return Ok(found) };
            request.after = Some(next);
        }
    }

    /// What refers to `subject`; more than `most` only if there are more. A source that does not say, for another
    /// reason than one that may pass, has none, which is warned of once.
    pub(crate) async fn referrers(&self, subject: &Digest, most: usize) -> Shared<Vec<Descriptor>> {
        let first = if self.asked.load(Ordering::Relaxed) { None } else { Some(self.first.lock().await) };
        let first = first.filter(|_| !self.asked.load(Ordering::Relaxed));
        let found = referrers(&*self.repository, subject, most).await;
        self.asked.store(true, Ordering::Relaxed);
        drop(first);
        match found {
            Err(error) if is_refusal(error.kind()) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the source does not say what refers to its images: copied without");
                }
                Ok(Vec::new())
            }
            other => other.map_err(|error| Arc::new(error.on(Side::Source))),
        }
    }
}

/// Whether it says that the question is not answered at all.
pub(crate) fn is_refusal(kind: Kind) -> bool {
    use Kind::{Denied, Invalid, Misdirected, NotFound, Unauthorized};
    matches!(kind, Denied | Misdirected | Unauthorized | NotFound | Invalid)
}

/// What refers to `subject`, from all pages; when there are more than `most` the rest is not asked for.
pub(crate) async fn referrers(
    repository: &dyn Repository,
    subject: &Digest,
    most: usize,
) -> Result<Vec<Descriptor>> {
    let (mut found, mut seen, mut pages) = (Vec::new(), HashSet::new(), 0);
    let mut request = PageRequest::default();
    loop {
        let page = repository.referrers(subject, None, request).await?;
        found.extend(page.items.into_iter().filter(|item| seen.insert(item.digest)));
        pages += 1;
        let Some(next) = page.next.filter(|_| found.len() <= most) else { return Ok(found) };
        if pages > most {
            let detail = format!("the listing has no end: {pages} pages so far");
            return Err(Error::new(Kind::Unavailable, "list referrers", subject, detail));
        }
        request = PageRequest { after: Some(next), limit: None };
    }
}
