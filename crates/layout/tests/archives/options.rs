//! Incremental archives, sparse indexes, archives for `docker load`.

use bytes::Bytes;
use ferry_layout::{ArchiveOptions, Layout};
use ferry_oci::{Digest, Platform};
use ferry_store::{Begun, ByteRange, Expect, Kind, Mount, Scope, Store};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
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
    fails(
        read,
        Kind::NotFound,
        "made with --except full.tar; import full.tar first, or name all of them in one run",
    );

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

/// Docker has a layer only upon the same ones as before, so what follows one that is new to it has to be there.
#[tokio::test]
async fn layers_above_a_new_one_are_in_an_incremental_docker_archive() {
    let dir = tempfile::tempdir().unwrap();
    let [full, step] = ["full.tar", "step.tar"].map(|file| dir.path().join(file));
    let [base, first, second, top] = [1, 2, 3, 4].map(|seed| Layer::random(seed, 3000));
    let of = |own: &Layer| {
        ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [base.clone(), own.clone(), top.clone()])
            .build_single()
    };
    let docker: Platform = serde_json::from_value(json!({"os": "linux", "architecture": "amd64"})).unwrap();
    let options = |except| ArchiveOptions { docker: Some(docker.clone()), except };
    let layout = Layout::create_archive(&full, options(Vec::new())).unwrap();
    push(&layout, &of(&first), "a", "1").await;
    layout.finish().unwrap();
    let layout = Layout::create_archive(&step, options(vec![Layout::open_archive(&full).unwrap()])).unwrap();
    push(&layout, &of(&second), "a", "2").await;
    push(&layout, &of(&first), "b", "1").await;
    layout.finish().unwrap();
    let files = unpacked(&step);
    let there = [&base, &first, &second, &top]
        .map(|layer| files.contains_key(&format!("blobs/sha256/{}", layer.digest().hex())));
    assert_eq!(there, [false, false, true, true]);
}

#[tokio::test]
async fn a_preview_tells_what_is_there_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [full, path] = ["full.tar", "images.tar"].map(|file| dir.path().join(file));
    let image = image(10);
    let layout = create(&full);
    push(&layout, &image, "a", "1").await;
    layout.finish().unwrap();
    let [left, other] = [3u8, 4].map(|fill| Bytes::from(vec![fill; 5000]));
    let unfinished = create(&path);
    put(&unfinished, &left).await;
    let half = begin(&unfinished, &other).await;
    let before = std::fs::read(part(&path)).unwrap();

    let except = vec![Layout::open_archive(&full).unwrap()];
    // Also while another process writes it.
    let preview =
        Layout::preview_archive(&path, ArchiveOptions { except, ..ArchiveOptions::default() }).unwrap();
    let writer = writer(&preview);
    for digest in image.blobs.keys().chain([&Digest::sha256(&left)]) {
        assert!(writer.stat(digest).await.unwrap().is_some(), "{digest}");
    }
    assert_eq!(writer.stat(&Digest::sha256(&other)).await.unwrap(), None);
    fails(writer.put_manifest(&image.root, Some(&tag("1"))).await, Kind::Incomplete, "missing");
    let promise = Expect { digest: None, size: Some(3), mount: Mount::No };
    fails(writer.begin(promise).await.map(|_| ()), Kind::Denied, "dry run");
    assert!(!preview.finish().unwrap());
    assert!(std::fs::read(part(&path)).unwrap() == before && !path.exists());
    drop(half);
    let there = Layout::preview_archive(&full, ArchiveOptions::default()).unwrap();
    assert_eq!(there.images().unwrap().len(), 1);
    let reader = there.named(Some(&name("a"))).repository(&Scope::Hosted, &"any".parse().unwrap());
    assert_eq!(
        reader.resolve(&ferry_oci::Reference::Tag(tag("1"))).await.unwrap().descriptor.digest,
        image.root.digest()
    );
}

#[tokio::test]
async fn an_incremental_archive_is_read_with_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let [full, step] = ["full.tar", "step.tar"].map(|file| dir.path().join(file));
    let layout = create(&full);
    push(&layout, &image(10), "a", "1").await;
    layout.finish().unwrap();
    let options =
        ArchiveOptions { except: vec![Layout::open_archive(&full).unwrap()], ..ArchiveOptions::default() };
    let layout = Layout::create_archive(&step, options).unwrap();
    push(&layout, &image(20), "b", "1").await;
    layout.finish().unwrap();
    let [full, step] = [full, step].map(|path| Layout::open_archive(path).unwrap());
    let reader =
        |layout: &Layout| layout.named(Some(&name("b"))).repository(&Scope::Hosted, &"any".parse().unwrap());
    let tag = ferry_oci::Reference::Tag(tag("1"));
    fails(verify(&*reader(&step), &tag).await, Kind::NotFound, "import full.tar first");
    verify(&*reader(&step.backed_by(&[full])), &tag).await.unwrap();
}
