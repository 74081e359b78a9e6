//! Listings: kept a page at a time, and believed for as long as tags that move.

use std::future::Future;
use std::time::Duration;

use ferry_oci::{Descriptor, Digest};
use ferry_store::{CachedListing, Cursor, Error, Kind, Page, PageRequest, Result, TagEntry, Told};
use serde_json::json;

use super::Pulled;
use super::recent::Wanted;
use super::stale::is_refusal;

/// A page as text.
fn write(items: impl serde::Serialize, next: Option<&Cursor>) -> String {
    json!([items, next.map(Cursor::as_str)]).to_string()
}

/// The page that a text holds.
fn read<T: serde::de::DeserializeOwned>((text, told): (String, Told)) -> Result<Page<T>> {
    let page: (Vec<T>, Option<String>) = serde_json::from_str(&text)
        .map_err(|e| Error::new(Kind::Invalid, "read", "a listing that was kept", e.to_string()))?;
    Ok(Page { items: page.0, next: page.1.map(Cursor::after), told })
}

/// What is asked for, as the name under which the answer is kept.
fn name_of(list: &str, of: Option<(&Digest, Option<&str>)>, page: &PageRequest) -> String {
    let (subject, artifact_type) = of.unzip();
    let subject = subject.map(Digest::to_string);
    json!([list, subject, artifact_type.flatten(), page.after.as_ref().map(Cursor::as_str), page.limit])
        .to_string()
}

impl Pulled {
    pub(super) async fn list_tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        let (upstream, asked) = (self.upstream.clone(), page.clone());
        let question = || async move {
            let page = upstream.tags(asked).await?;
            let tags: Vec<&str> = page.items.iter().map(|entry| entry.tag.as_str()).collect();
            Ok(write(tags, page.next.as_ref()))
        };
        match self.listed(name_of("tags", None, &page), question).await {
            Ok(listed) => {
                let Page { items, next, told } = read::<String>(listed)?;
                let entry =
                    |tag: String| Some(TagEntry { tag: tag.parse().ok()?, digest: None, pushed: None });
                Ok(Page { items: items.into_iter().filter_map(entry).collect(), next, told })
            }
            Err(error) => instead(error, &page, self.cached.tags(page.clone())).await,
        }
    }

    pub(super) async fn list_referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        let (upstream, asked) = (self.upstream.clone(), page.clone());
        let (of, kind) = (*subject, artifact_type.map(str::to_owned));
        let question = || async move {
            let page = upstream.referrers(&of, kind.as_deref(), asked).await?;
            Ok(write(&page.items, page.next.as_ref()))
        };
        let name = name_of("referrers", Some((subject, artifact_type)), &page);
        match self.listed(name, question).await {
            Ok(listed) => read(listed),
            Err(error) => {
                instead(error, &page, self.cached.referrers(subject, artifact_type, page.clone())).await
            }
        }
    }

    /// A listing as it was kept, as the upstream gives it now, or as it was kept long ago if nothing better can be had.
    async fn listed<F>(&self, of: String, question: impl FnOnce() -> F) -> Result<(String, Told)>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let known = self.known_listing(&of).await;
        if let Some(known) = known.as_ref().filter(|known| self.is_true(known)) {
            self.core.counters.hit();
            return Ok((known.content.clone(), self.told(known.confirmed, false)));
        }
        let wanted = Wanted::Listing(self.name.clone(), of.clone());
        let error = match self.core.recent.recall(&wanted, self.core.now()) {
            Some(error) => error,
            None => match self.ask_for(of.clone(), known.is_some(), question).await {
                Ok(content) => {
                    self.core.counters.missed();
                    return Ok((content, Told { renewed: known.is_some(), ..Told::default() }));
                }
                Err(error) => error,
            },
        };
        let Some(known) = known else { return Err(error) };
        if self.stands_in(known.withdrawn, &error) {
            self.core.counters.stale();
            return Ok((known.content, self.told(known.confirmed, true)));
        }
        if is_refusal(error.kind()) {
            self.keep_listing(&of, None).await;
        }
        Err(error)
    }

    fn is_true(&self, known: &CachedListing) -> bool {
        known.withdrawn.is_none() && self.is_younger(known.confirmed, (self.core.options.lists)())
    }

    async fn known_listing(&self, of: &str) -> Option<CachedListing> {
        let known = self.cached.listing(of).await;
        known.inspect_err(|error| tracing::warn!(%error, "the cache cannot be read")).ok().flatten()
    }

    async fn keep_listing(&self, of: &str, listing: Option<&CachedListing>) {
        if let Err(error) = self.cached.keep_listing(of, listing).await {
            tracing::warn!(%error, "a listing is not kept");
        }
    }

    async fn ask_for<F>(&self, of: String, has_another: bool, question: impl FnOnce() -> F) -> Result<String>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let (this, key) = (self.clone(), (self.name.clone(), of.clone()));
        let ask =
            || {
                let question = question();
                self.core
                    .lists
                    .ask(&self.core.tasks, key, || async move { this.renew_listing(of, question).await })
            };
        self.wait_for(has_another, ask).await
    }

    /// Lets the upstream answer, unless somebody has asked since we looked.
    async fn renew_listing(
        &self,
        of: String,
        question: impl Future<Output = Result<String>>,
    ) -> Result<String> {
        let known = self.known_listing(&of).await;
        if let Some(known) = known.as_ref().filter(|known| self.is_true(known)) {
            return Ok(known.content.clone());
        }
        let confirmed = self.core.now();
        let listed = question.await;
        let now = self.core.now();
        self.core.silence.note(&listed, now);
        match &listed {
            Ok(content) => {
                let listing = CachedListing { content: content.clone(), confirmed, withdrawn: None };
                self.keep_listing(&of, Some(&listing)).await;
            }
            Err(error) => {
                if known.is_some() || error.kind() == Kind::NotFound {
                    let wanted = Wanted::Listing(self.name.clone(), of.clone());
                    self.core.recent.remember(wanted, now, error);
                }
                if let Some(known) = known.filter(|_| is_refusal(error.kind())) {
                    let shown = self.keeps_withdrawn() > Duration::ZERO;
                    let withdrawn = Some(known.withdrawn.unwrap_or(now));
                    self.keep_listing(&of, shown.then_some(CachedListing { withdrawn, ..known }).as_ref())
                        .await;
                }
            }
        }
        listed
    }
}

/// What the cache has of its own, if the upstream cannot answer and it is all in one page: the two do not know each other's
/// cursors.
async fn instead<T>(
    error: Error,
    page: &PageRequest,
    cached: impl Future<Output = Result<Page<T>>>,
) -> Result<Page<T>> {
    if !error.kind().is_transient() || page.after.is_some() {
        return Err(error);
    }
    match cached.await {
        Ok(listed) if listed.next.is_none() && !listed.items.is_empty() => {
            Ok(Page { told: Told { stale: true, ..Told::default() }, ..listed })
        }
        _ => Err(error),
    }
}
