//! `ferry tags`: what a repository holds.

use ferry_oci::Digest;
use ferry_store::{PageRequest, TagEntry};
use serde::Serialize;

use crate::Environment;
use crate::cli::Output;
use crate::config::Registries;
use crate::endpoint::LayoutImage;
use crate::exit::Exit;
use crate::settings::Tags;
use crate::stores::Stores;

/// A listing as `--output json` prints it.
#[derive(Debug, Serialize)]
struct Listing {
    repository: String,
    tags: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    /// What an archive of several images calls the one that the tag is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    tag: String,
    /// Only some registries say it in a listing.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

/// Runs `ferry tags`.
pub(crate) async fn tags(
    settings: Tags,
    registries: Registries,
    environment: Environment,
) -> anyhow::Result<Exit> {
    let mut stores = Stores::of(settings.of_sides, registries, environment)?;
    let mut listing = Listing { repository: settings.repository.to_string(), tags: Vec::new() };
    let repository = stores.reader(&settings.repository)?;
    for (image, digest) in stores.named(&settings.repository)? {
        match settings.output {
            Output::Text => say!("{}", image.short()),
            Output::Json => listing.tags.extend(Entry::named(&image, digest)),
        }
    }
    let mut request = PageRequest::default();
    loop {
        let page = repository.tags(request).await?;
        match settings.output {
            Output::Text => page.items.iter().for_each(|entry| say!("{}", entry.tag)),
            Output::Json => listing.tags.extend(page.items.into_iter().map(Entry::from)),
        }
        match page.next {
            Some(next) => request = PageRequest { after: Some(next), limit: None },
            None => break,
        }
    }
    if settings.output == Output::Json {
        say!("{}", serde_json::to_string_pretty(&listing)?);
    }
    Ok(Exit::Done)
}

impl Entry {
    fn named(image: &LayoutImage, digest: Digest) -> Option<Self> {
        let name = image.name.as_ref().map(ToString::to_string);
        Some(Self { name, tag: image.tag.as_ref()?.to_string(), digest: Some(digest) })
    }
}

impl From<TagEntry> for Entry {
    fn from(entry: TagEntry) -> Self {
        Self { name: None, tag: entry.tag.to_string(), digest: entry.digest }
    }
}
