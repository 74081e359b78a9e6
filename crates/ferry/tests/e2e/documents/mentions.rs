//! What documents refer to is there: other documents and their sections, options, variables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{LANGUAGES, document};
use crate::harness::Ferry;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Both READMEs, and all that is in `docs/en` and `docs/zh`.
fn documents() -> Vec<(PathBuf, String)> {
    let of_language = |language: &str| {
        let entries = fs::read_dir(root().join("docs").join(language)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let readmes = ["README.md", "README.zh-CN.md"].map(|name| root().join(name));
    let paths = readmes.into_iter().chain(LANGUAGES.iter().flat_map(|language| of_language(language)));
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The anchors of a document's sections, as they are made by what shows it.
fn anchors(text: &str) -> BTreeSet<String> {
    let titles =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |title: &str| -> String {
        let kept = title.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for (path, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, section) =
                link.split_once('#').map_or((link, None), |(file, section)| (file, Some(section)));
            let to = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(to.exists(), "{}: {link}", path.display());
            if let Some(section) = section {
                let there = anchors(&fs::read_to_string(to).unwrap());
                assert!(there.contains(section), "{}: {link}: there are {there:?}", path.display());
            }
        }
    }
    assert!(links > 60, "only {links} links were found");
}

/// The commands that a text shows, each as its words from `ferry` on.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let shown = text
        .lines()
        .flat_map(|line| line.split(['|', '`', '(']))
        .map(|part| part.split(" # ").next().unwrap());
    let words =
        shown.map(|part| part.split_whitespace().skip_while(|word| *word != "ferry").skip(1).collect());
    words.filter(|words: &Vec<&str>| !words.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_are_shown_exist() {
    let ferry = Ferry::new();
    let (mut helps, mut options) = (BTreeMap::new(), 0);
    for (path, text) in documents() {
        for words in commands(&text) {
            let verb = words.iter().copied().find(|word| !word.starts_with('-') && !word.contains('.'));
            let Some(verb) = verb.filter(|verb| verb.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
            else {
                continue;
            };
            let given: Vec<&str> =
                words.iter().filter(|word| word.starts_with("--") && **word != "--").copied().collect();
            if given.is_empty() {
                continue;
            }
            if !helps.contains_key(verb) {
                let mut help = ferry.run(&[verb, "--help"]).await.ok().out;
                let parts: &[&str] = match verb {
                    "storage" => &["check", "gc", "stats"],
                    "cache" => &["list", "drop", "pin", "unpin"],
                    "user" => &["add", "remove"],
                    _ => &[],
                };
                for part in parts {
                    help += &ferry.run(&[verb, part, "--help"]).await.ok().out;
                }
                helps.insert(verb.to_owned(), help);
            }
            for option in given.into_iter().map(|option| option.split('=').next().unwrap()) {
                let option = option.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
                let known = helps[verb].lines().any(|line| {
                    let mut words = line.split([' ', ',']).filter(|word| !word.is_empty());
                    words.any(|word| word == option || word.trim_end_matches("...") == option)
                });
                assert!(known, "{}: ferry {}", path.display(), words.join(" "));
                options += 1;
            }
        }
    }
    assert!(options > 100, "only {options} options were found");
}

/// The names of variables that follow `call` in the sources.
fn variables(directory: &Path, calls: &[&str], found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            variables(&entry, calls, found);
            continue;
        }
        let text = fs::read_to_string(&entry).unwrap();
        let names =
            calls.iter().flat_map(|call| text.split(call).skip(1)).filter_map(|rest| rest.split('"').next());
        let is_name =
            |name: &&str| name.len() > 3 && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        found.extend(names.filter(is_name).map(str::to_owned));
    }
}

#[test]
fn every_variable_is_in_the_table() {
    let mut found = BTreeSet::new();
    let calls = ["variable(\"", "path(\"", "url(\"", "needed(\""];
    variables(&root().join("crates/ferry/src"), &calls, &mut found);
    assert!(found.len() > 10 && found.contains("FERRY_CONFIG"), "{found:?}");
    for language in LANGUAGES {
        let text = document(language, "configuration.md");
        let missing: Vec<&String> =
            found.iter().filter(|name| !text.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{language}/configuration.md does not tell of {missing:?}");
    }
}
