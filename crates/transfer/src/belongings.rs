//! What belongs to an image and is no part of it: its referrers (distribution-spec, "Listing Referrers"), and what is
//! under tags as cosign makes them (`sha256-HEX.sig`).
//!
//! It comes after the image, also if that was at its target before. The subjects are the manifests that the target has
//! with the digest that they have at the source; what signs another digest would verify nothing. What belongs to an
//! artifact comes with it.
//!
//! What it costs, where there is nothing to be done:
//! - the source: one listing of the tags of each repository and run; one request for the referrers of each manifest and
//!   artifact where there is an API for them, and where there is none one for the whole repository;
//! - the target: one request for each index of an image that was there before, whose entries have to be known; one for
//!   the referrers of each manifest that has some at the source;
//! - each tag of an artifact: one request on each side.
//!
//! A source that does not list its tags is asked for `.sig`, `.att` and `.sbom` of the image and its platforms, 20
//! manifests at most, which are up to 60 requests, and for the fallback tag of each manifest if it has no API.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, media_type, rewrite};
use ferry_policy::degrade::Degradation;
use ferry_store::{Error, Kind, Side};
use futures_util::stream::{self, StreamExt};
use tokio::sync::OnceCell;

use crate::compare::{Arrived, Changed, Sides, Wanted, fetch, fetch_child};
use crate::graph::{ENTRIES, Figures, Job, Limit, Load, Shared};
use crate::platforms::of_sparse;
use crate::sources::{MAX_DEPTH, MOST_ASKED, Source, Sources, is_refusal, referrers};
use crate::survey;

/// The most artifacts of one image, and of one subject.
const MOST: usize = 1_000;
/// The most referrers that a target may have of one subject, those that came from elsewhere included.
const MOST_AT_TARGET: usize = 10_000;
/// Artifacts of one subject that are worked on at once.
const AT_ONCE: usize = 4;
/// So many subjects are remembered to be done. Beyond it they are forgotten, which costs requests and nothing else.
const MOST_DONE: usize = 50_000;

/// What is at the target of one subject, once that is known.
type Found = Arc<OnceCell<Arc<[Digest]>>>;

/// What a run knows of artifacts.
#[derive(Default)]
pub(crate) struct Artifacts {
    sources: Sources,
    done: Mutex<HashMap<Key, Found>>,
}

/// A subject on its way.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    source: (Arc<str>, Name),
    target: (Arc<str>, Name),
    subject: Digest,
    dry: bool,
}

impl Artifacts {
    fn done(&self) -> MutexGuard<'_, HashMap<Key, Found>> {
        // A panic elsewhere cannot leave the map half-written, so the poison is of no account.
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of artifacts, if they are to be brought.
fn wanted<'a>(sides: &Sides<'a>) -> Option<&'a Artifacts> {
    let (from, to) = (&sides.job.source, &sides.job.target);
    let here = from.id == to.id && from.repository == to.repository;
    sides.run.belongings.as_ref().filter(|_| !here)
}

/// Has the source list its tags while the image itself is brought. What fails is met again when it is needed.
pub(crate) async fn look_ahead(sides: &Sides<'_>) -> Infallible {
    if let Some(artifacts) = wanted(sides) {
        let _ = artifacts.sources.get(&sides.job.source).tags().await;
    }
    std::future::pending().await
}

/// Whether things are done or only counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Copy,
    Survey,
}

/// The artifacts of one image.
pub(crate) struct Belongings<'a> {
    sides: &'a Sides<'a>,
    purpose: Purpose,
    figures: &'a Mutex<Figures>,
    found: AtomicUsize,
}

/// A manifest that artifacts may belong to.
struct Subject {
    digest: Digest,
    /// Whether its tags are asked for one by one if they are not listed.
    worth_asking: bool,
}

enum Artifact {
    /// Whether the target lists it; `None` if it lists nothing.
    Referrer(Descriptor, Option<bool>),
    Tagged(Tag),
}

impl<'a> Belongings<'a> {
    pub(crate) fn new(sides: &'a Sides<'a>, purpose: Purpose, figures: &'a Mutex<Figures>) -> Self {
        Self { sides, purpose, figures, found: AtomicUsize::new(0) }
    }

