//! Tags: what they mean, how old that is, and what is said when nobody can be asked.

use std::time::Duration;

use ferry_oci::{Manifest, Reference, Tag};
use ferry_store::{CachedTag, Error, Kind, Resolved, Result, Told};

use super::recent::Wanted;
use super::stale::is_refusal;
use super::{Found, Pulled};

impl Pulled {
    /// What a tag means, and the manifest if it was just fetched.
    pub(super) async fn look_up(&self, tag: &Tag) -> Result<(Resolved, Option<Manifest>)> {
        let known = self.known(tag).await;
        if let Some(known) = &known
            && self.is_fresh(tag, known)
        {
            self.core.counters.hit();
            return Ok((self.answer(known, false), None));
        }
        let error = match self.core.recent.recall(&self.wanted(tag), self.core.now()) {
            Some(error) => error,
            None => match self.ask(tag, known.is_some()).await {
                Ok(found) => {
                    self.core.counters.missed();
                    let told = Told { renewed: known.is_some(), ..Told::default() };
                    return Ok((Resolved { descriptor: found.descriptor, told }, found.manifest));
                }
                Err(error) => error,
            },
        };
        let known = self.fall_back(tag, known, error).await?;
        self.core.counters.stale();
        Ok((self.answer(&known, true), None))
    }

    fn wanted(&self, tag: &Tag) -> Wanted {
        Wanted::Manifest(self.name.clone(), Reference::Tag(tag.clone()))
    }

    async fn known(&self, tag: &Tag) -> Option<CachedTag> {
        let known = self.cached.tag(tag).await;
        known.inspect_err(|error| tracing::warn!(%error, "the cache cannot be read")).ok().flatten()
    }

    fn is_fresh(&self, tag: &Tag, known: &CachedTag) -> bool {
        let freshness = (self.core.options.freshness)(&self.name, tag);
        known.withdrawn.is_none() && self.is_younger(known.confirmed, freshness)
    }

    fn answer(&self, known: &CachedTag, stale: bool) -> Resolved {
        Resolved { descriptor: known.descriptor.clone(), told: self.told(known.confirmed, stale) }
    }

    async fn ask(&self, tag: &Tag, has_another: bool) -> Result<Found> {
        let key = (self.name.clone(), Reference::Tag(tag.clone()));
        let (this, tag) = (self.clone(), tag.clone());
        let ask = || self.core.manifests.ask(&self.core.tasks, key, || async move { this.renew(&tag).await });
        self.wait_for(has_another, ask).await
    }

    /// Lets the upstream say what the tag means, in the cheapest way that it counts.
    async fn renew(&self, tag: &Tag) -> Result<Found> {
        let known = self.known(tag).await;
        let found = match &known {
            None => self.fetch(&Reference::Tag(tag.clone()), Some(tag)).await,
            // Somebody asked since we looked.
            Some(known) if self.is_fresh(tag, known) => {
                return Ok(Found { descriptor: known.descriptor.clone(), manifest: None });
            }
            Some(known) => self.confirm(tag, known).await,
        };
        self.core.silence.note(&found, self.core.now());
        if let Err(error) = &found {
            let now = self.core.now();
            if known.is_some() || error.kind() == Kind::NotFound {
                self.core.recent.remember(self.wanted(tag), now, error);
            }
            if known.is_some() && is_refusal(error.kind()) {
                let noted = match self.keeps_withdrawn() {
                    Duration::ZERO => self.cached.forget(tag).await,
                    _ => self.cached.withdraw(tag, now).await,
                };
                noted.unwrap_or_else(|error| tracing::warn!(%error, "the cache cannot be written"));
            }
        }
        found
    }

    /// One free request if the tag means what it did or something else that is here; one more if not.
    async fn confirm(&self, tag: &Tag, known: &CachedTag) -> Result<Found> {
        let asked = self.core.now();
        let said = self.upstream.resolve(&Reference::Tag(tag.clone())).await?.descriptor;
        let here = match self.cached.confirm(tag, &said.digest, asked).await {
            Ok(here) => here,
            Err(error) => {
                tracing::warn!(%error, "the cache cannot be written");
                said.digest == known.descriptor.digest
            }
        };
        if said.digest == known.descriptor.digest && here {
            return Ok(Found { descriptor: known.descriptor.clone(), manifest: None });
        }
        match self.known(tag).await.filter(|known| here && known.descriptor.digest == said.digest) {
            Some(known) => Ok(Found { descriptor: known.descriptor, manifest: None }),
            None => self.fetch(&Reference::Digest(said.digest), Some(tag)).await,
        }
    }

    /// What the cache knows, if it may be shown in place of `error`.
    async fn fall_back(&self, tag: &Tag, known: Option<CachedTag>, error: Error) -> Result<CachedTag> {
        let Some(known) = known else { return Err(error) };
        if self.stands_in(known.withdrawn, &error) {
            tracing::debug!(%error, repository = %self.name, %tag, "answered from the cache");
            return Ok(known);
        }
        if is_refusal(error.kind())
            && let Err(error) = self.cached.forget(tag).await
        {
            tracing::warn!(%error, "the cache cannot be written");
        }
        Err(error)
    }
}
