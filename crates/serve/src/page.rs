//! The page for people: what this is, what an image is called here, how clients are configured, and how the mirror does.
//!
//! All of it is made here and works without JavaScript, which only copies texts, keeps a theme and fetches the figures anew.
//! Nothing comes from another host. What strangers see of transfers are registries and percentages, never names of
//! repositories, which may be private.

mod assets;
mod figures;
mod history;
mod numbers;
mod plot;
mod view;
mod words;

use std::sync::Arc;

use ferry_policy::address::Addressing;
use ferry_policy::clients::{Language, PublicUrl, Reached};
use ferry_policy::host::Host;
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{Response, StatusCode};

use crate::answer::{Headers, answer, header};
use crate::body::{ResponseBody, full};
use crate::caller::Caller;
use crate::mirror;
use crate::query::Query;

pub use self::history::{FigureSource, Trend};

/// Scripts, styles and pictures of our own, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The most that is read of an image that somebody typed, in characters.
const MAX_IMAGE: usize = 400;

/// What the page is about.
#[derive(Clone, Default)]
pub struct PageOptions {
    /// What is mirrored; `None` for a registry that mirrors nothing.
    pub addressing: Option<Addressing>,
    /// What is shown of how it does; `None` shows nothing of it.
    pub figures: Option<Arc<Trend>>,
    /// Nothing can be pulled without logging in.
    pub login: bool,
}

/// The page.
pub struct Page {
    options: PageOptions,
}

/// Who looks, and at what.
struct Visit {
    language: Language,
    url: PublicUrl,
    image: String,
}

impl Page {
    /// The page.
    pub fn new(options: PageOptions) -> Self {
        Self { options }
    }

    /// Whether it shows how the server does.
    pub fn shows_figures(&self) -> bool {
        self.options.figures.is_some()
    }

    /// The page, or what belongs to it; `path` is `/` or begins with `/page/`.
    pub(crate) fn answer(&self, parts: &Parts) -> Response<ResponseBody> {
        let path = parts.uri.path();
        if path == "/" {
            return self.page(parts);
        }
        if path == "/page/figures" {
            let figures = self.figures(language(parts, &Query::parse(parts.uri.query())));
            return figures.map_or_else(missing, |text| html(StatusCode::OK, text));
        }
        assets::find(path, parts).unwrap_or_else(missing)
    }

    fn page(&self, parts: &Parts) -> Response<ResponseBody> {
        let Some(visit) = self.visit(parts) else { return unnamed() };
        let reached = self.options.addressing.as_ref();
        let reached = reached.map(|one| Reached::new(one, visit.url.clone(), self.options.login));
        let wants_json = header(parts, ACCEPT).is_some_and(|accept| accept.starts_with("application/json"));
        if wants_json {
            let (status, json) = view::json(reached.as_ref(), &visit);
            let body = full(format!("{json:#}\n"));
            return guarded(answer(status, body).with(CONTENT_TYPE, "application/json"));
        }
        let figures = self.figures(visit.language);
        let (status, context) = view::page(reached.as_ref(), &visit, self.options.login, figures);
        html(status, render("page.html", include_str!("../assets/page.html"), &context))
    }

    /// The part of the page that changes.
    fn figures(&self, language: Language) -> Option<String> {
        let trend = self.options.figures.as_ref()?;
        let context = figures::context(&trend.now(), &trend.history(), language);
        Some(render("figures.html", include_str!("../assets/figures.html"), &context))
    }

    /// Everything that a request says; `None` if that is no host, and we have no name of our own. All of it is a stranger's
    /// text.
    fn visit(&self, parts: &Parts) -> Option<Visit> {
        let query = Query::parse(parts.uri.query());
        let language = language(parts, &query);
        // A form writes blanks as pluses, which no image has.
        let image: String = query.get("image").unwrap_or_default().chars().take(MAX_IMAGE).collect();
        let image = image.replace('+', " ").trim().to_owned();
        let host = mirror::host(parts).and_then(|host| host.parse().ok());
        let secure = Caller::of(&parts.extensions).secure;
        let domain =
            || self.options.addressing.as_ref().and_then(|addressing| addressing.front().domain.clone());
        let host: Option<Host> = host.or_else(domain);
        Some(Visit { language, url: PublicUrl::new(secure, host?), image })
    }
}

