//! What the documents show is true: configurations in them are right, and nothing that can be written is left out.

mod executed;
mod mentions;
mod reference;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_policy::profile::Profile;
use ferry_testkit::authority::Authority;
use serde_json::Value;

use crate::harness::Ferry;

const LANGUAGES: [&str; 2] = ["en", "zh"];

/// On the line before a block that is a whole configuration.
const MARK: &str = "<!-- checked -->";

/// The URL of a proxy that does not exist, with a password.
const PROXY: &str = "http://me:secret@proxy.example.com:3128";

fn path_of(language: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(language).join(name)
}

fn document(language: &str, name: &str) -> String {
    let path = path_of(language, name);
    let text = fs::read_to_string(&path);
    assert!(text.is_ok(), "{} is missing", path.display());
    text.unwrap()
}

/// The blocks that are whole configurations.
fn configurations(language: &str, name: &str) -> Vec<String> {
    let text = document(language, name);
    let block = |rest: &str| {
        let body = rest.trim_start_matches('\n').strip_prefix("```yaml\n");
        body.and_then(|body| body.split_once("```")).map(|(block, _)| block.to_owned())
    };
    let found: Vec<Option<String>> = text.split(MARK).skip(1).map(block).collect();
    assert!(
        found.iter().all(Option::is_some),
        "{language}/{name}: {MARK} is not followed by a block of YAML"
    );
    found.into_iter().flatten().collect()
}

fn parse(configuration: &str) -> Value {
    serde_saphyr::from_str(configuration).unwrap()
}

/// A secret that is long enough for every use.
const SECRET: &str = "c2VjcmV0c2VjcmV0";

/// A file of users: `me`, whose password is `secret`.
const USERS: &str = "me:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

/// What a configuration needs around it.
#[derive(Default)]
struct Needs {
    /// Files with certificates and keys, which are read.
    pem: Vec<String>,
    /// Files with secrets or users, and what they hold.
    secrets: Vec<(String, &'static str)>,
    variables: Vec<(String, &'static str)>,
}

impl Needs {
    fn find(&mut self, value: &Value, secret: &'static str) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| self.field(key, value, secret)),
            Value::Array(items) => items.iter().for_each(|item| self.find(item, secret)),
            _ => {}
        }
    }

    fn field(&mut self, key: &str, value: &Value, secret: &'static str) {
        match (key, value) {
            ("ca" | "certificate" | "key", Value::String(path)) => self.pem.push(path.clone()),
            ("ca", Value::Array(paths)) => {
                self.pem.extend(paths.iter().map(|path| path.as_str().unwrap().to_owned()));
            }
            ("users", Value::String(path)) => self.secrets.push((path.clone(), USERS)),
            ("file", Value::String(path)) => self.secrets.push((path.clone(), secret)),
            ("env", Value::String(name)) => self.variables.push((name.clone(), secret)),
            ("proxy", _) => self.find(value, PROXY),
            _ => self.find(value, secret),
        }
    }

    fn provide(&self, ferry: &Ferry) {
        let authority = Authority::new().unwrap();
        let own = authority.certify(&["client.example.com"]).unwrap();
        let all = format!("{}{}{}", own.key, own.certificate, authority.certificate());
        let pem = self.pem.iter().map(|path| (path, all.as_str()));
        for (path, text) in pem.chain(self.secrets.iter().map(|(path, text)| (path, *text))) {
            assert!(Path::new(path).is_relative(), "{path}: documents show paths beside the file");
            let path: PathBuf = ferry.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_in_documents_are_right() {
    let names = [
        "configuration.md",
        "mirror.md",
        "operating.md",
        "registries.md",
        "security.md",
        "serve.md",
        "targets.md",
    ];
    for name in names {
        for language in LANGUAGES {
            let found = configurations(language, name);
            assert!(!found.is_empty(), "{language}/{name} shows no configuration");
            let whole = document(language, name).matches("```yaml").count();
            assert_eq!(found.len(), whole, "{language}/{name}: a block is not marked");
            for text in found {
                let ferry = Ferry::new();
                let mut needs = Needs::default();
                needs.find(&parse(&text), SECRET);
                needs.provide(&ferry);
                fs::write(ferry.path("ferry.yaml"), &text).unwrap();
                let mut command = ferry.command(&["--config", "ferry.yaml", "config", "check"]);
                command.envs(needs.variables.iter().map(|(name, value)| (name, *value)));
                let output = command.output().await.unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(0), "{language}/{name}: {said}\n{text}");
            }
        }
        let [english, chinese] = LANGUAGES.map(|language| {
            let found = configurations(language, name);
            found.iter().map(|text| parse(text)).collect::<Vec<Value>>()
        });
        assert_eq!(english, chinese, "{name}: both languages show the same");
    }
}

/// The names of all fields below a schema.
fn fields(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(parts) => {
            if let Some(Value::Object(properties)) = parts.get("properties") {
                found.extend(properties.keys().cloned());
            }
            parts.values().for_each(|part| fields(part, found));
        }
        Value::Array(parts) => parts.iter().for_each(|part| fields(part, found)),
        _ => {}
    }
}

/// What is written as code in a document, alone or at the end of a path.
fn names_in_code(text: &str, name: &str) -> bool {
    [format!("`{name}`"), format!(".{name}`")].iter().any(|code| text.contains(code))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_is_in_the_reference() {
    let schema = Ferry::new().run(&["config", "schema"]).await.ok();
    let mut found = BTreeSet::new();
    fields(&serde_json::from_str(&schema.out).unwrap(), &mut found);
    assert!(found.len() > 20, "{found:?}");
    for language in LANGUAGES {
        let text = document(language, "configuration.md");
        let missing: Vec<&String> = found.iter().filter(|field| !names_in_code(&text, field)).collect();
        assert!(missing.is_empty(), "{language}/configuration.md does not tell of {missing:?}");
    }
}

#[test]
fn every_profile_is_in_the_table() {
    for (language, met, never) in [("en", "yes", "no"), ("zh", "是", "否")] {
        let text = document(language, "targets.md");
        for profile in Profile::all() {
            let name = profile.name;
            let row = text.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("{language}/targets.md: {name} is missing"));
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [_, _, depth, before_push, changes, limits, tested] = cells[..] else {
                panic!("{language}/targets.md: {row}")
            };
            let place = format!("{language}/targets.md: {name}");
            assert_eq!(depth.contains("NAMESPACE/NAME"), profile.depth.min > 1, "{place}: names");
            assert_eq!(before_push != "–", profile.before_push.is_some(), "{place}: before the first push");
            let declared: Vec<&str> = profile.degradations().iter().map(|one| one.as_str()).collect();
            let named = |change: &&str| names_in_code(changes, change);
            assert!(
                declared.iter().all(named) && declared.is_empty() == (changes == "–"),
                "{place}: changes"
            );
            let rate = profile.requests_per_second.map_or(String::new(), |rate| rate.to_string());
            let size = profile.max_manifest.map_or(String::new(), |size| format!("{} MiB", size >> 20));
            assert!(limits.contains(&rate) && limits.contains(&size), "{place}: limits");
            assert_eq!(limits == "–", rate.is_empty() && size.is_empty(), "{place}: limits");
            assert_eq!(tested, if profile.tested { met } else { never }, "{place}: tested");
        }
        let rows = text.lines().filter(|line| {
            line.starts_with("| `") && line.matches('|').count() == 8 && !line.starts_with("| `--")
        });
        assert_eq!(rows.count(), Profile::all().count(), "{language}/targets.md: a profile is no more");
    }
}
