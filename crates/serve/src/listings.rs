//! Listings: distribution-spec, "Listing Tags" and "Listing Referrers", and the catalogue of repositories.

use ferry_oci::{Digest, Name, format_next_link, media_type, referrers_index};
use ferry_store::{Cursor, Page, PageRequest, Repository, RepositoryEntry, Store, Told};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderName, Response, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Headers, answer};
use crate::blobs::Of;
use crate::body::{ResponseBody, full};
use crate::error::{Failure, Thing};
use crate::mirror::aged;
use crate::query::encode;

/// So many repositories are looked through at once for those that can be seen.
const AT_ONCE: usize = 1000;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The repositories of which `sees` says that they can be seen.
pub(crate) async fn catalog(store: &dyn Store, page: PageRequest, sees: impl Fn(&Name) -> bool) -> Answer {
    let limit = page.limit;
    let found = visible(store, page, sees).await.map_err(Failure::of(Thing::Repository))?;
    let names: Vec<&str> = found.items.iter().map(|entry| entry.name.as_str()).collect();
    Ok(linked(json_answer(&json!({"repositories": names})), "/v2/_catalog?", &found, limit))
}

/// A page without what cannot be seen: a short page would say that there are no more.
async fn visible(
    store: &dyn Store,
    page: PageRequest,
    sees: impl Fn(&Name) -> bool,
) -> ferry_store::Result<Page<RepositoryEntry>> {
    let wanted = page.limit.unwrap_or(usize::MAX);
    let mut found = Page { items: Vec::new(), next: page.after, told: Told::default() };
    let mut limit = page.limit;
    loop {
        let more = store.repositories("", PageRequest { after: found.next.take(), limit }).await?;
        // Much may be hidden, so it is looked for faster than it was asked for.
        limit = Some(AT_ONCE);
        let ended = more.items.is_empty();
        found.next = more.next;
        let mut seen = more.items.into_iter().filter(|entry| sees(&entry.name));
        let room = wanted - found.items.len();
        found.items.extend(seen.by_ref().take(room));
        if seen.next().is_some() {
            found.next = found.items.last().map(|entry| Cursor::after(entry.name.as_str()));
        }
        if ended || found.next.is_none() || found.items.len() >= wanted {
            return Ok(found);
        }
    }
}

/// What was asked for.
pub(crate) struct Here {
    /// Its path and query, to which `n` and `last` are added for the next page.
    pub(crate) target: String,
    pub(crate) of: Of,
}

impl Here {
    /// What an upstream lists has an age.
    fn told(&self, response: Response<ResponseBody>, told: Told) -> Response<ResponseBody> {
        if self.of == Of::Upstream { aged(response, told) } else { response }
    }
}

pub(crate) async fn tags(repository: &dyn Repository, name: &Name, here: &Here, page: PageRequest) -> Answer {
    let limit = page.limit;
    let found = repository.tags(page).await.map_err(Failure::of(Thing::Repository))?;
    let tags: Vec<&str> = found.items.iter().map(|entry| entry.tag.as_str()).collect();
    let response = json_answer(&json!({"name": name.as_str(), "tags": tags}));
    Ok(here.told(linked(response, &here.target, &found, limit), found.told))
}

/// Which referrers are wanted.
pub(crate) struct Wanted {
    pub(crate) subject: Digest,
    pub(crate) artifact_type: Option<String>,
}

pub(crate) async fn referrers(
    repository: &dyn Repository,
    wanted: Wanted,
    here: &Here,
    page: PageRequest,
) -> Answer {
    let Wanted { subject, artifact_type } = wanted;
    let limit = page.limit;
    let found = repository.referrers(&subject, artifact_type.as_deref(), page).await;
    let found = found.map_err(Failure::of(Thing::Manifest))?;
    let body = full(referrers_index(&found.items));
    let response = answer(StatusCode::OK, body).with(CONTENT_TYPE, media_type::OCI_INDEX);
    let response = here.told(response, found.told);
    Ok(match artifact_type {
        None => linked(response, &here.target, &found, limit),
        Some(kind) => {
            let target = format!("{}artifactType={}&", here.target, encode(&kind));
            linked(response, &target, &found, limit).with(OCI_FILTERS_APPLIED, "artifactType")
        }
    })
}

fn json_answer(value: &Value) -> Response<ResponseBody> {
    answer(StatusCode::OK, full(value.to_string())).with(CONTENT_TYPE, "application/json")
}

/// Says where the next page is. An empty page has none, so that nobody asks for ever.
fn linked<T>(
    response: Response<ResponseBody>,
    target: &str,
    page: &Page<T>,
    limit: Option<usize>,
) -> Response<ResponseBody> {
    let Some(next) = page.next.as_ref().filter(|_| !page.items.is_empty()) else { return response };
    let n = limit.map(|limit| format!("n={limit}&")).unwrap_or_default();
    response.with(LINK, format_next_link(&format!("{target}{n}last={}", encode(next.as_str()))))
}
