//! Archives as they are written, and what is left of those that were not finished.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferry_layout::{ArchiveOptions, ImageName, Layout};
use ferry_oci::{Algorithm, Digest, ImageReference, Platform, Reference, Tag};
use ferry_store::{Begun, ByteRange, Error, Expect, Kind, Mount, RepositoryMut, Scope, Store, Upload};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use serde_json::{Value, json};

fn writer(layout: &Layout) -> Arc<dyn RepositoryMut> {
    layout.writable(&Scope::Hosted, &"any".parse().unwrap()).unwrap()
}

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn name(text: &str) -> ImageName {
    ImageName::from(&text.parse::<ImageReference>().unwrap())
}

fn create(path: &Path) -> Layout {
    Layout::create_archive(path, ArchiveOptions::default()).unwrap()
}

fn image(seed: u64) -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .shared([Layer::random(1, 50_000)])
        .platform("linux/arm64/v8", [Layer::random(seed, 70_000)])
        .platform("linux/amd64", [Layer::random(seed + 1, 3000)])
        .attestations()
        .build()
}

async fn push(layout: &Layout, image: &Image, of: &str, to: &str) {
    image.push_to(&*writer(&layout.named(Some(&name(of)))), Some(&tag(to))).await.unwrap();
}

async fn assert_holds(path: &Path, of: &str, to: &str, image: &Image) {
    let layout = Layout::open_archive(path).unwrap().named(Some(&name(of)));
    let reader = layout.repository(&Scope::Hosted, &"any".parse().unwrap());
    let found = verify(&*reader, &Reference::Tag(tag(to))).await.unwrap();
    assert_eq!(found.bytes(), image.size());
    assert!(found.manifests.contains_key(&image.root.digest()));
}

fn part(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.ferry-part", path.file_name().unwrap().to_str().unwrap()))
}

