//! What the cases are made of: names, content, images.

use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, media_type};
use serde_json::{Value, json};

use super::Subject;
use crate::{
    Begun, ByteRange, Expect, Kind, Mount, Page, PageRequest, Repository, RepositoryMut, Result, Scope,
    Stored, Upload,
};

impl Subject {
    /// The hosted repository `name`, as whoever pulls sees it.
    pub(super) fn reader(&self, name: &str) -> Arc<dyn Repository> {
        self.store.repository(&Scope::Hosted, &repository(name))
    }

    /// The hosted repository `name`, for pushing.
    pub(super) fn writer(&self, name: &str) -> Arc<dyn RepositoryMut> {
        self.store.writable(&Scope::Hosted, &repository(name)).unwrap()
    }
}

pub(super) fn repository(name: &str) -> Name {
    format!("contract/{name}").parse().unwrap()
}

pub(super) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub(super) fn by_tag(text: &str) -> Reference {
    Reference::Tag(tag(text))
}

/// The kind of the error, if it is one.
pub(super) fn kind<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|error| error.kind())
}

/// Bytes that look random and depend on `seed` only.
pub(super) fn content(seed: &str, length: usize) -> Bytes {
    let mut state = seed
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

pub(super) fn expect(content: &Bytes, mount: Mount) -> Expect {
    Expect { digest: Some(Digest::sha256(content)), size: Some(content.len() as u64), mount }
}

/// The upload that must have been opened.
pub(super) fn opened(begun: Begun) -> Box<dyn Upload> {
    match begun {
        Begun::Upload(upload) => upload,
        Begun::Exists | Begun::Mounted => panic!("an upload was to be opened, not {begun:?}"),
    }
}

pub(super) async fn begin(repo: &dyn RepositoryMut, content: &Bytes) -> Box<dyn Upload> {
    opened(repo.begin(expect(content, Mount::No)).await.unwrap())
}

/// Writes `bytes` in pieces of uneven size.
pub(super) async fn write(upload: &mut dyn Upload, bytes: &Bytes) {
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(300_007));
        upload.write(piece).await.unwrap();
    }
}

pub(super) async fn push_blob(repo: &dyn RepositoryMut, content: &Bytes) -> Digest {
    let digest = Digest::sha256(content);
    let mut upload = begin(repo, content).await;
    write(&mut *upload, content).await;
    upload.commit(&digest).await.unwrap();
    digest
}

/// Reads a blob and checks what the answer says of itself.
pub(super) async fn read(repo: &dyn Repository, digest: &Digest, range: ByteRange) -> Bytes {
    let blob = repo.blob(digest, range).await.unwrap();
    let (size, said) = (blob.size, blob.range.clone());
    assert_eq!(Some(said.clone()), range.within(size), "the range of the answer");
    let bytes = blob.into_bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, said.end - said.start, "as many bytes as the answer said");
    bytes
}

/// Every item of a listing, page by page.
pub(super) async fn all_pages<T>(
    limit: Option<usize>,
    list: impl AsyncFn(PageRequest) -> Result<Page<T>>,
) -> Vec<T> {
    let mut all = Vec::new();
    let mut after = None;
    for _ in 0..100 {
        let page = list(PageRequest { after, limit }).await.unwrap();
        assert!(limit.is_none_or(|limit| page.items.len() <= limit), "more items than asked for");
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
    panic!("a short listing does not end after 100 pages");
}

/// The media types of one of the two families of images.
pub(super) struct Types {
    manifest: &'static str,
    index: &'static str,
    config: &'static str,
    layer: &'static str,
}

pub(super) const OCI: Types = Types {
    manifest: media_type::OCI_MANIFEST,
    index: media_type::OCI_INDEX,
    config: media_type::OCI_CONFIG,
    layer: media_type::OCI_LAYER_GZIP,
};

pub(super) const DOCKER: Types = Types {
    manifest: media_type::DOCKER_MANIFEST,
    index: media_type::DOCKER_LIST,
    config: media_type::DOCKER_CONFIG,
    layer: media_type::DOCKER_LAYER_GZIP,
};

/// An image or artifact with the blobs that it names, the configuration first.
pub(super) struct Image {
    pub(super) manifest: Manifest,
    pub(super) blobs: Vec<Bytes>,
}

impl Image {
    /// An OCI image with a configuration and two layers of its own.
    pub(super) fn new(seed: &str) -> Self {
        Self::of(&OCI, seed, vec![content(&format!("{seed} 1"), 1000), content(&format!("{seed} 2"), 2000)])
    }

    pub(super) fn of(types: &Types, seed: &str, layers: Vec<Bytes>) -> Self {
        let config = Bytes::from(json!({"architecture": "amd64", "os": "linux", "author": seed}).to_string());
        let value = json!({
            "schemaVersion": 2,
            "mediaType": types.manifest,
            "config": blob_descriptor(types.config, &config),
            "layers": layers.iter().map(|layer| blob_descriptor(types.layer, layer)).collect::<Vec<_>>(),
        });
        let blobs = std::iter::once(config).chain(layers).collect();
        Self { manifest: verbatim(types.manifest, &value), blobs }
    }

    /// An OCI artifact that refers to `subject`.
    pub(super) fn referrer(subject: &Manifest, artifact_type: &str, seed: &str) -> Self {
        let (config, layer) = (Bytes::from_static(b"{}"), content(seed, 100));
        let value = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": blob_descriptor(media_type::OCI_EMPTY, &config),
            "layers": [blob_descriptor("application/octet-stream", &layer)],
            "subject": descriptor(subject),
            "annotations": {"org.example.seed": seed},
        });
        Self { manifest: verbatim(media_type::OCI_MANIFEST, &value), blobs: vec![config, layer] }
    }

    pub(super) async fn push_blobs(&self, repo: &dyn RepositoryMut) {
        for blob in &self.blobs {
            push_blob(repo, blob).await;
        }
    }

    /// Pushes the blobs, then the manifest.
    pub(super) async fn push(&self, repo: &dyn RepositoryMut, name: Option<&str>) -> Stored {
        self.push_blobs(repo).await;
        repo.put_manifest(&self.manifest, name.map(tag).as_ref()).await.unwrap()
    }

    pub(super) fn digest(&self) -> Digest {
        self.manifest.digest()
    }

    /// What to ask for to get exactly this image.
    pub(super) fn reference(&self) -> Reference {
        Reference::Digest(self.digest())
    }
}

