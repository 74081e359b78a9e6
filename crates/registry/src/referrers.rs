//! Referrers by the API, and by the tag that stands in for it where it is absent (distribution-spec, "Listing
//! Referrers" and "Referrers Tag Schema").

use ferry_oci::{
    Content, Descriptor, Digest, ErrorCode, MAX_MANIFEST_SIZE, Reference, fallback_tag, media_type,
    referrers_index,
};
use ferry_store::{Kind, Page, PageRequest, Result};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Failure, Tried};
use crate::list::{MAX_LISTING, next_query, read_json};
use crate::position::Position;
use crate::read::RemoteRepository;
use crate::request::{Request, text};

/// Says which filters the registry has applied.
const FILTERS_APPLIED: &str = "oci-filters-applied";

/// Entries are read one by one: one that cannot be verified must not hide the others, and nothing is built of it.
#[derive(Deserialize)]
struct Index<'a> {
    #[serde(borrow)]
    manifests: Option<Vec<&'a RawValue>>,
}

/// Some of the referrers, as the registry sent them.
#[derive(Default)]
struct Listing {
    items: Vec<Descriptor>,
    filtered: bool,
    next: Option<String>,
}

/// What to do to a list of referrers.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Enter a referrer, unless it is there.
    Add(Box<Descriptor>),
    /// Take one out.
    Remove(Digest),
}

