//! What is pulled.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ferry_oci::Digest;
use ferry_testkit::peers::DockerRegistry;

use super::client::{Client, Place};
use crate::work::Work;

/// How long a cache may take to have what was pulled through it.
const SETTLE: Duration = Duration::from_secs(30);

/// An image at an upstream.
pub struct Content {
    pub upstream: DockerRegistry,
    pub work: Work,
}

/// How an image is pulled: what is asked for, in this order, and what has to come.
#[derive(Clone)]
pub struct Pull {
    pub manifest: (String, Digest),
    /// Configuration and layers, the largest last.
    pub blobs: Vec<(String, Digest)>,
}

impl Content {
    /// An image with so many layers of `size` bytes each.
    pub async fn new(layers: u64, size: u64) -> Result<Self> {
        let work = Work::layers(layers, size)?;
        let upstream = DockerRegistry::start().await?;
        work.load(&upstream).await?;
        Ok(Self { upstream, work })
    }

    pub fn pull(&self) -> Result<Pull> {
        Pull::of(&self.work)
    }

    /// The largest blob: its path and digest.
    pub fn layer(&self) -> Result<(String, Digest)> {
        self.pull()?.blobs.pop().context("the image has a layer")
    }

    /// Writes the layer to where a server of files finds it under the same path.
    pub fn write_layer(&self, root: &Path) -> Result<()> {
        let (path, digest) = self.layer()?;
        let named = self.work.images.first().context("an image")?;
        let bytes = named.image.blobs.get(&digest).context("the layer")?;
        let file = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().context("a directory")?)?;
        Ok(std::fs::write(file, bytes)?)
    }
}

impl Pull {
    pub fn of(work: &Work) -> Result<Self> {
        let named = work.images.first().context("an image")?;
        let base = format!("/v2/{}", named.repository);
        let mut blobs: Vec<_> = named.image.blobs.iter().collect();
        blobs.sort_by_key(|(_, bytes)| bytes.len());
        let blob = |digest: &Digest| (format!("{base}/blobs/{digest}"), *digest);
        Ok(Self {
            manifest: (format!("{base}/manifests/{}", named.tag), named.image.root.digest()),
            blobs: blobs.into_iter().map(|(digest, _)| blob(digest)).collect(),
        })
    }

    /// Pulls everything and computes every digest.
    pub fn run(&self, place: &Place) -> Result<()> {
        let mut client = Client::connect(place)?;
        for (path, digest) in std::iter::once(&self.manifest).chain(&self.blobs) {
            client.get(path)?.verify(digest)?;
        }
        Ok(())
    }

    /// Pulls until the upstream, whose traffic `bytes` tells, is not needed any more for the blobs.
    pub fn warm(&self, place: &Place, bytes: impl Fn() -> u64) -> Result<()> {
        let begun = Instant::now();
        self.run(place)?;
        loop {
            let before = bytes();
            self.run(place)?;
            // Manifests and questions are small.
            if bytes() - before < 64 * 1024 {
                return Ok(());
            }
            ensure!(begun.elapsed() < SETTLE, "it does not keep what it fetched");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
