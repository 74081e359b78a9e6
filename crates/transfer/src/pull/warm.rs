//! Bringing images into the cache before anybody asks for them.

use std::collections::HashSet;
use std::sync::Arc;

use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, media_type};
use ferry_policy::platforms::{Selection, Verdict, told};
use ferry_store::{Error, Kind, Repository, Result};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::flight::{Flights, Landed, Opened};
use super::tasks::again;
use super::{PullThrough, Pulled};
use crate::sources::{MAX_DEPTH, MOST_ASKED, Source, is_refusal, referrers};

/// Blobs of one image that are fetched at once; each may use several connections.
const BLOBS: usize = 4;

/// The most that may belong to an image, either way.
const BELONGINGS: usize = 1_000;

const OPERATION: &str = "warm image";

/// What is brought of an image.
#[derive(Debug, Clone, Copy)]
pub struct Warm<'a> {
    /// The repository at the upstream.
    pub name: &'a Name,
    /// The image in it.
    pub reference: &'a Reference,
    /// Only these platforms of it; the index keeps its bytes whatever its mode.
    pub platforms: Option<&'a Selection>,
}

impl PullThrough {
    /// Brings an image into the cache: indexes, manifests, blobs, what refers to the image as signatures do, and what is under
    /// cosign's tags for it and its platforms; returns when everything is there. What others ask for at the same time is
    /// fetched once for both. `kept` is told the size of everything as it is there.
    ///
    /// If the future is dropped the blobs under way come all the same.
    ///
    /// # Errors
    /// As for reading the manifests and blobs; [`Kind::Invalid`] if the image has nothing for the platforms;
    /// [`Kind::Full`] if there is no room to keep a blob.
    pub async fn warm(&self, image: Warm<'_>, kept: &(dyn Fn(u64) + Send + Sync)) -> Result<()> {
        let pulled = self.pulled(image.name);
        let mut brought = pulled.bring(image, kept).await?;
        let referrers = match brought.first() {
            Some(root) => pulled.referrers_of(root).await?,
            None => Vec::new(),
        };
        for referrer in referrers {
            let reference = &Reference::Digest(referrer.digest);
            brought.extend(pulled.bring(Warm { reference, platforms: None, ..image }, kept).await?);
        }
        pulled.bring_tagged(image, brought, kept).await
    }
}

impl Pulled {
    /// Brings manifests and blobs; which manifests these are, the root first.
    async fn bring(&self, image: Warm<'_>, kept: &(dyn Fn(u64) + Send + Sync)) -> Result<Vec<Digest>> {
        let (manifests, blobs) = self.manifests_of(image, kept).await?;
        let keep = |blob: Descriptor| async move { self.keep(&blob.digest).await.map(kept) };
        stream::iter(blobs).map(keep).buffer_unordered(BLOBS).try_collect::<()>().await?;
        Ok(manifests)
    }

