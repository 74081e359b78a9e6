//! Listings of tags and repositories, a page at a time.

use std::fmt;

use ferry_oci::{Name, Tag, next_link};
use ferry_store::{Kind, Page, PageRequest, RepositoryEntry, Result, TagEntry};
use http::header::LINK;
use http::{HeaderMap, StatusCode};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use url::{Url, form_urlencoded};

use crate::access::Access;
use crate::desk::Desk;
use crate::error::{Tried, What};
use crate::position::{MAX_ENTRIES, Position};
use crate::read::RemoteRepository;
use crate::request::{Answer, Request};

/// The longest listing that is read at once, in bytes: registries without paging answer with everything.
pub(crate) const MAX_LISTING: u64 = 32 * 1024 * 1024;

/// The most that is asked for at once: ECR answers 405 to more, distribution 3.1.0 400.
const MOST: usize = 1000;

#[derive(Deserialize)]
struct Tags {
    /// `null` occurs where there are none.
    tags: Option<Names>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Names>,
}

/// What a page lists. Three bytes of it can be a name without letters, of ten times that size in memory.
#[derive(Default)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_seq(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element()? {
            if names.len() == MAX_ENTRIES {
                return Err(A::Error::custom(format!("more than {MAX_ENTRIES} entries")));
            }
            names.push(name);
        }
        Ok(Names(names))
    }
}

impl RemoteRepository {
    pub(crate) async fn list_tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        if page.limit == Some(0) {
            return Ok(Page::new(Vec::new(), None));
        }
        let from = Position::read(page.after.as_ref());
        let url = paged(self.url("tags/list"), page.limit, &from);
        let request = Request::list(self.what("list tags", "all"), url, self.access());
        let (names, next) = match (self.host.call(&request, MAX_LISTING).await, &from.at) {
            (Err(failure), Some(after)) if failure.is(StatusCode::NOT_FOUND) => {
                self.list_beyond(after, page.limit).await?
            }
            (answer, after) => {
                let answer = answer?;
                let names = read_json::<Tags>(&request.what, &answer)?.tags.unwrap_or_default().0;
                cut(names, page.limit, after.as_deref(), &answer.headers)
            }
        };
        let next = next.map(|next| from.next(&request.what, names.len(), 0, &next)).transpose()?;
        let entry =
            |name: String| Some(TagEntry { tag: name.parse::<Tag>().ok()?, digest: None, pushed: None });
        Ok(Page::new(names.into_iter().filter_map(entry).collect(), next))
    }

    /// The tags that come after one that may be gone: zot does not go on from a tag that it does not know, but sends all,
    /// in order, to whoever does not ask for a page.
    async fn list_beyond(&self, after: &str, limit: Option<usize>) -> Tried<(Vec<String>, Option<String>)> {
        let request = Request::list(self.what("list tags", "all"), self.url("tags/list"), self.access());
        let answer = self.host.call(&request, MAX_LISTING).await?;
        if next_query(&answer.headers).is_some() {
            return Err(request.what.failure(Kind::Unavailable, "the listing changed while it was read"));
        }
        let mut names = read_json::<Tags>(&request.what, &answer)?.tags.unwrap_or_default().0;
        names.retain(|name| name.as_str() > after);
        Ok(cut(names, limit, None, &answer.headers))
    }
}

impl Desk {
    /// The repositories below `prefix`. The listing knows no prefix, so a page may hold few of them, or none.
    pub(crate) async fn repositories(
        &self,
        prefix: &str,
        page: PageRequest,
    ) -> Result<Page<RepositoryEntry>> {
        if page.limit == Some(0) {
            return Ok(Page::new(Vec::new(), None));
        }
        let what = What::new("list repositories of", &self.registry);
        let from = Position::read(page.after.as_ref());
        let url = paged(self.url("_catalog"), page.limit, &from);
        let request = Request::list(what, url, Access::catalog().on(self.side));
        let answer = self.call(&request, MAX_LISTING).await?;
        let names = read_json::<Catalog>(&request.what, &answer)?.repositories.unwrap_or_default().0;
        let (names, next) = cut(names, page.limit, from.at.as_deref(), &answer.headers);
        let next = next.map(|next| from.next(&request.what, names.len(), 0, &next)).transpose()?;
        let entry = |name: String| Some(RepositoryEntry { name: name.parse::<Name>().ok()? });
        let items = names.into_iter().filter(|name| name.starts_with(prefix)).filter_map(entry).collect();
        Ok(Page::new(items, next))
    }
}

