//! A mirror, what is before and behind it, and clients that ask it by hand.

use ferry_oci::Digest;
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::link::{Link, LinkOptions};
use reqwest::{Method, StatusCode};

use crate::harness::{Ferry, Served, push};

/// A mirror in front of a registry that is reached over a link.
pub struct Mirror {
    pub ferry: Ferry,
    pub upstream: Served,
    pub link: Link,
    pub mirror: Served,
    pub images: Vec<NamedImage>,
}

/// What a client sees.
#[derive(Debug)]
pub struct Seen {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// What a mirror of one registry needs; `more` is what else is said of it.
pub fn config(upstream: &str, more: &str) -> String {
    format!("serve:\n  mirror:\n    upstreams: [\"{upstream}\"]\n    default: \"{upstream}\"\n{more}")
}

/// The registry as the first part of a name.
pub fn prefix(registry: &str) -> String {
    registry.replace(':', "-")
}

pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub async fn ask(method: Method, served: &Served, host: Option<&str>, target: &str) -> Seen {
    let mut request = http().request(method, format!("http://{}{target}", served.host()));
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Seen { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

pub async fn get(served: &Served, target: &str) -> Seen {
    ask(Method::GET, served, None, target).await
}

/// Starts a mirror that is configured so; the file is kept under its name.
pub async fn start(ferry: &Ferry, name: &str, config: &str) -> Served {
    let file = format!("{name}.yaml");
    std::fs::write(ferry.path(&file), config).unwrap();
    ferry.serve_with(&["--config", &file, "serve", "--listen", "127.0.0.1:0", "--storage", name]).await
}

impl Mirror {
    /// A mirror that asks for tags each time, of a registry with these images.
    pub async fn new(images: Vec<NamedImage>, options: LinkOptions) -> Self {
        let ferry = Ferry::new();
        let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
        push(&images, &upstream.host()).await;
        let link = Link::start(upstream.address, options).await.unwrap();
        let host = link.host().to_string();
        let more = format!(
            "    domain: cr.test\n    aliases: {{\"{host}\": corp}}\n    hosted: [own/**]\n    freshness: {{moving: 0s, version_like: 0s}}\n"
        );
        let mirror = start(&ferry, "cache", &config(&host, &more)).await;
        Self { ferry, upstream, link, mirror, images }
    }

    pub fn prefix(&self) -> String {
        prefix(self.link.host().as_str())
    }
}

pub fn one(size: usize) -> NamedImage {
    let image =
        ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, size)]).build_single();
    NamedImage { repository: "a/b".parse().unwrap(), tag: "v1".parse().unwrap(), image }
}

/// The digest of the largest blob.
pub fn layer(image: &Image) -> Digest {
    *image.blobs.iter().max_by_key(|(_, content)| content.len()).unwrap().0
}

/// Asks each time whether a tag has moved.
pub const ALWAYS_ASK: &str = "    freshness: {moving: 0s, version_like: 0s}\n";