    /// Brings what belongs to these manifests under tags as cosign makes them (`sha256-HEX.sig`), and what belongs to that. The
    /// tags of the repository are listed as for clients: once for all images that are brought within the term of a listing.
    async fn bring_tagged(
        &self,
        image: Warm<'_>,
        mut subjects: Vec<Digest>,
        kept: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let source = Source::new(Arc::new(self.clone()));
        let (mut seen, mut found) = (HashSet::new(), 0);
        for depth in 0..MAX_DEPTH {
            let mut brought = Vec::new();
            for (at, subject) in subjects.into_iter().enumerate() {
                if !seen.insert(subject) {
                    continue;
                }
                let worth_asking = depth == 0 && at < MOST_ASKED;
                let tags = source.tags_of(&subject, worth_asking).await.map_err(|error| again(&error))?;
                found += tags.len();
                if found > BELONGINGS {
                    return Err(many(&subject));
                }
                for tag in tags {
                    let reference = &Reference::Tag(tag);
                    match self.bring(Warm { reference, platforms: None, ..image }, kept).await {
                        Ok(manifests) => brought.extend(manifests),
                        // It was there when the tags were listed.
                        Err(error) if error.kind() == Kind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            subjects = brought;
        }
        Ok(())
    }

    /// What refers to an image. An upstream that does not say has nothing.
    async fn referrers_of(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        match referrers(self, subject, BELONGINGS).await {
            Ok(found) if found.len() > BELONGINGS => Err(many(subject)),
            Err(error) if is_refusal(error.kind()) => {
                tracing::info!(%error, "the upstream does not say what refers to its images");
                Ok(Vec::new())
            }
            found => found,
        }
    }

    /// Brings the manifests; returns which these are, the root first, and the blobs that they name.
    async fn manifests_of(
        &self,
        image: Warm<'_>,
        kept: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(Vec<Digest>, Vec<Descriptor>)> {
        let root = self.manifest(image.reference).await?;
        let mut manifests = vec![root.digest()];
        let mut seen = HashSet::from([root.digest()]);
        let (mut waiting, mut blobs) = (wanted(&root, image.platforms)?, Vec::new());
        let mut blob = |blob: &Descriptor, seen: &mut HashSet<Digest>| {
            if seen.insert(blob.digest) {
                blobs.push(blob.clone());
            }
        };
        kept(root.bytes().len() as u64);
        root.blobs().into_iter().for_each(|one| blob(one, &mut seen));
        while let Some(child) = waiting.pop() {
            if !media_type::is_manifest(&child.media_type) {
                blob(&child, &mut seen);
                continue;
            }
            if !seen.insert(child.digest) {
                continue;
            }
            let manifest = self.manifest(&Reference::Digest(child.digest)).await?;
            manifests.push(child.digest);
            kept(manifest.bytes().len() as u64);
            manifest.blobs().into_iter().for_each(|one| blob(one, &mut seen));
            waiting.extend(chosen(&manifest, image.platforms));
        }
        Ok((manifests, blobs))
    }

    /// Brings a blob into the cache; its size once it is there.
    async fn keep(&self, digest: &Digest) -> Result<u64> {
        if let Ok(Some(size)) = self.cached.stat(digest).await {
            return Ok(size);
        }
        self.core.counters.missed();
        let flight = Flights::join(self, digest);
        let no_room = || Error::new(Kind::Full, OPERATION, digest, "the mirror has no room to keep it");
        let size = match flight.opened().await.map_err(|error| again(&error))? {
            Opened::Kept => {
                let size = self.cached.stat(digest).await?;
                return size.ok_or_else(|| Error::not_found(OPERATION, digest));
            }
            Opened::Staged(_, blob) => blob.size,
            Opened::Unkept(..) => return Err(no_room()),
        };
        match flight.landed().await {
            Landed::Whole => Ok(size),
            Landed::Unkept => Err(no_room()),
            Landed::Failed(error) => Err(again(&error)),
        }
    }
}

fn many(subject: &Digest) -> Error {
    let many = format!("more than {BELONGINGS} artifacts belong to the image, which itself is there");
    Error::new(Kind::Invalid, OPERATION, subject, many)
}

/// The children of an image that are brought.
fn chosen(index: &Manifest, platforms: Option<&Selection>) -> Vec<Descriptor> {
    let Some(platforms) = platforms else { return index.children().to_vec() };
    let kept = platforms.kept(index, &HashSet::new());
    index.children().iter().zip(kept).filter(|(_, kept)| *kept).map(|(child, _)| child.clone()).collect()
}

/// The same of the image itself, which must have something.
fn wanted(root: &Manifest, platforms: Option<&Selection>) -> Result<Vec<Descriptor>> {
    if let Some(platforms) = platforms {
        let verdicts: Vec<Verdict> = root.children().iter().map(|entry| platforms.verdict(entry)).collect();
        let any = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Wanted | Verdict::Look));
        if verdicts.contains(&Verdict::Other) && !any {
            let has = root.children().iter().filter_map(told).cloned().collect();
            let nothing = platforms.nothing(has);
            return Err(Error::new(Kind::Invalid, OPERATION, root.digest(), nothing.to_string()));
        }
    }
    Ok(chosen(root, platforms))
}
