//! What is copied.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ferry_oci::{Name, Reference, Tag};
use ferry_registry::{Anonymous, Client, ClientOptions};
use ferry_store::{Scope, Store};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_testkit::peers::DockerRegistry;
use std::sync::Arc;

/// Repositories that the images are spread over.
const REPOSITORIES: usize = 5;

/// An image and where it belongs.
pub struct Named {
    pub repository: Name,
    pub tag: Tag,
    pub image: Image,
}

/// The image set.
pub struct Work {
    pub images: Vec<Named>,
}

impl Work {
    /// Images of two platforms whose lower layers are file trees that all share, with one layer of their own each.
    pub fn new(trees: &[PathBuf], limit: u64, images: usize) -> Result<Self> {
        let shared = trees
            .iter()
            .filter(|tree| tree.is_dir())
            .map(|tree| Layer::of_tree(tree, limit).with_context(|| tree.display().to_string()))
            .collect::<Result<Vec<Layer>>>()?;
        ensure!(!shared.is_empty(), "none of the file trees exists; name some with --tree DIR");
        let one = |number: usize| -> Result<Named> {
            let image = ImageBuilder::new(MediaTypes::Oci)
                .shared(shared.clone())
                .platform("linux/amd64", [Layer::random(2 * number as u64, 1_000_000)])
                .platform("linux/arm64", [Layer::random(2 * number as u64 + 1, 1_000_000)])
                .build();
            let repository = format!("bench/app{}", number % REPOSITORIES).parse()?;
            Ok(Named { repository, tag: format!("v{}", number / REPOSITORIES).parse()?, image })
        };
        Ok(Self { images: (0..images).map(one).collect::<Result<_>>()? })
    }

    /// One image with one layer of `size` bytes that nothing compresses.
    pub fn layer(size: u64) -> Result<Self> {
        Self::layers(1, size)
    }

    /// The same with so many layers.
    pub fn layers(count: u64, size: u64) -> Result<Self> {
        let size = usize::try_from(size)?;
        let layers: Vec<Layer> = (0..count).map(|number| Layer::random(7 + number, size)).collect();
        let image = ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", layers).build_single();
        Ok(Self { images: vec![Named { repository: "bench/layer".parse()?, tag: "v1".parse()?, image }] })
    }

    /// Every image at one host and at the other.
    pub fn pairs(&self, from: &str, to: &str) -> Vec<(String, String)> {
        let at = |host: &str, named: &Named| format!("{host}/{}:{}", named.repository, named.tag);
        self.images.iter().map(|named| (at(from, named), at(to, named))).collect()
    }

    /// Bytes of all content, shared content once.
    pub fn bytes(&self) -> u64 {
        let blobs: std::collections::BTreeMap<_, _> =
            self.images.iter().flat_map(|named| &named.image.blobs).collect();
        blobs.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Puts everything into a registry.
    pub async fn load(&self, registry: &DockerRegistry) -> Result<()> {
        let store = store(registry)?;
        for named in &self.images {
            let repository =
                store.writable(&Scope::Hosted, &named.repository).context("a registry takes pushes")?;
            named.image.push_to(&*repository, Some(&named.tag)).await?;
        }
        Ok(())
    }

    /// Computes every digest at a registry anew.
    pub async fn check(&self, registry: &DockerRegistry) -> Result<()> {
        let store = store(registry)?;
        for named in &self.images {
            let repository = store.repository(&Scope::Hosted, &named.repository);
            let reference = Reference::Tag(named.tag.clone());
            let root = repository.resolve(&reference).await?.descriptor.digest;
            ensure!(root == named.image.root.digest(), "{}:{} is another image", named.repository, named.tag);
            verify(&*repository, &reference).await?;
        }
        Ok(())
    }
}

fn store(registry: &DockerRegistry) -> Result<Arc<dyn Store>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(Client::new(ClientOptions::default(), Arc::new(Anonymous))?.registry(&registry.host())?)
}
