//! `ferry inspect`: what an image is made of.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::Arc;

use ferry_oci::{Content, Descriptor, Digest, Manifest, Reference, media_type};
use ferry_store::{Kind, PageRequest, Repository, Result};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::Environment;
use crate::cli::Output;
use crate::config::Registries;
use crate::exit::Exit;
use crate::report::size;
use crate::settings::Inspect;
use crate::stores::Stores;

/// An index inside an index inside an index … is followed so far.
const MAX_DEPTH: usize = 4;

/// The most manifests of one image that are shown, and the most referrers of one manifest.
const MAX_SHOWN: usize = 5_000;

/// Manifests that are asked for at once.
const AT_ONCE: usize = 8;

/// An image as `--output json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    image: String,
    /// Bytes of all manifests and blobs, each counted once.
    total_size: u64,
    /// How many different blobs there are.
    blobs: usize,
    root: Node,
}

/// A manifest, and what it names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    #[serde(flatten)]
    descriptor: Descriptor,
    /// An index may name manifests that the repository does not hold.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    missing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    manifests: Vec<Node>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    referrers: Vec<Descriptor>,
}

/// Runs `ferry inspect`.
pub(crate) async fn inspect(
    settings: Inspect,
    registries: Registries,
    environment: Environment,
) -> anyhow::Result<Exit> {
    let mut stores = Stores::of(settings.of_sides, registries, environment)?;
    let (image, reference) = stores.image(settings.image).await?;
    let look = Look { repository: stores.reader(&image)?, referrers: settings.referrers };
    let manifest = look.repository.manifest(&reference).await?;
    let descriptor = descriptor_of(&manifest);
    let root = Arc::new(look).node(descriptor, Some(manifest), 0).await?;
    let mut sum = Sum::default();
    sum.add(&root);
    let image = Image { image: image.to_string(), total_size: sum.bytes, blobs: sum.blobs, root };
    match settings.output {
        Output::Json => say!("{}", serde_json::to_string_pretty(&image)?),
        Output::Text => say!("{}", text(&image).trim_end()),
    }
    Ok(Exit::Done)
}

fn descriptor_of(manifest: &Manifest) -> Descriptor {
    Descriptor::new(manifest.media_type(), manifest.digest(), manifest.bytes().len() as u64)
}

struct Look {
    repository: Arc<dyn Repository>,
    referrers: bool,
}

impl Look {
    fn node(
        self: Arc<Self>,
        descriptor: Descriptor,
        manifest: Option<Manifest>,
        depth: usize,
    ) -> BoxFuture<'static, Result<Node>> {
        async move {
            let mut node = Node {
                descriptor,
                missing: false,
                config: None,
                layers: Vec::new(),
                manifests: Vec::new(),
                referrers: Vec::new(),
            };
            if depth > MAX_DEPTH || !media_type::is_manifest(&node.descriptor.media_type) {
                return Ok(node);
            }
            let Some(manifest) = self.fetch(manifest, &node.descriptor.digest).await? else {
                return Ok(Node { missing: true, ..node });
            };
            node.referrers = self.referrers_of(&node.descriptor.digest).await?;
            match manifest.content() {
                Content::Image { config, layers } => {
                    (node.config, node.layers) = (Some(config.clone()), layers.clone());
                }
                Content::Index(children) => {
                    let children: Vec<Descriptor> = children.iter().take(MAX_SHOWN).cloned().collect();
                    node.manifests = stream::iter(children)
                        .map(|child| Arc::clone(&self).node(child, None, depth + 1))
                        .buffered(AT_ONCE)
                        .try_collect()
                        .await?;
                }
            }
            Ok(node)
        }
        .boxed()
    }

    async fn fetch(&self, known: Option<Manifest>, digest: &Digest) -> Result<Option<Manifest>> {
        if known.is_some() {
            return Ok(known);
        }
        match self.repository.manifest(&Reference::Digest(*digest)).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn referrers_of(&self, digest: &Digest) -> Result<Vec<Descriptor>> {
        let mut found = Vec::new();
        let mut request = PageRequest::default();
        while self.referrers && found.len() < MAX_SHOWN {
            let page = self.repository.referrers(digest, None, request).await?;
            found.extend(page.items);
            match page.next {
                Some(next) => request = PageRequest { after: Some(next), limit: None },
                None => break,
            }
        }
        Ok(found)
    }
}

/// Everything once.
#[derive(Default)]
struct Sum {
    seen: HashSet<Digest>,
    bytes: u64,
    blobs: usize,
}

impl Sum {
    fn add(&mut self, node: &Node) {
        if !node.missing {
            self.count(&node.descriptor);
        }
        for blob in node.config.iter().chain(&node.layers) {
            if self.count(blob) {
                self.blobs += 1;
            }
        }
        for child in &node.manifests {
            self.add(child);
        }
    }

    fn count(&mut self, descriptor: &Descriptor) -> bool {
        let new = self.seen.insert(descriptor.digest);
        if new {
            self.bytes = self.bytes.saturating_add(descriptor.size);
        }
        new
    }
}

fn text(image: &Image) -> String {
    let mut text = format!("{}\n", image.image);
    write_node(&mut text, &image.root, "", "");
    let _ = writeln!(text, "{} blobs, {} in all", image.blobs, size(image.total_size));
    text
}

/// One node with all below it; `first` is drawn before its own line, `rest` before those below.
fn write_node(text: &mut String, node: &Node, first: &str, rest: &str) {
    let Node { descriptor, .. } = node;
    let platform = descriptor.platform.as_ref().map(|platform| format!("{platform}  ")).unwrap_or_default();
    let missing = if node.missing { "  not in this repository" } else { "" };
    let _ = writeln!(text, "{first}{platform}{}{missing}", line(descriptor));
    let blobs = node.config.iter().map(|config| format!("config    {}", line(config)));
    let blobs = blobs.chain(node.layers.iter().map(|layer| format!("layer     {}", line(layer))));
    let referrers = node.referrers.iter().map(|referrer| format!("referrer  {}", line(referrer)));
    let leaves: Vec<String> = blobs.chain(referrers).collect();
    let below = leaves.len() + node.manifests.len();
    let branch = |at: usize| if at + 1 == below { ("└─ ", "   ") } else { ("├─ ", "│  ") };
    for (at, child) in node.manifests.iter().enumerate() {
        let (own, under) = branch(at);
        write_node(text, child, &format!("{rest}{own}"), &format!("{rest}{under}"));
    }
    for (at, leaf) in (node.manifests.len()..).zip(&leaves) {
        let _ = writeln!(text, "{rest}{}{leaf}", branch(at).0);
    }
}

fn line(descriptor: &Descriptor) -> String {
    let kind = descriptor.artifact_type.as_deref().unwrap_or(&descriptor.media_type);
    // What a peer wrote must not move the cursor of a terminal.
    let kind: String = kind.chars().map(|c| if c.is_control() { '?' } else { c }).take(100).collect();
    format!("{}  {}  {kind}", descriptor.digest, size(descriptor.size))
}