/// The files of an archive as `tar` sees them.
fn unpacked(path: &Path) -> BTreeMap<String, Vec<u8>> {
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

fn json_of(path: &Path, file: &str) -> Value {
    serde_json::from_slice(&unpacked(path)[file]).unwrap()
}

async fn begin(layout: &Layout, bytes: &Bytes) -> Box<dyn Upload> {
    let promise =
        Expect { digest: Some(Digest::sha256(bytes)), size: Some(bytes.len() as u64), mount: Mount::No };
    match writer(layout).begin(promise).await.unwrap() {
        Begun::Upload(upload) => upload,
        other => panic!("{other:?}"),
    }
}

async fn put(layout: &Layout, bytes: &Bytes) {
    let mut upload = begin(layout, bytes).await;
    upload.write(bytes.clone()).await.unwrap();
    upload.commit(&Digest::sha256(bytes)).await.unwrap();
}

fn fails<T>(result: Result<T, Error>, kind: Kind, words: &str) {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test]
async fn two_names_with_one_tag_stand_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let images = [image(10), image(20)];
    let write = async |path: &Path| {
        let layout = create(path);
        push(&layout, &images[0], "alpine", "3").await;
        push(&layout, &images[1], "quay.io/team/app", "3").await;
        assert!(!path.exists(), "it has no name before it is finished");
        assert!(layout.finish().unwrap());
    };
    let [first, second] = ["a.tar", "b.tar"].map(|file| dir.path().join(file));
    write(&first).await;
    write(&second).await;
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "always the same bytes");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
    assert_holds(&first, "alpine", "3", &images[0]).await;
    assert_holds(&first, "quay.io/team/app", "3", &images[1]).await;

    let entries = Layout::open_archive(&first).unwrap().images().unwrap();
    let listed: Vec<_> = entries.iter().map(|e| (e.name.clone(), e.tag.clone(), e.digest)).collect();
    let expected = [("alpine", 0), ("quay.io/team/app", 1)]
        .map(|(of, at)| (Some(name(of)), Some(tag("3")), images[at].root.digest()));
    assert_eq!(listed, expected);
    let annotations = &json_of(&first, "index.json")["manifests"][0]["annotations"];
    let full = concat!("docker.io/", "library/alpine:3");
    assert_eq!(
        *annotations,
        json!({"io.containerd.image.name": full, "org.opencontainers.image.ref.name": "3"})
    );
    let nameless = Layout::open_archive(&first).unwrap().repository(&Scope::Hosted, &"a".parse().unwrap());
    fails(nameless.manifest(&Reference::Tag(tag("3"))).await, Kind::NotFound, "3");
    assert!(nameless.tags(Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn an_archive_that_has_everything_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    let (first, second) = (image(10), image(20));
    let layout = create(&path);
    push(&layout, &first, "a", "1").await;
    assert!(layout.finish().unwrap());
    fails(writer(&layout).put_manifest(&first.root, None).await, Kind::Denied, "finished");
    let inode = fs::metadata(&path).unwrap().ino();

    let again = create(&path);
    push(&again, &first, "a", "1").await;
    assert!(!again.finish().unwrap());
    drop(again);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let more = create(&path);
    push(&more, &second, "b", "1").await;
    assert!(more.finish().unwrap());
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    assert_holds(&path, "a", "1", &first).await;
    assert_holds(&path, "b", "1", &second).await;

    let fewer = create(&path);
    let gone = Reference::Digest(first.root.digest());
    writer(&fewer).delete_manifest(&gone).await.unwrap();
    assert!(fewer.finish().unwrap());
    fails(writer(&fewer).manifest(&gone).await, Kind::NotFound, "");
    assert_eq!(Layout::open_archive(&path).unwrap().images().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_killed_process_has_left_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    let image = image(10);
    let stray = Bytes::from(vec![7; 100_000]);
    {
        let layout = create(&path);
        let half = begin(&layout, &Bytes::from(vec![9; 5000])).await;
        push(&layout, &image, "a", "1").await;
        put(&layout, &stray).await;
        drop(half);
        fails(
            Layout::create_archive(&path, ArchiveOptions::default()).map(drop),
            Kind::Unavailable,
            "another process",
        );
    }
    let whole = fs::read(part(&path)).unwrap();
    // Whole, cut anywhere, with bytes that were never flushed, with bytes that are none of ours.
    let cuts = [whole.len(), whole.len() - 700, whole.len() / 2, 100_000, 513, 512, 100, 0];
    let mut found = cuts.map(|cut| whole[..cut].to_vec()).to_vec();
    let mut lost = whole.clone();
    lost[60_000..90_000].fill(0);
    found.push(lost);
    let mut garbage = whole.clone();
    garbage.extend(vec![0xaa; 3000]);
    found.push(garbage);
    found.push(vec![0x55; 100_000]);
    for content in found {
        let _ = fs::remove_file(&path);
        fs::write(part(&path), &content).unwrap();
        let layout = create(&path);
        let mut known = 0;
        for digest in image.blobs.keys() {
            known += usize::from(writer(&layout).stat(digest).await.unwrap().is_some());
        }
        match content.starts_with(&whole) {
            true => assert_eq!(known, image.blobs.len(), "all of them are whole"),
            false if content.len() < 1000 => assert_eq!(known, 0),
            false => {}
        }
        push(&layout, &image, "a", "1").await;
        assert!(layout.finish().unwrap());
        assert_holds(&path, "a", "1", &image).await;
        let names = unpacked(&path);
        assert_eq!(names.len(), image.blobs.len() + image.manifests.len() + 2, "{:?}", names.keys());
    }
}

#[tokio::test]
async fn regions_of_failed_uploads_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let [clean, path] = ["clean.tar", "images.tar"].map(|file| dir.path().join(file));
    let contents: Vec<Bytes> = (0..4u8).map(|fill| Bytes::from(vec![fill; 10_000 + fill as usize])).collect();
    let tidy = create(&clean);
    for content in &contents[1..] {
        put(&tidy, content).await;
    }
    tidy.finish().unwrap();

    let layout = create(&path);
    let mut failed = begin(&layout, &contents[0]).await;
    failed.write(contents[0].slice(..9000)).await.unwrap();
    put(&layout, &contents[1]).await;
    let before = fs::metadata(part(&path)).unwrap().len();
    failed.abort().await.unwrap();
    put(&layout, &contents[2]).await;
    assert_eq!(fs::metadata(part(&path)).unwrap().len(), before, "in the place of the failed one");
    let last = begin(&layout, &Bytes::from(vec![0; 1_000_000])).await;
    drop(last);
    assert_eq!(fs::metadata(part(&path)).unwrap().len(), before, "cut off");
    let hole = begin(&layout, &Bytes::from(vec![0; 100])).await;
    put(&layout, &contents[3]).await;
    hole.abort().await.unwrap();
    layout.finish().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), fs::metadata(&clean).unwrap().len(), "compact");
    let files = unpacked(&path);
    assert_eq!(files, unpacked(&clean));
    for content in &contents[1..] {
        let found = writer(&layout).blob(&Digest::sha256(content), ByteRange::ALL).await.unwrap();
        assert_eq!(found.into_bytes().await.unwrap(), content, "also after it was moved");
    }
}