    /// Brings everything that belongs to the image, and what belongs to that. What fails does not hold up the others, but
    /// what belongs to those of the same subject waits for the next run; the first failure is the result.
    pub(crate) async fn bring(&self, arrived: &Arrived) -> Shared<()> {
        let Some(artifacts) = wanted(self.sides) else { return Ok(()) };
        let mut level = self.subjects(arrived).await?;
        if level.is_empty() {
            return Ok(());
        }
        let source = artifacts.sources.get(&self.sides.job.source);
        // Before anything else: what the listing says spares requests.
        source.tags().await?;
        let (mut seen, mut failed) = (HashSet::new(), None);
        for _ in 0..MAX_DEPTH {
            level.retain(|subject| seen.insert(subject.digest));
            let brought: Vec<Shared<Arc<[Digest]>>> = stream::iter(std::mem::take(&mut level))
                .map(|subject| self.bring_once(artifacts, &source, subject))
                .buffer_unordered(ENTRIES)
                .collect()
                .await;
            for result in brought {
                match result {
                    Ok(found) => level.extend(found.iter().map(|digest| Subject::artifact(*digest))),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The manifests of the image that are at the target what they are at the source, the root first.
    async fn subjects(&self, arrived: &Arrived) -> Shared<Vec<Subject>> {
        let (limit, mut seen, mut subjects) = (Limit::default(), HashSet::new(), Vec::new());
        if matches!(arrived.changed, Changed::All) {
            return Ok(subjects);
        }
        let mut wanted = VecDeque::from([(arrived.descriptor.clone(), 0)]);
        while let Some((descriptor, depth)) = wanted.pop_front() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            if arrived.changed.spares(&descriptor) {
                let platform = !rewrite::is_attestation(&descriptor);
                let worth_asking = platform && subjects.len() < MOST_ASKED;
                subjects.push(Subject { digest: descriptor.digest, worth_asking });
            }
            if !media_type::is_index(&descriptor.media_type) {
                continue;
            }
            let index = match &arrived.manifest {
                Some(root) if depth == 0 => root.clone(),
                _ => self.index(&descriptor).await?,
            };
            limit.admit(&index, depth)?;
            let mut manifests = match self.sides.sparse().filter(|_| depth == 0) {
                Some(selection) => of_sparse(selection, &index),
                None => index.children().to_vec(),
            };
            manifests.retain(|child| media_type::is_manifest(&child.media_type));
            wanted.extend(manifests.into_iter().map(|child| (child, depth + 1)));
        }
        Ok(subjects)
    }

    /// An index of the image. The target has it and no quota on reading it.
    async fn index(&self, descriptor: &Descriptor) -> Shared<Manifest> {
        let reference = Reference::Digest(descriptor.digest);
        match self.sides.target.manifest(&reference).await {
            Ok(index) => Ok(index),
            Err(error) if error.kind().is_transient() => Err(Arc::new(error.on(Side::Target))),
            Err(error) => {
                tracing::debug!(%error, "reading the index from the source");
                fetch(&**self.sides.source, &reference).await
            }
        }
    }

    /// The same for all images of the run that share the subject.
    async fn bring_once(
        &self,
        artifacts: &Artifacts,
        source: &Source,
        subject: Subject,
    ) -> Shared<Arc<[Digest]>> {
        let (from, to) = (&self.sides.job.source, &self.sides.job.target);
        let key = Key {
            source: (Arc::clone(&from.id), from.repository.clone()),
            target: (Arc::clone(&to.id), to.repository.clone()),
            subject: subject.digest,
            dry: self.purpose == Purpose::Survey,
        };
        let cell = {
            let mut done = artifacts.done();
            if done.len() >= MOST_DONE {
                done.clear();
            }
            Arc::clone(done.entry(key).or_default())
        };
        cell.get_or_try_init(|| self.bring_all(source, &subject)).await.cloned()
    }

    /// Brings what belongs to one subject. Returns what is at the target of it now.
    async fn bring_all(&self, source: &Source, subject: &Subject) -> Shared<Arc<[Digest]>> {
        let found = self.find(source, subject).await?;
        let brought: Vec<Shared<Option<Digest>>> = stream::iter(found)
            .map(|artifact| self.bring_one(source, subject.digest, artifact))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        brought.into_iter().filter_map(Result::transpose).collect()
    }

    async fn find(&self, source: &Source, subject: &Subject) -> Shared<Vec<Artifact>> {
        let tags = source.tags_of(&subject.digest, subject.worth_asking).await?;
        let referrers = source.referrers(&subject.digest, MOST).await?;
        let many = tags.len() + referrers.len();
        if self.found.fetch_add(many, Ordering::Relaxed) + many > MOST {
            let detail =
                format!("more than {MOST} artifacts belong to the image; --no-referrers copies it without");
            let error = Error::new(Kind::Invalid, "list referrers", subject.digest, detail);
            return Err(Arc::new(error.on(Side::Source)));
        }
        let mut found: Vec<Artifact> = tags.into_iter().map(Artifact::Tagged).collect();
        let (behind, referrers): (Vec<_>, Vec<_>) =
            referrers.into_iter().partition(|referrer| self.stays_behind(&referrer.media_type));
        self.count(|figures| figures.left_behind += behind.len());
        if !referrers.is_empty() {
            let there = self.at_target(&subject.digest).await?;
            let is_there = |digest: &Digest| there.as_ref().map(|there| there.contains(digest));
            found.extend(referrers.into_iter().map(|referrer| {
                let there = is_there(&referrer.digest);
                Artifact::Referrer(referrer, there)
            }));
        }
        Ok(found)
    }

    /// What the target lists as referrers; `None` if it does not.
    async fn at_target(&self, subject: &Digest) -> Shared<Option<HashSet<Digest>>> {
        match referrers(&**self.sides.target, subject, MOST_AT_TARGET).await {
            Ok(there) => Ok(Some(there.into_iter().map(|referrer| referrer.digest).collect())),
            Err(error) if is_refusal(error.kind()) => {
                tracing::debug!(%error, "the target lists no referrers, asking for each");
                Ok(None)
            }
            Err(error) => Err(Arc::new(error.on(Side::Target))),
        }
    }

    /// Whether the target is known not to take manifests of this type. They are not rewritten: what refers to them, or
    /// verifies them, knows them by their digest.
    fn stays_behind(&self, media_type: &str) -> bool {
        let how = self.sides.run.degradations(&self.sides.job.target.id);
        let oci = matches!(media_type, media_type::OCI_MANIFEST | media_type::OCI_INDEX);
        oci && how.contains(Degradation::DockerTypes)
    }

    /// Returns what it is at the target; `None` if it is not there after all.
    async fn bring_one(
        &self,
        source: &Source,
        subject: Digest,
        artifact: Artifact,
    ) -> Shared<Option<Digest>> {
        match artifact {
            Artifact::Referrer(referrer, there) => {
                let brought = self.bring_referrer(source, &subject, &referrer, there).await;
                brought.map_err(|e| named(e, "copy referrer", format!("{} of {subject}", referrer.digest)))
            }
            Artifact::Tagged(tag) => {
                self.bring_tagged(&tag).await.map_err(|error| named(error, "copy artifact", tag))
            }
        }
    }

    async fn bring_referrer(
        &self,
        source: &Source,
        subject: &Digest,
        referrer: &Descriptor,
        there: Option<bool>,
    ) -> Shared<Option<Digest>> {
        let reference = Reference::Digest(referrer.digest);
        let there = match there {
            Some(there) => there,
            None => self.sides.resolve_target(&reference).await?.is_some(),
        };
        if there && !self.sides.run.recheck {
            return Ok(Some(referrer.digest));
        }
        let manifest = match fetch_child(&*source.repository, referrer).await {
            Err(error) if error.kind() == Kind::NotFound => {
                tracing::warn!(%error, "a referrer is listed that is not there");
                return Ok(None);
            }
            other => other?,
        };
        if manifest.subject().map(|named| named.digest) != Some(*subject) {
            tracing::warn!(digest = %referrer.digest, %subject, "it is listed as a referrer and refers to something else");
            return Ok(None);
        }
        self.deliver(manifest, None, true).await.map(Some)
    }

    async fn bring_tagged(&self, tag: &Tag) -> Shared<Option<Digest>> {
        let job = Job {
            reference: Reference::Tag(tag.clone()),
            tag: Some(tag.clone()),
            platforms: None,
            ..self.sides.job.clone()
        };
        let sides = Sides { job: &job, ..*self.sides };
        let how = self.sides.run.degradations(&job.target.id);
        let compared = if how.contains(Degradation::DockerTypes) && self.stays(&sides, tag).await? {
            return Ok(None);
        } else {
            sides.compare_as_is().await
        };
        match compared {
            Ok((_, Wanted::Unchanged(arrived))) => Ok(Some(arrived.descriptor.digest)),
            Ok((there, Wanted::Root(manifest))) => {
                self.deliver(manifest, Some(tag.clone()), !there).await.map(Some)
            }
            // It was there when the tags were listed.
            Err(error) if error.kind() == Kind::NotFound && error.side() == Some(Side::Source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the artifact under `tag` stays behind; counted if so.
    async fn stays(&self, sides: &Sides<'_>, tag: &Tag) -> Shared<bool> {
        let found = sides.source.resolve(&Reference::Tag(tag.clone())).await;
        let found = found.map_err(|error| Arc::new(error.on(Side::Source)))?;
        let stays = self.stays_behind(&found.descriptor.media_type);
        self.count(|figures| figures.left_behind += usize::from(stays));
        Ok(stays)
    }

    /// Brings an artifact, or counts what that would take.
    async fn deliver(&self, root: Manifest, tag: Option<Tag>, fresh: bool) -> Shared<Digest> {
        let digest = root.digest();
        let load = Arc::new(Load { root, tag, fresh, made: HashMap::new(), only: None });
        match self.purpose {
            Purpose::Copy => self.sides.bring(&load, self.figures).await?,
            Purpose::Survey => survey::look(self.sides, &load, self.figures).await?,
        }
        self.count(|figures| figures.referrers += 1);
        Ok(digest)
    }

    fn count(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Subject {
    fn artifact(digest: Digest) -> Self {
        Self { digest, worth_asking: false }
    }
}

/// The same error, which says what it is about.
fn named(error: Arc<Error>, operation: &'static str, artifact: impl fmt::Display) -> Arc<Error> {
    let detail = format!("{} {}: {}", error.operation(), error.subject(), error.detail());
    let named = Error::new(error.kind(), operation, artifact, detail);
    let named = match error.side() {
        Some(side) => named.on(side),
        None => named,
    };
    Arc::new(named.caused_by(error))
}
