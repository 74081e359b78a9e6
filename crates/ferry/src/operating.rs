//! `ferry warm` and `ferry cache`: what a running mirror is asked to do, through its admin API.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ferry_oci::ImageReference;
use ferry_registry::Secret;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::cli::Output;
use crate::exit::{self, Exit};
use crate::report::size;
use crate::settings::{AdminOf, Cache, CacheTask, Warm};

/// How often a mirror is asked how far it is.
const POLL: Duration = Duration::from_millis(500);

/// How often a long run says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How long a mirror may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The admin API of a mirror.
struct Api {
    http: reqwest::Client,
    url: Url,
    token: Secret,
}

impl Api {
    fn new(admin: &AdminOf) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
        Ok(Self { http: http.build()?, url: admin.url.clone(), token: admin.token.clone() })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let mut url = self.url.join("/api/v1/").and_then(|below| below.join(path))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url).bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let hint = match self.url.scheme() {
            "https" => {
                "the admin API speaks plain HTTP: write http:// if nothing in front of it does otherwise"
            }
            _ => "does it have serve: admin?",
        };
        let unreachable = || format!("cannot reach the mirror at {}; {hint}", self.url);
        let answer = request.send().await.with_context(unreachable)?;
        let status = answer.status();
        let text = answer.text().await.with_context(unreachable)?;
        let document: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        match (status, document["error"].as_str()) {
            (status, _) if status.is_success() => Ok(document),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                bail!("{} does not take the token; name the right one with --token-file", self.url)
            }
            (_, Some(error)) => bail!("{error}"),
            _ => bail!("{} answered {status}; is that the admin API of ferry serve?", self.url),
        }
    }
}

/// Runs `ferry warm`.
pub(crate) async fn warm(settings: Warm, stop: CancellationToken) -> anyhow::Result<Exit> {
    let api = Api::new(&settings.admin)?;
    match warmed(&api, &settings, &stop).await {
        Ok(exit) => Ok(exit),
        Err(error) => Ok(exit::failed(&error)),
    }
}

async fn warmed(api: &Api, settings: &Warm, stop: &CancellationToken) -> anyhow::Result<Exit> {
    let images: Vec<String> = settings.images.iter().map(ToString::to_string).collect();
    let order = json!({"images": images, "platforms": settings.platforms});
    let mut order = api.ask(Method::POST, "warm", &[], Some(&order)).await?;
    let path = format!("warm/{}", order["id"]);
    let text = settings.admin.output == Output::Text;
    let (mut said, mut alive) = (vec![false; images.len()], Instant::now());
    loop {
        if text {
            say_ended(&order, &mut said);
        }
        if order["over"] == true {
            break;
        }
        if alive.elapsed() >= HEARTBEAT {
            alive = Instant::now();
            let bytes: u64 = each(&order).filter_map(|image| image["bytes"].as_u64()).sum();
            let ended = said.iter().filter(|said| **said).count();
            note!("{ended} of {} images, {} so far", images.len(), size(bytes));
        }
        if stop.run_until_cancelled(tokio::time::sleep(POLL)).await.is_none() {
            note!("ferry: stopped; the mirror goes on with what is left");
            return Ok(Exit::Stopped);
        }
        order = api.ask(Method::GET, &path, &[], None).await?;
    }
    if !text {
        say!("{order:#}");
    }
    let failed = each(&order).filter(|image| image["state"] == "failed").count();
    Ok(ended(failed, images.len()))
}

/// How a run ended of whose parts some failed.
fn ended(failed: usize, of: usize) -> Exit {
    match failed {
        0 => Exit::Done,
        failed if failed == of => Exit::AllFailed,
        _ => Exit::SomeFailed,
    }
}

fn each(order: &Value) -> impl Iterator<Item = &Value> {
    order["images"].as_array().into_iter().flatten()
}

/// Prints the images that have ended since the last time.
fn say_ended(order: &Value, said: &mut [bool]) {
    for (image, said) in each(order).zip(said).filter(|(_, said)| !**said) {
        let name = image["image"].as_str().unwrap_or_default();
        match image["state"].as_str() {
            Some("done") => say!("warm    {name}  {}", size(image["bytes"].as_u64().unwrap_or_default())),
            Some("failed") => say!("failed  {name}: {}", image["error"].as_str().unwrap_or_default()),
            _ => continue,
        }
        *said = true;
    }
}

