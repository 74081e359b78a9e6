//! A mirror of registries under configured names, and what a client that nobody here wrote got through it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use ferry_oci::{Content, Descriptor, Digest, Manifest};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::link::{Link, LinkOptions};
use ferry_testkit::peers::{DockerRegistry, Squid};
use tokio::process::Command;

use crate::harness::{Ferry, Served, push};
use crate::mirror_harness::start;

/// A registry that nobody can reach, mirrored beside Docker Hub.
pub const REGISTRY: &str = "registry.corp.invalid";

/// Its repository, and its tag.
pub const REPOSITORY: &str = "team/app";
pub const TAG: &str = "1.2";

/// An image of Docker Hub that is called by one word.
pub const OFFICIAL: &str = "busybox";

/// The hosts that stand for the two.
pub const ALIASES: [&str; 2] = ["docker.cr.test", "corp.cr.test"];

/// The platforms of the images.
pub const PLATFORMS: [&str; 2] = ["linux/amd64", "linux/arm64/v8"];

/// A mirror of two registries, which are one docker-registry that is reached over a link.
pub struct Scene {
    pub ferry: Ferry,
    pub mirror: Served,
    upstream: Option<DockerRegistry>,
    link: Link,
    app: Image,
    official: Image,
}

fn image(seed: u64) -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .shared([Layer::of_files(&[("etc/shared", &seed.to_be_bytes())])])
        .platform(PLATFORMS[0], [Layer::random(seed, 300_000), Layer::of_files(&[("etc/amd64", b"a")])])
        .platform(PLATFORMS[1], [Layer::random(seed + 1, 200_000)])
        .build()
}

/// What blobs and manifests of an image are called in requests, with how often each was asked for.
type Asked = BTreeMap<String, usize>;

impl Scene {
    pub async fn new() -> Self {
        let ferry = Ferry::new();
        let upstream = DockerRegistry::start().await.unwrap();
        let (app, official) = (image(10), image(20));
        let named = [(REPOSITORY.to_owned(), &app), (format!("library/{OFFICIAL}"), &official)];
        let named = named.map(|(repository, image)| NamedImage {
            repository: repository.parse().unwrap(),
            tag: TAG.parse().unwrap(),
            image: image.clone(),
        });
        push(&named, upstream.host().as_str()).await;
        let link = Link::start(upstream.addr(), LinkOptions::default()).await.unwrap();
        let host = link.host();
        let config = format!(
            "registries:\n  docker.io: {{mirrors: [\"{host}\"]}}\n  {REGISTRY}: {{mirrors: [\"{host}\"]}}\n\
             serve:\n  mirror:\n    domain: cr.test\n    upstreams: [docker.io, {REGISTRY}]\n    \
             aliases: {{{REGISTRY}: corp}}\n    freshness: {{moving: 1h}}\n"
        );
        let mirror = start(&ferry, "cache", &config).await;
        Self { ferry, mirror, upstream: Some(upstream), link, app, official }
    }

    /// Ends the upstream; from now on only the mirror can answer.
    pub fn end_upstream(&mut self) {
        self.upstream = None;
        self.link.reset_stats();
    }

    /// The image that is meant by a name.
    pub fn image(&self, name: &str) -> &Image {
        if name.contains(REPOSITORY) { &self.app } else { &self.official }
    }

    /// A host that stands for a registry, with the port.
    pub fn alias(&self, host: &str) -> String {
        format!("{host}:{}", self.mirror.address.port())
    }

    /// Whatever these platforms of an image consist of was fetched, and all of it once; of the rest nothing was.
    #[track_caller]
    pub fn fetched_once(&self, name: &str, platforms: &[&str]) {
        let image = self.image(name);
        let wanted = platforms.iter().map(|platform| platform_of(image, platform));
        let mut expected: Asked = wanted
            .flat_map(|manifest| {
                let blobs = manifest.blobs().into_iter().map(|blob| blob.digest.to_string());
                blobs.chain([manifest.digest().to_string()])
            })
            .map(|digest| (digest, 1))
            .collect();
        expected.insert("root".to_owned(), 1);
        let root = image.root.digest().to_string();
        let mut asked = Asked::new();
        for request in self.link.stats().requests.iter().filter(|request| request.method == "GET") {
            let last = request.path.rsplit('/').next().unwrap().split('?').next().unwrap();
            if last == TAG || last == root {
                *asked.entry("root".to_owned()).or_default() += 1;
            } else if !last.is_empty() {
                *asked.entry(last.to_owned()).or_default() += 1;
            }
        }
        assert_eq!(asked, expected, "{name}");
    }

    /// Since the upstream ended nobody has looked for it.
    #[track_caller]
    pub fn nothing_was_asked(&self, name: &str) {
        assert_eq!(self.link.stats().connections, 0, "{name}");
    }

    /// What a shell printed whose programs find the alias hosts through that proxy; it must have succeeded.
    pub async fn shell(&self, script: &str, proxy: &Squid) -> String {
        shell_in(&self.ferry, script, proxy).await.unwrap_or_else(|said| panic!("{script}\n{said}"))
    }
}

/// What a shell printed in a home whose programs go through that proxy; `Err` is all that it said when it failed.
pub async fn shell_in(ferry: &Ferry, script: &str, proxy: &Squid) -> Result<String, String> {
    let (mut command, home) = (Command::new("sh"), ferry.home.path());
    command.args(["-ec", script]).env_clear().env("HOME", home).env("TMPDIR", home).current_dir(home);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XDG_RUNTIME_DIR", home);
    let url = format!("http://{}", proxy.addr());
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(variable, &url);
    }
    let conf = ferry.path("registries.conf");
    if conf.exists() {
        command.env("CONTAINERS_REGISTRIES_CONF", conf);
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if output.status.success() { Ok(out) } else { Err(format!("{out}\n{err}")) }
}

/// The proxy that knows the alias hosts.
pub async fn names() -> Squid {
    Squid::start(&ALIASES).await.unwrap()
}

/// The manifest of a platform.
pub fn platform_of<'a>(image: &'a Image, platform: &str) -> &'a Manifest {
    let children = image.root.children();
    let is = |child: &&Descriptor| {
        child.platform.as_ref().is_some_and(|of| platform.split('/').nth(1) == Some(&*of.architecture))
    };
    let child = children.iter().find(is).unwrap();
    image.manifests.iter().find(|manifest| manifest.digest() == child.digest).unwrap()
}

/// What Docker and podman call the image of a platform: the digest of its configuration.
pub fn id_of(image: &Image, platform: &str) -> Digest {
    config_of(platform_of(image, platform))
}

/// The configuration of an image for one platform.
pub fn config_of(manifest: &Manifest) -> Digest {
    match manifest.content() {
        Content::Image { config, .. } => config.digest,
        Content::Index(_) => panic!("an index has no configuration"),
    }
}

/// An image layout holds every byte of an image, with its root under the tag.
#[track_caller]
pub fn layout_holds(layout: &Path, image: &Image) {
    let index = std::fs::read_to_string(layout.join("index.json")).unwrap();
    assert!(index.contains(&image.root.digest().to_string()), "{index}");
    let manifests = image.manifests.iter().map(|manifest| manifest.digest());
    for digest in manifests.chain([image.root.digest()]).chain(image.blobs.keys().copied()) {
        let bytes = std::fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
        assert_eq!(Digest::sha256(&bytes), digest);
    }
}