fn paged(mut url: Url, limit: Option<usize>, from: &Position) -> Url {
    if let Some(limit) = limit {
        url.query_pairs_mut().append_pair("n", &limit.min(MOST).to_string());
    }
    if let Some(after) = &from.at {
        url.query_pairs_mut().append_pair("last", after);
    }
    url
}

pub(crate) fn read_json<'a, T: Deserialize<'a>>(what: &What, answer: &'a Answer) -> Tried<T> {
    serde_json::from_slice(&answer.body)
        .map_err(|e| what.failure(Kind::Invalid, format!("the answer cannot be read: {e}")))
}

/// The query of the link to the next page, which is all of it that can be relied on: proxies lose parts of the path,
/// and the host may be one that must not see our authorization.
pub(crate) fn next_query(headers: &HeaderMap) -> Option<&str> {
    let link = headers.get_all(LINK).iter().find_map(|link| next_link(link.to_str().ok()?))?;
    let (_, query) = link.split_once('?')?;
    Some(query.split_once('#').map_or(query, |(query, _)| query))
}

/// Makes the page that was asked for of what the registry sent, and finds the name after which the next one begins. Some
/// registries ignore `n` and `last` and send everything each time; then the page is cut out here.
fn cut(
    mut names: Vec<String>,
    limit: Option<usize>,
    after: Option<&str>,
    headers: &HeaderMap,
) -> (Vec<String>, Option<String>) {
    if let Some(at) = names.iter().position(|name| Some(name.as_str()) == after) {
        names.drain(..=at);
    }
    let whole = names.len();
    names.truncate(limit.unwrap_or(whole));
    let last = names.last().cloned();
    let next = if names.len() < whole {
        last
    } else if whole == MOST && limit.is_some_and(|limit| limit > MOST) {
        // Less was asked for than was wanted.
        last
    } else {
        next_query(headers).and_then(|query| {
            let linked = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "last");
            linked.map(|(_, value)| value.into_owned()).or_else(|| last.clone())
        })
    };
    // A registry that sends the same page for ever must not keep us.
    let next = next.filter(|next| !names.is_empty() && Some(next.as_str()) != after);
    (names, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Request<'a> = (Option<&'a str>, Option<usize>);

    fn page(after: Option<&str>, limit: Option<usize>) -> Request<'_> {
        (after, limit)
    }

    fn cut_to(
        names: &[&str],
        (after, limit): &Request<'_>,
        link: Option<&str>,
    ) -> (Vec<String>, Option<String>) {
        let headers = link.map(|link| (LINK, link.parse().unwrap())).into_iter().collect();
        cut(names.iter().map(|name| (*name).to_owned()).collect(), *limit, *after, &headers)
    }

    #[test]
    fn only_the_cursor_is_taken_from_a_link() {
        for link in [
            "</v2/app/tags/list?last=b&n=2>; rel=\"next\"",
            "<https://elsewhere.example.com/lost/prefix/tags/list?n=2&last=b>; rel=next",
            "</v2/app/tags/list?next_page=opaque>; rel=\"next\"",
        ] {
            let (items, next) = cut_to(&["a", "b"], &page(None, Some(2)), Some(link));
            assert_eq!((items.len(), next.as_deref()), (2, Some("b")), "{link}");
        }
        let escaped = "</v2/app/tags/list?last=a%2Bb>; rel=\"next\"";
        assert_eq!(cut_to(&["a+b"], &page(None, None), Some(escaped)).1.as_deref(), Some("a+b"));
        assert_eq!(cut_to(&["a", "b"], &page(None, Some(2)), None).1, None);
    }

    #[test]
    fn a_listing_that_ignores_paging_is_cut_here() {
        let all = ["d", "a", "c", "b"];
        assert_eq!(
            cut_to(&all, &page(None, Some(3)), None),
            (vec!["d".into(), "a".into(), "c".into()], Some("c".into()))
        );
        assert_eq!(cut_to(&all, &page(Some("c"), Some(3)), None), (vec!["b".into()], None));
        assert_eq!(cut_to(&all, &page(None, None), None).0.len(), 4);
    }

    #[test]
    fn a_listing_that_does_not_move_on_ends() {
        let same = "</v2/app/tags/list?last=b>; rel=\"next\"";
        assert_eq!(cut_to(&["x"], &page(Some("b"), None), Some(same)).1, None);
        assert_eq!(cut_to(&[], &page(Some("a"), None), Some(same)).1, None);
    }

    #[test]
    fn no_tags_may_be_null() {
        for body in [r#"{"name":"a","tags":null}"#, r#"{"name":"a"}"#] {
            assert!(serde_json::from_str::<Tags>(body).unwrap().tags.is_none());
        }
    }
}
