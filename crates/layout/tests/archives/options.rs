//! Incremental archives, sparse indexes, archives for `docker load`.

use bytes::Bytes;
use ferry_layout::{ArchiveOptions, Layout};
use ferry_oci::{Digest, Platform};
use ferry_store::{Begun, ByteRange, Expect, Kind, Mount, Scope, Store};
use ferry_testkit::images::{Image, Layer};
use serde_json::json;
use std::path::Path;

use super::fixtures::*;

#[tokio::test]
async fn an_incremental_archive_lacks_what_others_have() {
    let dir = tempfile::tempdir().unwrap();
    let [full, step, last] = ["full.tar", "step.tar", "last.tar"].map(|file| dir.path().join(file));
    let (first, second) = (image(10), image(20));
    let layout = create(&full);
    push(&layout, &first, "a", "1").await;
    layout.finish().unwrap();

    let on = |paths: &[&Path]| {
        let except = paths.iter().map(|path| Layout::open_archive(path).unwrap()).collect();
        ArchiveOptions { except, ..ArchiveOptions::default() }
    };
    let layout = Layout::create_archive(&step, on(&[&full])).unwrap();
    let shared = Layer::random(1, 50_000);
    let size = Some(shared.bytes().len() as u64);
    assert_eq!(writer(&layout).stat(&shared.digest()).await.unwrap(), size);
    let promise = Expect { digest: Some(shared.digest()), size, mount: Mount::Anywhere };
    assert!(matches!(writer(&layout).begin(promise).await.unwrap(), Begun::Exists));
    push(&layout, &second, "b", "1").await;
    layout.finish().unwrap();
    assert!(!unpacked(&step).contains_key(&format!("blobs/sha256/{}", shared.digest().hex())));
    let annotations = json_of(&step, "index.json")["annotations"].clone();
    assert_eq!(annotations, json!({"io.github.ferry-mirror.except": "[\"full.tar\"]"}));
    let alone = Layout::open_archive(&step).unwrap();
    let reader = alone.repository(&Scope::Hosted, &"any".parse().unwrap());
    assert_eq!(reader.stat(&shared.digest()).await.unwrap(), None);
    let read = reader.blob(&shared.digest(), ByteRange::ALL).await;
    fails(read, Kind::NotFound, "made with --except full.tar; import full.tar first");

    // What the archive before excepts is not there.
    let layout = Layout::create_archive(&last, on(&[&step])).unwrap();
    assert_eq!(writer(&layout).stat(&shared.digest()).await.unwrap(), None);
    let all = Layout::create_archive(dir.path().join("all.tar"), on(&[&step, &full])).unwrap();
    assert_eq!(writer(&all).stat(&shared.digest()).await.unwrap(), size);
    // Manifests are always wanted.
    let put = writer(&all).put_manifest(&second.root, Some(&tag("1"))).await;
    fails(put, Kind::Incomplete, "missing");
}

#[tokio::test]
async fn a_sparse_index_is_taken_if_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Layout::create(dir.path().join("layout")).unwrap();
    for layout in [create(&dir.path().join("images.tar")), directory] {
        let image = image(10);
        let put = writer(&layout).put_manifest(&image.root, Some(&tag("1"))).await;
        fails(put, Kind::Incomplete, "missing");
        let sparse = writer(&layout.sparse(true));
        sparse.put_manifest(&image.root, Some(&tag("1"))).await.unwrap();
        let child = image.manifests[0].clone();
        fails(sparse.put_manifest(&child, None).await, Kind::Incomplete, "missing");
    }
}

fn docker(architecture: &str) -> ArchiveOptions {
    let platform = json!({"os": "linux", "architecture": architecture});
    let docker = Some(serde_json::from_value::<Platform>(platform).unwrap());
    ArchiveOptions { docker, ..ArchiveOptions::default() }
}

#[tokio::test]
async fn docker_load_finds_one_platform_of_each_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    let image = image(10);
    let layout = Layout::create_archive(&path, docker("amd64")).unwrap();
    push(&layout, &image, "alpine", "3").await;
    push(&layout, &image, "quay.io/team/app", "latest").await;
    image.push_to(&*writer(&layout), Some(&tag("nameless"))).await.unwrap();
    let signature = Image::artifact(&image.root, "application/vnd.example.signature", "s");
    signature.push_to(&*writer(&layout), Some(&tag("signature"))).await.unwrap();
    layout.finish().unwrap();
    let amd64 = &image.root.children()[1];
    assert_eq!(amd64.platform.as_ref().unwrap().architecture, "amd64");
    let manifest = image.manifests.iter().find(|found| found.digest() == amd64.digest).unwrap();
    let paths: Vec<String> =
        manifest.blobs().iter().map(|blob| format!("blobs/sha256/{}", blob.digest.hex())).collect();
    let expected = json!([{
        "Config": paths[0], "RepoTags": ["alpine:3", "quay.io/team/app:latest"], "Layers": paths[1..],
    }]);
    assert_eq!(json_of(&path, "manifest.json"), expected);

    // Asked for the same, nothing is left to do; for another platform, manifest.json is another one.
    let again = Layout::create_archive(&path, docker("amd64")).unwrap();
    assert!(!again.finish().unwrap());
    drop(again);
    let other = Layout::create_archive(&path, docker("arm64")).unwrap();
    assert!(other.finish().unwrap());
    assert_ne!(json_of(&path, "manifest.json"), expected);
    let fallback = Layout::create_archive(dir.path().join("riscv.tar"), docker("riscv64")).unwrap();
    push(&fallback, &image, "alpine", "3").await;
    fallback.finish().unwrap();
    let first = json_of(&dir.path().join("riscv.tar"), "manifest.json");
    assert_eq!(first[0]["Config"], json_of(&path, "manifest.json")[0]["Config"], "the first one of Linux");
}

#[tokio::test]
async fn what_docker_cannot_load_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create_archive(dir.path().join("images.tar"), docker("amd64")).unwrap();
    let (config, layer) = (Bytes::from_static(b"{}"), Bytes::from_static(b"zstd"));
    put(&layout, &config).await;
    put(&layout, &layer).await;
    let named = |media_type: &str, bytes: &Bytes| json!({"mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": named("application/vnd.oci.image.config.v1+json", &config),
        "layers": [named("application/vnd.oci.image.layer.v1.tar+zstd", &layer)],
    });
    let manifest = ferry_oci::Manifest::parse(None, Bytes::from(manifest.to_string())).unwrap();
    let refused = writer(&layout).put_manifest(&manifest, Some(&tag("1"))).await;
    fails(refused, Kind::Invalid, "docker load cannot read its layers");
    assert!(layout.images().unwrap().is_empty());
}

#[tokio::test]
async fn an_incremental_docker_archive_has_every_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let [full, step] = ["full.tar", "step.tar"].map(|file| dir.path().join(file));
    let image = image(10);
    let layout = create(&full);
    push(&layout, &image, "a", "1").await;
    layout.finish().unwrap();
    let except = vec![Layout::open_archive(&full).unwrap()];
    let layout = Layout::create_archive(&step, ArchiveOptions { except, ..docker("amd64") }).unwrap();
    push(&layout, &image, "a", "1").await;
    layout.finish().unwrap();
    let files = unpacked(&step);
    let saved = json_of(&step, "manifest.json");
    assert!(files.contains_key(saved[0]["Config"].as_str().unwrap()));
    assert!(!files.contains_key(saved[0]["Layers"][0].as_str().unwrap()));
}
