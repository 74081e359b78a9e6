//! Which directories are layouts, and what stays in them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use ferry_layout::Layout;
use ferry_oci::{Digest, Reference, Tag};
use ferry_store::{Begun, Expect, Kind, Mount, PageRequest, Removed, RepositoryMut, Scope, Store};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};

fn open(layout: &Layout) -> std::sync::Arc<dyn RepositoryMut> {
    layout.writable(&Scope::Hosted, &"any/name".parse().unwrap()).unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .shared([Layer::random(1, 5000)])
        .platform("linux/amd64", [Layer::random(2, 5000)])
        .platform("linux/arm64", [Layer::random(3, 5000)])
        .attestations()
        .build()
}

fn ferry_files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(".ferry")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_image_survives_being_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let image = image();
    let root = dir.path().join("deep/images");
    image.push_to(&*open(&Layout::create(&root).unwrap()), Some(&tag("v1"))).await.unwrap();

    let again = open(&Layout::open(&root).unwrap());
    let found = verify(&*again.clone().reader(), &Reference::Tag(tag("v1"))).await.unwrap();
    assert!(found.blobs.keys().eq(image.blobs.keys()));
    assert_eq!(found.manifests.len(), image.manifests.len());
    assert_eq!(found.bytes(), image.size());
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(root.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "children have no entries: {index}");
    assert_eq!(ferry_files(&root), [".ferry.lock"]);

    let change = fs::metadata(root.join("index.json")).unwrap().modified().unwrap();
    image.push_to(&*again, Some(&tag("v1"))).await.unwrap();
    let same = fs::metadata(root.join("index.json")).unwrap().modified().unwrap();
    assert!(same >= change);
    let tags = again.tags(PageRequest::default()).await.unwrap();
    assert_eq!(tags.items.len(), 1);
    assert_eq!(tags.items[0].digest, Some(image.root.digest()));
}

#[test]
fn what_is_no_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path, kind: Kind, words: &str| {
        let error = Layout::open(path).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(&dir.path().join("absent"), Kind::NotFound, "no such directory");
    refused(dir.path(), Kind::Invalid, "no file oci-layout");
    fs::write(dir.path().join("oci-layout"), "{").unwrap();
    refused(dir.path(), Kind::Invalid, "not JSON");
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    refused(dir.path(), Kind::Invalid, "2.0.0");
    assert_eq!(Layout::create(dir.path()).unwrap_err().kind(), Kind::Invalid);
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    refused(dir.path(), Kind::Invalid, "no index.json");
    Layout::create(dir.path()).unwrap();
    Layout::open(dir.path()).unwrap();

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("precious.txt"), "not an image").unwrap();
    let error = Layout::create(other.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(!other.path().join("index.json").exists(), "nothing was made there");
    refused(&other.path().join("precious.txt"), Kind::Invalid, "not a directory");
}

#[tokio::test]
async fn only_abandoned_uploads_are_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let content = Bytes::from_static(b"content");
    let writer = open(&Layout::create(dir.path()).unwrap());
    let expect = || Expect { digest: None, size: None, mount: Mount::No };
    let Begun::Upload(mut upload) = writer.begin(expect()).await.unwrap() else { panic!("an upload") };
    upload.write(content.clone()).await.unwrap();
    let Begun::Upload(dropped) = writer.begin(expect()).await.unwrap() else { panic!("an upload") };
    drop(dropped);
    // As a killed process leaves it.
    fs::write(dir.path().join(".ferry-upload-killed"), b"half").unwrap();
    assert_eq!(ferry_files(dir.path()).len(), 3);
    Layout::open(dir.path()).unwrap();
    assert_eq!(ferry_files(dir.path()).len(), 2, "the lock and the living upload");
    upload.commit(&Digest::sha256(&content)).await.unwrap();
    assert_eq!(writer.stat(&Digest::sha256(&content)).await.unwrap(), Some(7));
}