impl RemoteRepository {
    pub(crate) async fn list_referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        let what = self.what("list referrers", subject);
        let from = Position::read(page.after.as_ref());
        let (skip, query) = (from.skip, from.at.as_deref());
        let listing = match self.api_listing(subject, artifact_type, query).await? {
            Some(listing) => listing,
            None => self.tag_listing(subject).await?,
        };
        let wanted = |item: &Descriptor| match artifact_type {
            Some(wanted) if !listing.filtered => item.artifact_type.as_deref() == Some(wanted),
            _ => true,
        };
        let mut items: Vec<Descriptor> = listing.items.into_iter().filter(wanted).skip(skip).collect();
        let whole = items.len();
        items.truncate(page.limit.unwrap_or(whole));
        let next = if items.len() < whole && !items.is_empty() {
            Some((skip.saturating_add(items.len()), query.unwrap_or_default()))
        } else {
            let moves_on = |next: &&str| items.len() == whole && Some(*next) != query;
            listing.next.as_deref().filter(moves_on).map(|next| (0, next))
        };
        let next = next.map(|(skip, query)| from.next(&what, items.len(), skip, query)).transpose()?;
        Ok(Page::new(items, next))
    }

    /// A page of the API; `None` if the registry does not have it, which is remembered for a while.
    async fn api_listing(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        query: Option<&str>,
    ) -> Tried<Option<Listing>> {
        if self.host.lacks_referrers() {
            return Ok(None);
        }
        let mut url = self.url(&format!("referrers/{subject}"));
        match (query, artifact_type) {
            (Some(query), _) => url.set_query(Some(query)),
            (None, Some(wanted)) => {
                url.query_pairs_mut().append_pair("artifactType", wanted);
            }
            (None, None) => {}
        }
        let request = Request::list(self.what("list referrers", subject), url, self.access());
        let answer = match self.host.call(&request, MAX_MANIFEST_SIZE).await {
            Ok(answer) => answer,
            Err(failure) if is_absent(&failure) => {
                // A repository that does not exist says nothing about the API.
                if failure.code != Some(ErrorCode::NameUnknown) {
                    self.host.remember_no_referrers();
                }
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let index: Index<'_> = read_json(&request.what, &answer)?;
        let entries = index.manifests.unwrap_or_default().into_iter();
        let items = entries.filter_map(|entry| serde_json::from_str(entry.get()).ok()).collect();
        let filtered = text(&answer.headers, FILTERS_APPLIED)
            .is_some_and(|applied| applied.split(',').any(|filter| filter.trim() == "artifactType"));
        Ok(Some(Listing { items, filtered, next: next_query(&answer.headers).map(str::to_owned) }))
    }

    async fn tag_listing(&self, subject: &Digest) -> Tried<Listing> {
        let tag = fallback_tag(subject);
        if self.listed.lacks(&tag) {
            return Ok(Listing::default());
        }
        let manifest = match self.fetch(&Reference::Tag(tag)).await {
            Ok(manifest) => manifest,
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => return Ok(Listing::default()),
            Err(failure) => return Err(failure),
        };
        match manifest.content() {
            Content::Index(items) => Ok(Listing { items: items.clone(), ..Listing::default() }),
            Content::Image { .. } => Ok(Listing::default()),
        }
    }

    /// Whether the registry has no referrers API; asks if that is not known.
    pub(crate) async fn lacks_referrers(&self, subject: &Digest) -> Tried<bool> {
        Ok(self.api_listing(subject, None, None).await?.is_none())
    }

    /// Changes the list under the fallback tag of `subject`, one change at a time. Returns whether the tag is such a
    /// list. Everything in it that is not understood stays as it is.
    pub(crate) async fn change_referrers(&self, subject: &Digest, change: Change) -> Tried<bool> {
        let key = (self.host.registry.clone(), self.name.clone(), *subject);
        let lock = self.host.shared.subject(key);
        let _alone = lock.lock().await;
        let tag = fallback_tag(subject);
        self.listed.forget();
        let before = match self.fetch(&Reference::Tag(tag.clone())).await {
            Ok(manifest) if manifest.media_type() == media_type::OCI_INDEX => Some(manifest),
            Ok(_) => return Ok(false),
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => None,
            Err(failure) => return Err(failure),
        };
        let bytes = match (&before, &change) {
            (None, Change::Add(added)) => Some(referrers_index(&[Descriptor::clone(added)])),
            (None, Change::Remove(_)) => None,
            (Some(before), change) => changed(before.bytes(), change).map(Into::into),
        };
        let Some(bytes) = bytes else { return Ok(true) };
        let what = self.what("list as referrer", subject);
        let request = Request::new(what, Method::PUT, self.url(&format!("manifests/{tag}")), self.access())
            .body(media_type::OCI_INDEX, bytes);
        self.host.call(&request, MAX_LISTING).await?;
        Ok(true)
    }
}

/// A registry without the API does not know the path; one that knows it finds no subject missing.
fn is_absent(failure: &Failure) -> bool {
    failure.error.kind() == Kind::NotFound
        || failure.is(StatusCode::METHOD_NOT_ALLOWED)
        || failure.is(StatusCode::NOT_IMPLEMENTED)
}

/// The index with the change made; `None` if there is nothing to change.
fn changed(index: &[u8], change: &Change) -> Option<String> {
    let mut index: Value = serde_json::from_slice(index).ok()?;
    let entries = index.get_mut("manifests")?.as_array_mut()?;
    let digest = match change {
        Change::Add(added) => added.digest,
        Change::Remove(removed) => *removed,
    }
    .to_string();
    let is_it = |entry: &Value| entry.get("digest").and_then(Value::as_str) == Some(&digest);
    let there = entries.iter().any(is_it);
    match change {
        Change::Add(added) if !there => entries.push(serde_json::to_value(added).ok()?),
        Change::Remove(_) if there => entries.retain(|entry| !is_it(entry)),
        _ => return None,
    }
    Some(index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_know() {
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        let index = format!(
            r#"{{"schemaVersion":2,"x":1,"manifests":[{{"mediaType":"m","digest":"{one}","size":1,"data":"e30="}}]}}"#
        );
        let added = Change::Add(Box::new(Descriptor::new("n", two, 2)));
        let more = changed(index.as_bytes(), &added).unwrap();
        assert!(
            more.contains(r#""x":1"#) && more.contains(r#""data":"e30=""#) && more.contains(&two.to_string())
        );
        assert_eq!(changed(more.as_bytes(), &added), None, "it is there");
        assert_eq!(changed(more.as_bytes(), &Change::Remove(two)).unwrap(), index);
        assert_eq!(changed(index.as_bytes(), &Change::Remove(two)), None, "it is not there");
    }
}