/// The language that a visitor asks for.
fn language(parts: &Parts, query: &Query) -> Language {
    let wanted = query.get("lang").and_then(|lang| lang.parse().ok());
    wanted.unwrap_or_else(|| preferred(header(parts, ACCEPT_LANGUAGE).unwrap_or_default()))
}

/// The language that a browser likes best of those that there are.
fn preferred(accept: &str) -> Language {
    let weighed = accept.split(',').filter_map(|one| {
        let mut parts = one.split(';');
        let language: Language = parts.next()?.parse().ok()?;
        let weight = parts.find_map(|part| part.trim().strip_prefix("q="));
        let weight: f32 = weight.map_or(Some(1.0), |weight| weight.trim().parse().ok())?;
        Some((weight, language))
    });
    // Of equal ones the first.
    let best = weighed.reduce(|best, one| if one.0 > best.0 { one } else { best });
    best.filter(|(weight, _)| *weight > 0.0).map(|(_, language)| language).unwrap_or_default()
}

/// A template with its values. What stands in a name that ends with `.html` is escaped.
fn render(name: &str, template: &str, context: &serde_json::Value) -> String {
    let values = minijinja::value::Serde(context);
    minijinja::Environment::new().render_named_str(name, template, values).unwrap_or_else(|error| {
        tracing::error!(%error, "the page cannot be shown");
        String::new()
    })
}

fn html(status: StatusCode, text: String) -> Response<ResponseBody> {
    let status = if text.is_empty() { StatusCode::INTERNAL_SERVER_ERROR } else { status };
    guarded(answer(status, full(text)).with(CONTENT_TYPE, "text/html; charset=utf-8"))
}

fn missing() -> Response<ResponseBody> {
    guarded(answer(StatusCode::NOT_FOUND, full("there is no such page\n")).with(CONTENT_TYPE, "text/plain"))
}

fn unnamed() -> Response<ResponseBody> {
    let text = "the Host header of this request names no host\n";
    guarded(answer(StatusCode::BAD_REQUEST, full(text)).with(CONTENT_TYPE, "text/plain"))
}

fn guarded(response: Response<ResponseBody>) -> Response<ResponseBody> {
    response
        .with(CONTENT_SECURITY_POLICY, POLICY)
        .with(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .with(REFERRER_POLICY, "no-referrer")
        .with(CACHE_CONTROL, "no-store")
        .with(VARY, "Accept, Accept-Language, Host")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::figures::Figures;

    #[test]
    fn browsers_say_which_language_they_like() {
        for (accept, expected) in [
            ("", "en"),
            ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
            ("en-GB,en;q=0.9,zh;q=0.8", "en"),
            ("de,zh;q=0.3,en;q=0.7", "en"),
            ("de, zh-Hant-TW ; q=0.5", "zh"),
            ("zh;q=0", "en"),
            ("zh;q=much,en;q=0.1", "en"),
            (";;;,q=,\u{fffd}", "en"),
        ] {
            assert_eq!(preferred(accept).as_str(), expected, "{accept}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_goes_on_where_the_one_before_it_ended() {
        let trend = Trend::new(Arc::new(Figures::default));
        let page = |figures| Page::new(PageOptions { figures, ..PageOptions::default() });
        let plotted = |page: &Page| page.figures(Language::English).map(|text| text.contains("<svg"));
        let before = page(Some(Arc::clone(&trend)));
        assert_eq!(plotted(&before), Some(false), "nothing was seen yet");
        let (stop, watched) = (CancellationToken::new(), Arc::clone(&trend));
        let watching = tokio::spawn({
            let stop = stop.clone();
            async move { watched.watch(stop).await }
        });
        tokio::time::sleep(Duration::from_secs(31)).await;
        stop.cancel();
        watching.await.unwrap();
        for page in [before, page(Some(trend))] {
            assert_eq!((plotted(&page), page.shows_figures()), (Some(true), true));
        }
        assert_eq!((plotted(&page(None)), page(None).shows_figures()), (None, false));
    }
}