#[tokio::test]
async fn promises_that_are_not_kept_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    let layout = create(&path);
    let bytes = Bytes::from_static(b"some bytes");
    let expect = |size| Expect { digest: None, size, mount: Mount::No };
    let begun = async |size| match writer(&layout).begin(expect(size)).await.unwrap() {
        Begun::Upload(upload) => upload,
        other => panic!("{other:?}"),
    };
    for (size, fits) in [(Some(9), false), (Some(11), false), (Some(10), true), (None, true)] {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut upload = begun(size).await;
            upload.write(bytes.clone()).await.unwrap();
            let digest = Digest::of(algorithm, &bytes);
            let done = upload.commit(&digest).await;
            assert_eq!(done.is_ok(), fits, "{size:?} {done:?}");
            assert_eq!(writer(&layout).stat(&digest).await.unwrap().is_some(), fits);
        }
    }
    fails(writer(&layout).begin(expect(Some(u64::MAX))).await, Kind::Full, "");
    layout.finish().unwrap();
    assert_eq!(unpacked(&path).len(), 4);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_no_layout_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, b"no archive").unwrap();
    fails(Layout::create_archive(&path, ArchiveOptions::default()), Kind::Invalid, "cut short");
    assert_eq!(fs::read(&path).unwrap(), b"no archive");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let absent = dir.path().join("absent/images.tar");
    fails(Layout::create_archive(absent, ArchiveOptions::default()), Kind::NotFound, "make it first");

    let path = dir.path().join("images.tar");
    let layout = create(&path);
    push(&layout, &image(1), "a", "1").await;
    layout.discard().unwrap();
    fails(writer(&layout).put_manifest(&image(1).root, None).await, Kind::Denied, "");
    assert!(!layout.finish().unwrap());
    drop(layout);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

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

mod small_disks {
    use super::*;

    const DISK: &str = "FERRY_TEST_SMALL_DISK";

    /// The test calls itself in a mount namespace of its own.
    #[tokio::test]
    async fn a_full_disk_is_no_end() {
        if let Some(disk) = std::env::var_os(DISK) {
            return on_small_disk(Path::new(&disk)).await;
        }
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs -o size=1m none \"${DISK}\" && exec \"$0\" --exact small_disks::a_full_disk_is_no_end"
        );
        let output = std::process::Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env(DISK, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
    }

    async fn on_small_disk(disk: &Path) {
        let path = disk.join("images.tar");
        let image = image(10);
        let layout = create(&path);
        push(&layout, &image, "a", "1").await;
        let large = Bytes::from(vec![1; 2 << 20]);
        let mut upload = begin(&layout, &large).await;
        let written = upload.write(large.clone()).await;
        fails(written, Kind::Full, "");
        drop(upload);
        layout.finish().unwrap();
        assert_holds(&path, "a", "1", &image).await;
    }
}