#[tokio::test]
async fn a_blob_cut_short_behind_our_back_is_wanted_again() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(&Layout::create(dir.path()).unwrap());
    let image = image();
    image.push_to(&*writer, Some(&tag("v1"))).await.unwrap();
    let layer = image.manifests[0].blobs()[1].digest;
    let file = dir.path().join("blobs/sha256").join(layer.hex());
    fs::write(&file, b"short").unwrap();
    assert_eq!(writer.put_manifest(&image.manifests[0], None).await.unwrap_err().kind(), Kind::Incomplete);
    image.push_to(&*writer, Some(&tag("v1"))).await.unwrap();
    verify(&*writer.clone().reader(), &Reference::Tag(tag("v1"))).await.unwrap();

    // Damage that keeps the size shows when it is read.
    let manifest = dir.path().join("blobs/sha256").join(image.root.digest().hex());
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[0] ^= 1;
    fs::write(&manifest, &bytes).unwrap();
    let read = writer.manifest(&Reference::Digest(image.root.digest())).await;
    assert_eq!(read.unwrap_err().kind(), Kind::DigestMismatch);
    assert_eq!(writer.delete_manifest(&Reference::Digest(image.root.digest())).await.unwrap(), Removed::Yes);
}

#[tokio::test]
async fn a_layer_is_not_a_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(&Layout::create(dir.path()).unwrap());
    let image = image();
    image.push_to(&*writer, Some(&tag("v1"))).await.unwrap();
    for digest in image.blobs.keys() {
        let read = writer.manifest(&Reference::Digest(*digest)).await;
        assert_eq!(read.unwrap_err().kind(), Kind::NotFound);
        let removed = writer.delete_manifest(&Reference::Digest(*digest)).await;
        assert_eq!(removed.unwrap_err().kind(), Kind::NotFound);
        assert!(writer.stat(digest).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_do_not_lose_each_others_tags() {
    let dir = tempfile::tempdir().unwrap();
    Layout::create(dir.path()).unwrap();
    let pushes = (0..24).map(|number| {
        // Each its own layout, as in processes of their own: locks of files count, not those of memory.
        let writer = open(&Layout::create(dir.path()).unwrap());
        let image = ImageBuilder::new(MediaTypes::Docker)
            .shared([Layer::random(1, 20_000)])
            .platform("linux/amd64", [Layer::random(100 + number, 100)])
            .build();
        tokio::spawn(async move {
            image.push_to(&*writer, Some(&tag(&format!("v{number}")))).await.unwrap();
        })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.unwrap();
    }
    let reader = open(&Layout::open(dir.path()).unwrap()).reader();
    let tags = reader.tags(PageRequest::default()).await.unwrap().items;
    assert_eq!(tags.len(), 24);
    for entry in tags {
        verify(&*reader, &Reference::Tag(entry.tag)).await.unwrap();
    }
}

#[tokio::test]
async fn referrers_are_found_below_entries() {
    let dir = tempfile::tempdir().unwrap();
    let writer = open(&Layout::create(dir.path()).unwrap());
    let image = image();
    image.push_to(&*writer, Some(&tag("v1"))).await.unwrap();
    let child = &image.manifests[0];
    let signature = Image::artifact(child, "application/vnd.example.signature", "s");
    let sbom = Image::artifact(child, "application/vnd.example.sbom", "b");
    signature.push_to(&*writer, None).await.unwrap();
    sbom.push_to(&*writer, Some(&tag("sbom"))).await.unwrap();
    let list = async |artifact_type| {
        let page = writer.referrers(&child.digest(), artifact_type, PageRequest::default()).await.unwrap();
        page.items.into_iter().map(|found| found.digest).collect::<Vec<_>>()
    };
    let mut both = vec![signature.root.digest(), sbom.root.digest()];
    both.sort();
    assert_eq!(list(None).await, both);
    assert_eq!(list(Some("application/vnd.example.sbom")).await, [sbom.root.digest()]);
    assert!(list(Some("application/vnd.example.other")).await.is_empty());
}
