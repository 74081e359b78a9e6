use ferry_oci::Name;
use ferry_serve::{Handler, ResponseBody};
use ferry_store::PageRequest;
use http::header::{ACCEPT, LINK, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::json;
use url::form_urlencoded;

use super::Particular;
use super::answers::{error, json, with, without_length};
use crate::fake::lock;
use crate::quirks::{Link, Listings, TooMany};

type Answer = Response<ResponseBody>;

/// What a request for tags asks for.
#[derive(Default)]
struct Asked {
    n: Option<usize>,
    last: Option<String>,
}

impl Asked {
    fn of(parts: &Parts) -> Self {
        let mut asked = Self::default();
        for (key, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            match &*key {
                "n" => asked.n = value.parse().ok(),
                "last" => asked.last = Some(value.into_owned()),
                _ => {}
            }
        }
        asked
    }
}

impl Particular {
    /// Lists tags or referrers.
    pub(super) async fn list(&self, quirks: &Listings, name: &Name, request: Request<Incoming>) -> Answer {
        if request.uri().path().contains("/referrers/") {
            return match quirks {
                Listings { no_referrers: true, .. } => error(404, "UNSUPPORTED", "404 page not found"),
                Listings { unsized_referrers: true, .. } => without_length(self.api.handle(request).await),
                _ => self.api.handle(request).await,
            };
        }
        let (parts, _) = request.into_parts();
        let asked = Asked::of(&parts);
        match self.refuse_listing(quirks, &parts, &asked) {
            Some(refusal) => refusal,
            None => self.tags(quirks, name, asked).await,
        }
    }

    fn refuse_listing(&self, quirks: &Listings, parts: &Parts, asked: &Asked) -> Option<Answer> {
        let accept = parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        if quirks.absent {
            return Some(error(404, "UNKNOWN", "page not found"));
        }
        if quirks.picky && accept.contains("manifest") {
            return Some(error(406, "UNSUPPORTED", "not acceptable"));
        }
        if quirks.fresh_token && !lock(&self.state.auth).is_fresh(parts) && asked.last.is_some() {
            let challenge = format!("Bearer realm=\"http://{}/token\",service=\"fake\"", self.address);
            return Some(with(error(401, "UNAUTHORIZED", "unauthorized"), WWW_AUTHENTICATE, challenge));
        }
        match quirks.most {
            Some((most, TooMany::Status(status))) if asked.n.is_some_and(|n| n > most) => {
                let detail = format!("Member must have value less than or equal to {most}");
                Some(error(status, "PAGINATION_NUMBER_INVALID", &detail))
            }
            _ => None,
        }
    }

    async fn tags(&self, quirks: &Listings, name: &Name, asked: Asked) -> Answer {
        let Ok(all) = self.reader(name).tags(PageRequest::default()).await else {
            return error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let mut tags: Vec<String> = all.items.into_iter().map(|entry| entry.tag.to_string()).collect();
        if quirks.by_age {
            tags.reverse();
        }
        if quirks.unpaged {
            return page(quirks, name, &tags);
        }
        if let Some(last) = &asked.last {
            match tags.iter().position(|tag| tag == last) {
                Some(at) => drop(tags.drain(..=at)),
                None if quirks.known_last => return error(404, "NAME_UNKNOWN", "no such tag"),
                None => tags.retain(|tag| tag > last),
            }
        }
        let most = quirks.most.map_or(usize::MAX, |(most, _)| most);
        let n = asked.n.or(quirks.usual).unwrap_or(usize::MAX).min(most);
        let more = tags.len() > n;
        tags.truncate(n);
        let answer = page(quirks, name, &tags);
        match (tags.last().filter(|_| more), self.link(quirks, name)) {
            (Some(last), Some(start)) => {
                with(answer, LINK, format!("<{start}?n={n}&last={last}>; rel=\"next\""))
            }
            _ => answer,
        }
    }

    fn link(&self, quirks: &Listings, name: &Name) -> Option<String> {
        let short = name.as_str().split_once('/').map_or("", |(_, rest)| rest);
        Some(match quirks.link {
            Link::Relative => format!("/v2/{name}/tags/list"),
            Link::Absolute => format!("http://{}/v2/{name}/tags/list", self.address),
            Link::LostPrefix => format!("/v2/{short}/tags/list"),
            Link::OtherPath => format!("http://{}/repository/docker/v2/{name}/tags/list", self.address),
            Link::Missing => return None,
        })
    }
}

fn page(quirks: &Listings, name: &Name, tags: &[String]) -> Answer {
    let tags = if quirks.null && tags.is_empty() { json!(null) } else { json!(tags) };
    json(200, json!({"name": name.as_str(), "tags": tags}).to_string())
}
