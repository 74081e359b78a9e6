//! Which manifests of an image are wanted, where its indexes alone do not say it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Content, Descriptor, Digest, Hasher, Manifest, Platform, media_type};
use ferry_policy::platforms::{self, Selection, Unchosen, Verdict};
use ferry_store::{Error, Kind, Side};
use futures_util::future::{BoxFuture, FutureExt};

use crate::compare::fetch_child;
use crate::graph::{Limit, Shared};
use crate::reader::{Origin, Reader};

/// The largest configuration that is read for the platform that it names.
const MOST_CONFIG: u64 = 8 * 1024 * 1024;

/// Chooses among the manifests of one image, and remembers what there was to choose from.
pub(crate) struct Chooser {
    origin: Origin,
    selection: Selection,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// What manifests are for, in the order in which they came.
    platforms: Vec<Platform>,
    /// Whether anything wanted was among them.
    wanted: bool,
}

/// A manifest that may stand for the image.
type Candidate = (Descriptor, Platform);

impl Chooser {
    pub(crate) fn new(origin: &Origin, selection: &Selection) -> Self {
        Self { origin: origin.clone(), selection: selection.clone(), seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // A panic elsewhere cannot leave the list half-written, so the poison is of no account.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a platform that there is; whether it is wanted.
    fn note(&self, platform: &Platform) -> bool {
        let wanted = self.selection.wants(platform);
        let mut seen = self.seen();
        seen.wanted |= wanted;
        if !seen.platforms.contains(platform) {
            seen.platforms.push(platform.clone());
        }
        wanted
    }

    /// Takes note of what an index says.
    pub(crate) fn note_entries(&self, index: &Manifest) {
        for entry in index.children() {
            // What an index inside is for is told by what is in it, unless it is not looked into.
            if matches!(self.selection.verdict(entry), Verdict::Wanted | Verdict::Other)
                && let Some(platform) = platforms::told(entry)
            {
                self.note(platform);
            }
        }
    }

    /// Whether anything that is wanted was seen. False for an image that says nothing of platforms: it is taken as it is.
    pub(crate) fn found(&self, image: Digest) -> Shared<bool> {
        let mut seen = self.seen();
        if seen.wanted || seen.platforms.is_empty() {
            return Ok(seen.wanted);
        }
        Err(unchosen(image, self.selection.nothing(std::mem::take(&mut seen.platforms))))
    }

    /// Whether an image of which no index says the platform is wanted; one that is for none is.
    pub(crate) async fn look(&self, image: &Manifest) -> Shared<bool> {
        let platform = self.platform(image).await?;
        Ok(platform.is_none_or(|platform| self.note(&platform)))
    }

    /// The platform that the configuration of an image names.
    async fn platform(&self, image: &Manifest) -> Shared<Option<Platform>> {
        let Content::Image { config, .. } = image.content() else { return Ok(None) };
        let types = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG];
        if image.artifact_type().is_some() || !types.contains(&config.media_type.as_str()) {
            return Ok(None);
        }
        Ok(Platform::of_config(&self.config(config).await?).filter(platforms::is_told))
    }

    /// The bytes of a configuration, verified.
    async fn config(&self, config: &Descriptor) -> Shared<Vec<u8>> {
        let failed = |kind, detail: &str| {
            Arc::new(Error::new(kind, "read configuration", config.digest, detail).on(Side::Source))
        };
        if config.size > MOST_CONFIG {
            return Err(failed(Kind::Invalid, "it is too large to be read for its platform"));
        }
        let mut reader = Reader::new(&self.origin, config, 0..config.size);
        let (mut bytes, mut hasher) = (Vec::new(), Hasher::new(config.digest.algorithm()));
        while let Some(chunk) = reader.next().await.map_err(|error| error.on(Side::Source))? {
            hasher.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
        match hasher.finish() == config.digest {
            true => Ok(bytes),
            false => Err(failed(Kind::DigestMismatch, "the bytes do not match the digest")),
        }
    }

    /// The one manifest that takes the place of `index`; `None` if the image says nothing of platforms.
    pub(crate) async fn single(&self, index: &Manifest) -> Shared<Option<Manifest>> {
        let limit = Limit::default();
        let candidates = self.candidates(index.clone(), 0, &limit).await?;
        if !self.found(index.digest())? {
            return Ok(None);
        }
        let named: Vec<(Digest, Platform)> =
            candidates.iter().map(|(entry, platform)| (entry.digest, platform.clone())).collect();
        let best = self.selection.best(&named).map_err(|why| unchosen(index.digest(), why))?;
        match best.and_then(|place| candidates.get(place)) {
            Some((entry, _)) => fetch_child(&*self.origin.repository, entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// Everything in an index, and in those inside it, that is wanted for its platform.
    fn candidates<'a>(
        &'a self,
        index: Manifest,
        depth: usize,
        limit: &'a Limit,
    ) -> BoxFuture<'a, Shared<Vec<Candidate>>> {
        async move {
            limit.admit(&index, depth)?;
            self.note_entries(&index);
            let mut found = Vec::new();
            for entry in index.children() {
                match (self.selection.verdict(entry), platforms::told(entry)) {
                    (Verdict::Wanted, Some(platform)) => found.push((entry.clone(), platform.clone())),
                    (Verdict::Look, _) => found.append(&mut self.look_for(entry, depth, limit).await?),
                    _ => {}
                }
            }
            Ok(found)
        }
        .boxed()
    }

    async fn look_for(&self, entry: &Descriptor, depth: usize, limit: &Limit) -> Shared<Vec<Candidate>> {
        let child = fetch_child(&*self.origin.repository, entry).await?;
        if media_type::is_index(child.media_type()) {
            return self.candidates(child, depth + 1, limit).await;
        }
        limit.admit(&child, depth + 1)?;
        let platform = self.platform(&child).await?.filter(|platform| self.note(platform));
        Ok(platform.map(|platform| (entry.clone(), platform)).into_iter().collect())
    }
}

/// The manifests and blobs that are brought of a sparse index: what is wanted, and whatever is not told to be for another
/// platform, because nothing but the index is looked at.
pub(crate) fn of_sparse(selection: &Selection, index: &Manifest) -> Vec<Descriptor> {
    let kept = index.children().iter().zip(selection.kept(index, &HashSet::new()));
    kept.filter(|(_, kept)| *kept).map(|(entry, _)| entry.clone()).collect()
}

/// The digests of [`of_sparse`]; `None` if that is everything.
pub(crate) fn check_sparse(selection: &Selection, index: &Manifest) -> Shared<Option<HashSet<Digest>>> {
    let verdicts: Vec<Verdict> = index.children().iter().map(|entry| selection.verdict(entry)).collect();
    if verdicts.contains(&Verdict::Other)
        && !verdicts.iter().any(|verdict| matches!(verdict, Verdict::Wanted | Verdict::Look))
    {
        let has = index.children().iter().filter_map(platforms::told).cloned().collect();
        return Err(unchosen(index.digest(), selection.nothing(has)));
    }
    let brought: HashSet<Digest> = of_sparse(selection, index).iter().map(|entry| entry.digest).collect();
    let all = index.children().iter().all(|entry| brought.contains(&entry.digest));
    Ok((!all).then_some(brought))
}

/// It is the source that has not what is asked for.
fn unchosen(image: Digest, why: Unchosen) -> Arc<Error> {
    let kind = match why {
        Unchosen::Nothing { .. } => Kind::NotFound,
        Unchosen::Several { .. } => Kind::Invalid,
    };
    let error = Error::new(kind, "choose platform of", image, why.to_string());
    Arc::new(error.caused_by(why).on(Side::Source))
}

/// What a target says that does not take a sparse index, with the remedy. Not all say why.
pub(crate) fn refused_sparse(error: Error, index: Digest) -> Arc<Error> {
    let certainly = match error.kind() {
        Kind::Incomplete => "does not",
        Kind::Invalid | Kind::NotFound => "may not",
        _ => return Arc::new(error.on(Side::Target)),
    };
    let said = error.detail();
    let said = if said.is_empty() { String::new() } else { format!("{said}; ") };
    let detail =
        format!("{said}the target {certainly} take an index whose manifests are missing; use rewrite");
    let kind = error.kind();
    Arc::new(Error::new(kind, "push sparse index", index, detail).caused_by(error).on(Side::Target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_remedy_where_it_is_one() {
        let refused = |kind, detail: &str| {
            let error = refused_sparse(Error::new(kind, "push manifest", "v1", detail), Digest::sha256(b""));
            assert_eq!((error.kind(), error.side()), (kind, Some(Side::Target)));
            error.detail().to_owned()
        };
        let remedy = "take an index whose manifests are missing; use rewrite";
        let lacks = refused(Kind::Incomplete, "it lacks b");
        assert_eq!(lacks, format!("it lacks b; the target does not {remedy}"));
        assert_eq!(refused(Kind::Invalid, ""), format!("the target may not {remedy}"));
        assert_eq!(refused(Kind::Denied, "no"), "no");
    }
}
