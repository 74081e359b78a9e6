//! Listings of tags and repositories, a page at a time.

use ferry_oci::{Name, Tag, next_link};
use ferry_store::{Cursor, Kind, Page, PageRequest, RepositoryEntry, Result, TagEntry};
use http::header::LINK;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::{Url, form_urlencoded};

use crate::access::Access;
use crate::desk::Desk;
use crate::error::{Tried, What};
use crate::read::RemoteRepository;
use crate::request::{Answer, Request};

/// The longest listing that is read at once, in bytes: registries without paging answer with everything.
pub(crate) const MAX_LISTING: u64 = 32 * 1024 * 1024;

/// The most that is asked for at once: ECR answers 405 to more, distribution 3.1.0 400.
const MOST: usize = 1000;

#[derive(Deserialize)]
struct Tags {
    /// `null` occurs where there are none.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

impl RemoteRepository {
    pub(crate) async fn list_tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        if page.limit == Some(0) {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let url = paged(self.url("tags/list"), &page);
        let request = Request::list(self.what("list tags", "all"), url, self.access());
        let Page { items, next } = match (self.host.call(&request, MAX_LISTING).await, &page.after) {
            (Err(failure), Some(after)) if failure.is(StatusCode::NOT_FOUND) => {
                self.list_beyond(after, page.limit).await?
            }
            (answer, _) => {
                let answer = answer?;
                let names = read_json::<Tags>(&request.what, &answer)?.tags.unwrap_or_default();
                cut(names, &page, &answer.headers)
            }
        };
        let entry =
            |name: String| Some(TagEntry { tag: name.parse::<Tag>().ok()?, digest: None, pushed: None });
        Ok(Page { items: items.into_iter().filter_map(entry).collect(), next })
    }

    /// The tags that come after one that may be gone: zot does not go on from a tag that it does not know, but sends all,
    /// in order, to whoever does not ask for a page.
    async fn list_beyond(&self, after: &Cursor, limit: Option<usize>) -> Tried<Page<String>> {
        let request = Request::list(self.what("list tags", "all"), self.url("tags/list"), self.access());
        let answer = self.host.call(&request, MAX_LISTING).await?;
        if next_query(&answer.headers).is_some() {
            return Err(request.what.failure(Kind::Unavailable, "the listing changed while it was read"));
        }
        let mut names = read_json::<Tags>(&request.what, &answer)?.tags.unwrap_or_default();
        names.retain(|name| name.as_str() > after.as_str());
        Ok(cut(names, &PageRequest { after: None, limit }, &answer.headers))
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
            return Ok(Page { items: Vec::new(), next: None });
        }
        let what = What::new("list repositories of", &self.registry);
        let request =
            Request::list(what, paged(self.url("_catalog"), &page), Access::catalog().on(self.side));
        let answer = self.call(&request, MAX_LISTING).await?;
        let names = read_json::<Catalog>(&request.what, &answer)?.repositories.unwrap_or_default();
        let Page { items, next } = cut(names, &page, &answer.headers);
        let entry = |name: String| Some(RepositoryEntry { name: name.parse::<Name>().ok()? });
        let items = items.into_iter().filter(|name| name.starts_with(prefix)).filter_map(entry).collect();
        Ok(Page { items, next })
    }
}

fn paged(mut url: Url, page: &PageRequest) -> Url {
    if let Some(limit) = page.limit {
        url.query_pairs_mut().append_pair("n", &limit.min(MOST).to_string());
    }
    if let Some(after) = &page.after {
        url.query_pairs_mut().append_pair("last", after.as_str());
    }
    url
}

pub(crate) fn read_json<T: DeserializeOwned>(what: &What, answer: &Answer) -> Tried<T> {
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

/// Makes the page that was asked for of what the registry sent. Some registries ignore `n` and `last` and send
/// everything each time; then the page is cut out here.
fn cut(mut names: Vec<String>, page: &PageRequest, headers: &HeaderMap) -> Page<String> {
    let after = page.after.as_ref().map(Cursor::as_str);
    if let Some(at) = names.iter().position(|name| Some(name.as_str()) == after) {
        names.drain(..=at);
    }
    let whole = names.len();
    names.truncate(page.limit.unwrap_or(whole));
    let last = names.last().cloned();
    let next = if names.len() < whole {
        last
    } else if whole == MOST && page.limit.is_some_and(|limit| limit > MOST) {
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
    Page { items: names, next: next.map(Cursor::after) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(after: Option<&str>, limit: Option<usize>) -> PageRequest {
        PageRequest { after: after.map(Cursor::after), limit }
    }

    fn cut_to(names: &[&str], request: &PageRequest, link: Option<&str>) -> (Vec<String>, Option<String>) {
        let headers = link.map(|link| (LINK, link.parse().unwrap())).into_iter().collect();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let page = cut(names, request, &headers);
        (page.items, page.next.map(|next| next.as_str().to_owned()))
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
