//! What the page says to a visitor.

use ferry_oci::ImageReference;
use ferry_policy::address::{Form, Unmirrored};
use ferry_policy::clients::{Client, Configuration, Language, Note, Reached, Way, described};
use http::StatusCode;
use serde_json::{Value, json};

use super::words::{self, Word};
use super::{Visit, assets};
use crate::query::encode;

/// What people might look for.
const EXAMPLES: [&str; 4] = [
    "nginx:1.27",
    "registry.k8s.io/pause:3.10",
    "quay.io/prometheus/prometheus",
    "ghcr.io/open-telemetry/demo",
];

/// The values of the template, and with which status they are answered.
pub(super) fn page(
    reached: Option<&Reached>,
    visit: &Visit,
    login: bool,
    figures: Option<String>,
) -> (StatusCode, Value) {
    let language = visit.language;
    let host = visit.url.host().to_string();
    let mut context = json!({
        "t": words::all(language),
        "lang": language.as_str(),
        "host": host,
        "secure": visit.url.is_secure(),
        "assets": assets::addresses(),
        "switch": switch(visit),
        "image": visit.image,
        "login": login,
        "figures": figures,
        "mirror": reached.is_some(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let Some(reached) = reached else {
        context["push"] = push(&host, language);
        return (StatusCode::OK, context);
    };
    context["examples"] = examples(reached, language);
    context["clients"] = Client::ALL.map(|client| configured(reached, client, language)).into();
    context["upstreams"] = upstreams(reached);
    let has_host = |one: &Value| one["host"].is_string();
    context["has_aliases"] =
        context["upstreams"].as_array().is_some_and(|all| all.iter().any(has_host)).into();
    let status = match found(reached, &visit.image) {
        None => StatusCode::OK,
        Some(Ok((image, ways))) => {
            context["full"] = image.to_string().into();
            context["ways"] = ways.iter().map(|way| shown(way, visit)).collect();
            StatusCode::OK
        }
        Some(Err(Missing::NoName(why))) => {
            context["error"] = format!("{} {why}", words::one(Word::NoImage, language)).into();
            StatusCode::BAD_REQUEST
        }
        Some(Err(Missing::Nowhere(why))) => {
            context["error"] = words::reason(&why, language).into();
            StatusCode::NOT_FOUND
        }
    };
    (status, context)
}

/// The same for programs.
pub(super) fn json(reached: Option<&Reached>, visit: &Visit) -> (StatusCode, Value) {
    let Some(reached) = reached else { return (StatusCode::OK, json!({"mirror": null})) };
    match found(reached, &visit.image) {
        None => {
            let registries: Vec<&str> = reached.upstreams().map(|one| one.registry.as_str()).collect();
            (StatusCode::OK, json!({"mirror": visit.url.to_string(), "registries": registries}))
        }
        Some(Ok((image, ways))) => (StatusCode::OK, described(&image, reached.url(), &ways)),
        Some(Err(Missing::NoName(why))) => (StatusCode::BAD_REQUEST, json!({"error": why})),
        Some(Err(Missing::Nowhere(why))) => (StatusCode::NOT_FOUND, json!({"error": why.to_string()})),
    }
}

/// Why there is nothing to show.
enum Missing {
    NoName(String),
    Nowhere(Unmirrored),
}

/// What was typed, if something was, and the ways to it, of which there is one at least.
fn found(reached: &Reached, typed: &str) -> Option<Result<(ImageReference, [Way; 4]), Missing>> {
    // People paste what they have at hand.
    let words = typed
        .split_whitespace()
        .filter(|word| !["docker", "podman", "nerdctl", "crictl", "pull"].contains(word));
    let words: Vec<&str> = words.collect();
    let name = match words[..] {
        [] => return None,
        [name] => name.trim_start_matches("docker://").trim_start_matches("https://"),
        _ => typed,
    };
    let image: ImageReference = match name.parse() {
        Ok(image) => image,
        Err(error) => return Some(Err(Missing::NoName(ferry_oci::Malformed::to_string(&error)))),
    };
    let ways = reached.ways(&image);
    if let [Way { name: Err(error), .. }, ..] = &ways
        && ways.iter().all(|way| way.name.is_err())
    {
        return Some(Err(Missing::Nowhere(error.clone())));
    }
    Some(Ok((image, ways)))
}

fn shown(way: &Way, visit: &Visit) -> Value {
    let language = visit.language;
    let [title, needs] = words::of_form(way.form, language);
    let http = way.form == Form::Prefix && !visit.url.is_secure();
    let needs = if http { words::one(Word::PrefixHttp, language) } else { needs };
    let commands: Vec<Value> =
        way.commands.iter().map(|one| json!({"tool": one.tool.as_str(), "line": one.line})).collect();
    let (name, reason) = match &way.name {
        Err(error) => (None, Some(words::reason(error, language))),
        // It has a name, and nobody who would use it.
        Ok(_) if commands.is_empty() => (None, Some(words::one(Word::ReasonNoTool, language).to_owned())),
        Ok(name) => (Some(name.to_string()), None),
    };
    json!({
        "form": way.form.as_str(), "title": title, "needs": needs, "name": name, "reason": reason,
        "commands": commands, "open": way.form == Form::Prefix,
    })
}

fn switch(visit: &Visit) -> Value {
    let (lang, name) = match visit.language {
        Language::English => ("zh", "中文"),
        Language::Chinese => ("en", "English"),
    };
    let image =
        if visit.image.is_empty() { String::new() } else { format!("&image={}", encode(&visit.image)) };
    json!({"lang": lang, "name": name, "href": format!("/?lang={lang}{image}")})
}

fn examples(reached: &Reached, language: Language) -> Value {
    let known =
        |image: &&str| image.parse().is_ok_and(|image| reached.way(&image, Form::Namespace).name.is_ok());
    let link = |image: &str| format!("/?lang={}&image={}#result", language.as_str(), encode(image));
    EXAMPLES
        .iter()
        .filter(|image| known(image))
        .map(|image| json!({"image": image, "href": link(image)}))
        .collect()
}

fn configured(reached: &Reached, client: Client, language: Language) -> Value {
    let mut context = json!({"id": client.as_str(), "title": client.title()});
    match reached.configuration(client, &[]) {
        Err(error) => context["reason"] = words::reason(&error, language).into(),
        Ok(Configuration { snippets, notes }) => {
            let snippet =
                |one: &ferry_policy::clients::Snippet| json!({"file": one.file, "text": one.text.trim_end()});
            context["snippets"] = snippets.iter().map(snippet).collect();
            let (before, after): (Vec<&Note>, _) =
                notes.iter().partition(|note| **note == Note::KubernetesNodes);
            let texts = |notes: Vec<&Note>| {
                notes.into_iter().map(|note| parts(&note.text(language))).collect::<Value>()
            };
            context["before"] = texts(before);
            context["after"] = texts(after);
        }
    }
    context
}

/// A text in parts, every second of which is code.
fn parts(text: &str) -> Value {
    let part = |(at, text): (usize, &str)| json!({"code": at % 2 == 1, "text": text});
    text.split('`').enumerate().map(part).collect()
}

/// What stands in front of the repositories of each upstream.
fn upstreams(reached: &Reached) -> Value {
    let places = reached.upstreams().map(|upstream| {
        let [prefix, host] = [Form::Prefix, Form::AliasHost].map(|form| reached.place(upstream, form));
        json!({"registry": upstream.registry.as_str(), "prefix": prefix, "host": host})
    });
    places.collect()
}

/// What to do with a registry of one's own.
fn push(host: &str, language: Language) -> Value {
    let one = |word, text: String| json!({"title": words::one(word, language), "text": text});
    json!([
        one(
            Word::RegistryPush,
            format!("docker tag app:1.0 {host}/team/app:1.0\ndocker push {host}/team/app:1.0")
        ),
        one(Word::RegistryPull, format!("docker pull {host}/team/app:1.0")),
        one(
            Word::RegistryCopy,
            format!("ferry copy quay.io/prometheus/busybox:latest {host}/prometheus/busybox")
        ),
    ])
}