/// An index of `children`.
pub(super) fn index(types: &Types, children: &[&Manifest]) -> Manifest {
    let entries: Vec<Descriptor> = children.iter().copied().map(descriptor).collect();
    let value = json!({"schemaVersion": 2, "mediaType": types.index, "manifests": entries});
    verbatim(types.index, &value)
}

/// A manifest in a layout that no serialiser would make again, so that one which does not keep the bytes shows.
pub(super) fn verbatim(media_type: &str, value: &Value) -> Manifest {
    Manifest::parse(Some(media_type), Bytes::from(format!(" {value:#}\n\n"))).unwrap()
}

pub(super) fn descriptor(manifest: &Manifest) -> Descriptor {
    Descriptor::new(manifest.media_type(), manifest.digest(), manifest.bytes().len() as u64)
}

pub(super) fn blob_descriptor(media_type: &str, blob: &Bytes) -> Descriptor {
    Descriptor::new(media_type, Digest::sha256(blob), blob.len() as u64)
}

/// Asserts that `reference` means exactly `expected`, whichever way one asks.
pub(super) async fn assert_is(repo: &dyn Repository, reference: &Reference, expected: &Manifest) {
    let found = repo.manifest(reference).await.unwrap();
    assert_eq!(found.bytes(), expected.bytes(), "the bytes of {reference}");
    assert_eq!(found.media_type(), expected.media_type(), "the type of {reference}");
    assert_eq!(found.digest(), expected.digest(), "the digest of {reference}");
    let resolved = repo.resolve(reference).await.unwrap().descriptor;
    assert_eq!(
        (resolved.media_type.as_str(), resolved.digest, resolved.size),
        (expected.media_type(), expected.digest(), expected.bytes().len() as u64),
        "what {reference} resolves to",
    );
}

/// Asserts that there is no such manifest, whichever way one asks.
pub(super) async fn assert_no_manifest(repo: &dyn Repository, reference: &Reference) {
    assert_eq!(kind(repo.manifest(reference).await), Some(Kind::NotFound), "manifest {reference}");
    assert_eq!(kind(repo.resolve(reference).await), Some(Kind::NotFound), "resolve {reference}");
}

/// Asserts that there is no such blob, whichever way one asks.
pub(super) async fn assert_no_blob(repo: &dyn Repository, digest: &Digest) {
    assert_eq!(repo.stat(digest).await.unwrap(), None, "stat {digest}");
    assert_eq!(kind(repo.blob(digest, ByteRange::ALL).await), Some(Kind::NotFound), "blob {digest}");
}

/// Asserts that no tag is listed; a store may take a repository without tags for one that does not exist.
pub(super) async fn assert_no_tags(repo: &dyn Repository) {
    match repo.tags(PageRequest::default()).await {
        Ok(page) => assert!(page.items.is_empty() && page.next.is_none(), "tags of nothing: {page:?}"),
        Err(error) => assert_eq!(error.kind(), Kind::NotFound, "{error}"),
    }
}
