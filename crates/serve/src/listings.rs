//! Listings: distribution-spec, "Listing Tags" and "Listing Referrers", and the catalogue of repositories.

use ferry_oci::{Digest, Name, format_next_link, media_type, referrers_index};
use ferry_store::{Page, PageRequest, Repository, Store, Told};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderName, Response, StatusCode};
use serde_json::{Value, json};

use crate::answer::{Answer, Headers, answer};
use crate::blobs::Of;
use crate::body::{ResponseBody, full};
use crate::error::{Failure, Thing};
use crate::mirror::aged;
use crate::query::encode;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The repositories that `shown` says yes to.
pub(crate) async fn catalog(store: &dyn Store, page: PageRequest, shown: impl Fn(&Name) -> bool) -> Answer {
    let (limit, mut page) = (page.limit, page);
    let found = loop {
        let mut found = store.repositories("", page).await.map_err(Failure::of(Thing::Repository))?;
        found.items.retain(|entry| shown(&entry.name));
        // A page without any is the last for whoever asks.
        match found.next.clone().filter(|_| found.items.is_empty()) {
            Some(next) => page = PageRequest { after: Some(next), limit },
            None => break found,
        }
    };
    let names: Vec<&str> = found.items.iter().map(|entry| entry.name.as_str()).collect();
    Ok(linked(json_answer(&json!({"repositories": names})), "/v2/_catalog?", &found, limit))
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
