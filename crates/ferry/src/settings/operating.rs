//! What is asked of a running mirror.

use std::path::Path;

use anyhow::{Context, bail};
use ferry_oci::{ImageReference, Registry};
use ferry_registry::Secret;
use url::Url;

use super::list::read_text;
use super::operation::{Operation, token_in};
use crate::Environment;
use crate::cli::{AdminArguments, CacheVerb, Output, WarmArguments};
use crate::config::Loaded;

/// The mirror that is asked.
#[derive(Debug)]
pub(crate) struct AdminOf {
    pub(crate) url: Url,
    pub(crate) token: Secret,
    pub(crate) output: Output,
}

/// What `ferry warm` shall do.
#[derive(Debug)]
pub(crate) struct Warm {
    pub(crate) admin: AdminOf,
    pub(crate) images: Vec<ImageReference>,
    pub(crate) platforms: Vec<String>,
}

/// What `ferry cache` shall do.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) admin: AdminOf,
    pub(crate) task: CacheTask,
}

/// What is done to a cache.
#[derive(Debug)]
pub(crate) enum CacheTask {
    List(Option<Registry>),
    Drop(Vec<ImageReference>),
    Pin(Vec<ImageReference>),
    Unpin(Vec<ImageReference>),
}

impl AdminOf {
    fn new(typed: AdminArguments, loaded: &Loaded, environment: &Environment) -> anyhow::Result<Self> {
        let configured = match (&typed.admin, &typed.token_file) {
            (Some(_), Some(_)) => None,
            _ => Operation::new(loaded, environment)?.admin,
        };
        let missing = "say where the mirror is: --admin URL and --token-file FILE, or serve: admin in the configuration";
        let url = match (typed.admin, &configured) {
            (Some(url), _) => url,
            (None, Some(admin)) => format!("http://{}", admin.listen),
            (None, None) => bail!(missing),
        };
        let token = match (typed.token_file, configured) {
            (Some(path), _) => token_in(path).context("--token-file")?,
            (None, Some(admin)) => admin.token,
            (None, None) => bail!(missing),
        };
        let parsed = url.parse::<Url>().ok();
        let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && !url.cannot_be_a_base());
        let url = parsed.with_context(|| format!("--admin {url}: write it as in http://127.0.0.1:5001"))?;
        Ok(Self { url, token, output: typed.output })
    }
}

impl Warm {
    pub(crate) fn new(
        typed: WarmArguments,
        loaded: &Loaded,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let images = match &typed.from_file {
            Some(path) => listed(path)?,
            None => images(&typed.images)?,
        };
        let platforms = typed.platforms.iter().map(ToString::to_string).collect();
        Ok(Self { admin: AdminOf::new(typed.admin, loaded, environment)?, images, platforms })
    }
}

impl Cache {
    pub(crate) fn new(typed: CacheVerb, loaded: &Loaded, environment: &Environment) -> anyhow::Result<Self> {
        let (admin, task) = match typed {
            CacheVerb::List(typed) => {
                let registry = typed.registry.as_deref().map(super::registry).transpose()?;
                (typed.admin, CacheTask::List(registry))
            }
            CacheVerb::Drop(typed) => (typed.admin, CacheTask::Drop(images(&typed.images)?)),
            CacheVerb::Pin(typed) => (typed.admin, CacheTask::Pin(images(&typed.images)?)),
            CacheVerb::Unpin(typed) => (typed.admin, CacheTask::Unpin(images(&typed.images)?)),
        };
        Ok(Self { admin: AdminOf::new(admin, loaded, environment)?, task })
    }
}

fn images(texts: &[String]) -> anyhow::Result<Vec<ImageReference>> {
    texts.iter().map(|text| Ok(text.parse::<ImageReference>()?)).collect()
}

/// The images that a list names: the sources of one for `ferry copy`.
fn listed(path: &Path) -> anyhow::Result<Vec<ImageReference>> {
    let (name, text) = read_text(path)?;
    let mut images = Vec::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let Some(word) = line.split_whitespace().next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let source = word.split_once('$').map_or(word, |(source, _)| source);
        images.push(source.parse().with_context(|| format!("{name}, line {number}"))?);
    }
    if images.is_empty() {
        bail!("{name} lists no image; write one on each line");
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_for_copying_are_lists_for_warming() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "# one\nalpine:3 localhost:5000/a\n\nquay.io/a/b$c:v1 # two\n").unwrap();
        let images = listed(&path).unwrap();
        let expected = ["alpine:3", "quay.io/a/b"].map(|text| text.parse().unwrap());
        assert_eq!(images, expected);
        std::fs::write(&path, "alpine\nquay.io/A\n").unwrap();
        assert!(format!("{:#}", listed(&path).unwrap_err()).contains("line 2"));
        std::fs::write(&path, "#\n").unwrap();
        assert!(listed(&path).is_err());
    }
}