/// Runs `ferry cache`.
pub(crate) async fn cache(settings: Cache) -> anyhow::Result<Exit> {
    let api = Api::new(&settings.admin)?;
    let text = settings.admin.output == Output::Text;
    let (images, change): (_, fn(&ImageReference) -> Change) = match &settings.task {
        CacheTask::List(registry) => {
            let listed = list(&api, registry.as_ref().map(ferry_oci::Registry::as_str), text).await;
            return Ok(listed.map_or_else(|error| exit::failed(&error), |()| Exit::Done));
        }
        CacheTask::Drop(images) => (images, Change::discard),
        CacheTask::Pin(images) => (images, Change::pin),
        CacheTask::Unpin(images) => (images, Change::unpin),
    };
    let (mut failed, mut results) = (0, Vec::new());
    for image in images {
        let Change { method, path, query, body, done } = change(image);
        let query = query.as_ref().map(|image| [("image", image.as_str())]);
        let asked = api.ask(method, path, query.as_ref().map_or(&[], |q| q), body.as_ref()).await;
        match &asked {
            Ok(answer) if text => say!("{}", done_line(done, image, answer)),
            Err(error) if text => note!("ferry: {image}: {error:#}"),
            _ => {}
        }
        failed += usize::from(asked.is_err());
        let error = asked.as_ref().err().map(|error| format!("{error:#}"));
        results.push(json!({"image": image.to_string(), "result": asked.ok(), "error": error}));
    }
    if !text {
        say!("{:#}", json!(results));
    }
    Ok(ended(failed, images.len()))
}

/// What is asked for an image.
struct Change {
    method: Method,
    path: &'static str,
    query: Option<String>,
    body: Option<Value>,
    done: &'static str,
}

impl Change {
    fn discard(image: &ImageReference) -> Self {
        let query = Some(image.to_string());
        Self { method: Method::DELETE, path: "cache", query, body: None, done: "dropped" }
    }

    fn pin(image: &ImageReference) -> Self {
        let body = Some(json!({"image": image.to_string()}));
        Self { method: Method::POST, path: "pins", query: None, body, done: "pinned" }
    }

    fn unpin(image: &ImageReference) -> Self {
        let query = Some(image.to_string());
        Self { method: Method::DELETE, path: "pins", query, body: None, done: "unpinned" }
    }
}

fn done_line(done: &str, image: &ImageReference, answer: &Value) -> String {
    match (answer["bytes"].as_u64(), answer["changed"].as_bool()) {
        (Some(bytes), _) => format!("{done}  {image}  {} free", size(bytes)),
        (None, Some(false)) => format!("{done}  {image}  it was already"),
        _ => format!("{done}  {image}"),
    }
}

async fn list(api: &Api, registry: Option<&str>, text: bool) -> anyhow::Result<()> {
    let (mut after, mut all) = (None::<String>, Vec::new());
    loop {
        let mut query = Vec::new();
        query.extend(registry.map(|registry| ("registry", registry)));
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = api.ask(Method::GET, "cache", &query, None).await?;
        for image in each(&page) {
            match text {
                true => say!("{}", listed(image)),
                false => all.push(image.clone()),
            }
        }
        match page["after"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    if !text {
        say!("{:#}", json!(all));
    }
    Ok(())
}

/// An image in a line.
fn listed(image: &Value) -> String {
    let word = |field: &str| image[field].as_str();
    let registry = word("registry").map(|registry| format!("{registry}/")).unwrap_or_default();
    let tag = word("tag").map(|tag| format!(":{tag}"));
    let name = tag.unwrap_or_else(|| format!("@{}", word("digest").unwrap_or_default()));
    let used = image["used"].as_u64().map(Duration::from_secs).unwrap_or_default();
    let used = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + used);
    let pinned = if image["pinned"] == true { "  pinned" } else { "" };
    let bytes = size(image["bytes"].as_u64().unwrap_or_default());
    format!("{registry}{}{name}  {bytes}  used {used}{pinned}", word("repository").unwrap_or_default())
}
