//! What the cases are made of.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferry_layout::{ArchiveOptions, ImageName, Layout};
use ferry_oci::{Digest, ImageReference, Reference, Tag};
use ferry_store::{Begun, Error, Expect, Kind, Mount, RepositoryMut, Scope, Store, Upload};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use serde_json::Value;

pub fn writer(layout: &Layout) -> Arc<dyn RepositoryMut> {
    layout.writable(&Scope::Hosted, &"any".parse().unwrap()).unwrap()
}

pub fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub fn name(text: &str) -> ImageName {
    ImageName::from(&text.parse::<ImageReference>().unwrap())
}

pub fn create(path: &Path) -> Layout {
    Layout::create_archive(path, ArchiveOptions::default()).unwrap()
}

pub fn image(seed: u64) -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .shared([Layer::random(1, 50_000)])
        .platform("linux/arm64/v8", [Layer::random(seed, 70_000)])
        .platform("linux/amd64", [Layer::random(seed + 1, 3000)])
        .attestations()
        .build()
}

pub async fn push(layout: &Layout, image: &Image, of: &str, to: &str) {
    image.push_to(&*writer(&layout.named(Some(&name(of)))), Some(&tag(to))).await.unwrap();
}

pub async fn assert_holds(path: &Path, of: &str, to: &str, image: &Image) {
    let layout = Layout::open_archive(path).unwrap().named(Some(&name(of)));
    let reader = layout.repository(&Scope::Hosted, &"any".parse().unwrap());
    let found = verify(&*reader, &Reference::Tag(tag(to))).await.unwrap();
    assert_eq!(found.bytes(), image.size());
    assert!(found.manifests.contains_key(&image.root.digest()));
}

pub fn part(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.ferry-part", path.file_name().unwrap().to_str().unwrap()))
}

/// The files of an archive as `tar` sees them.
pub fn unpacked(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(path).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
        let known = files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), content);
        assert!(known.is_none(), "each name once");
    }
    files
}

pub fn json_of(path: &Path, file: &str) -> Value {
    serde_json::from_slice(&unpacked(path)[file]).unwrap()
}

pub async fn begin(layout: &Layout, bytes: &Bytes) -> Box<dyn Upload> {
    let promise =
        Expect { digest: Some(Digest::sha256(bytes)), size: Some(bytes.len() as u64), mount: Mount::No };
    match writer(layout).begin(promise).await.unwrap() {
        Begun::Upload(upload) => upload,
        other => panic!("{other:?}"),
    }
}

pub async fn put(layout: &Layout, bytes: &Bytes) {
    let mut upload = begin(layout, bytes).await;
    upload.write(bytes.clone()).await.unwrap();
    upload.commit(&Digest::sha256(bytes)).await.unwrap();
}

pub fn fails<T>(result: Result<T, Error>, kind: Kind, words: &str) {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}
