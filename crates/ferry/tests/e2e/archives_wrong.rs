//! Mistakes with archives, and what is said about them.

use std::fs;
use std::path::Path;

use ferry_oci::{Descriptor, Digest, Manifest, media_type};
use ferry_testkit::images::{Image, NamedImage};
use serde_json::json;

use crate::archives::{Gap, files, image};
use crate::harness::Ran;

async fn gap() -> (Gap, [NamedImage; 1]) {
    let images = [image("team/api", 1, 0)];
    let gap = Gap::new(&images).await;
    fs::create_dir(gap.ferry.path("out")).unwrap();
    (gap, images)
}

/// It was refused as a mistake, in these words.
#[track_caller]
fn refused(ran: &Ran, words: &str) {
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains(words), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_take_no_archive() {
    let (gap, images) = gap().await;
    for (to, words) in [
        ("absent/all.tar", "there is no directory absent; make it first"),
        ("out", "it is not a file"),
        ("list.txt", "it is no tar file"),
    ] {
        fs::write(gap.ferry.path("list.txt"), "precious").unwrap();
        for form in ["oci-archive", "docker-archive"] {
            let ran = gap.export(&images, &["--to", &format!("{form}:{to}")]).await;
            refused(&ran, words);
            let ran = gap.export(&images, &["--dry-run", "--to", &format!("{form}:{to}")]).await;
            refused(&ran, words);
        }
        assert_eq!(fs::read(gap.ferry.path("list.txt")).unwrap(), b"precious");
    }
    assert!(files(&gap.ferry.path("out")).is_empty());
    let hidden: Vec<String> =
        files(gap.ferry.home.path()).into_iter().filter(|name| name.contains("part")).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

fn compress(program: &str, path: &Path) {
    let ran = std::process::Command::new(program).arg("-k").arg(path).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_cannot_be_read() {
    let (gap, images) = gap().await;
    gap.export(&images, &["--to", "oci-archive:all.tar"]).await.ok();
    let whole = gap.ferry.path("all.tar");
    compress("gzip", &whole);
    let content = fs::read(&whole).unwrap();
    fs::write(gap.ferry.path("short.tar"), &content[..content.len() / 2]).unwrap();
    fs::write(gap.ferry.path("empty.tar"), b"").unwrap();
    for (file, words) in [
        (
            "all.tar.gz",
            "it is compressed with gzip, and blobs can only be found in a plain tar file; unpack it first: gunzip",
        ),
        ("short.tar", "cut short"),
        ("empty.tar", "it is empty"),
        ("absent.tar", "no such file"),
    ] {
        let source = format!("oci-archive:{file}");
        for arguments in [
            &["copy", &source, "oci:new"][..],
            &["copy", "--to", "oci:new", &source],
            &["inspect", &source],
            &["tags", &source],
        ] {
            refused(&gap.ferry.run(arguments).await, words);
        }
        let except = gap.export(&images, &["--except", file, "--to", "oci-archive:step.tar"]).await;
        refused(&except, words);
        assert!(except.err.contains("--except"), "{}", except.err);
    }
    assert!(!gap.ferry.path("new").exists() && !gap.ferry.path("step.tar").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_damaged_is_told_apart() {
    let (gap, images) = gap().await;
    gap.export(&images, &["--to", "oci-archive:all.tar"]).await.ok();
    let mut content = fs::read(gap.ferry.path("all.tar")).unwrap();
    let layer = images[0].image.blobs.values().max_by_key(|bytes| bytes.len()).unwrap();
    let at = content.windows(64).position(|window| window == &layer[1000..1064]).unwrap();
    content[at] ^= 1;
    fs::write(gap.ferry.path("bad.tar"), content).unwrap();
    let inside = gap.ferry.serve(&gap.ferry.path("inside"), 0).await;
    let ran = gap.ferry.run(&["copy", "--to", &inside.host(), "oci-archive:bad.tar"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains("the source's copy is damaged"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_makes_no_file() {
    let (gap, images) = gap().await;
    let out = gap.ferry.path("out");
    for to in ["oci-archive:out/all.tar", "docker-archive:out/all.tar", "oci:out/layout"] {
        // Nobody could write there.
        let before = fs::metadata(&out).unwrap().modified().unwrap();
        let ran = gap.export(&images, &["--dry-run", "--to", to]).await.ok();
        assert!(ran.out.contains("1 image: 1 to copy"), "{}", ran.out);
        assert_eq!(fs::metadata(&out).unwrap().modified().unwrap(), before, "{to}: nothing came or went");
    }
    gap.export(&images, &["--to", "oci-archive:out/all.tar"]).await.ok();
    let before = (fs::metadata(&out).unwrap().modified().unwrap(), fs::read(out.join("all.tar")).unwrap());
    let ran = gap.export(&images, &["--dry-run", "--to", "oci-archive:out/all.tar"]).await.ok();
    assert!(ran.out.contains("1 image: 1 unchanged"), "{}", ran.out);
    let changed = [image("team/api", 1, 3)];
    crate::harness::push(&changed, &gap.outside.host()).await;
    let arguments = ["--dry-run", "--except", "out/all.tar", "--to", "oci-archive:out/step.tar"];
    let step = gap.export(&changed, &arguments).await.ok();
    assert!(step.out.contains("6 blobs"), "what the earlier archive has is not counted: {}", step.out);
    let after = (fs::metadata(&out).unwrap().modified().unwrap(), fs::read(out.join("all.tar")).unwrap());
    assert!(before == after);
}

fn zstd_image() -> NamedImage {
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let config = json!({"os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(b"unpacked")]}});
    let [config, layer] = [config.to_string(), "not unpacked here".to_owned()].map(bytes::Bytes::from);
    let describe =
        |kind: &str, bytes: &[u8]| Descriptor::new(kind, Digest::sha256(bytes), bytes.len() as u64);
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": describe(media_type::OCI_CONFIG, &config), "layers": [describe(zstd, &layer)]});
    let root = Manifest::parse(None, manifest.to_string().into()).unwrap();
    let blobs = [config, layer].map(|bytes| (Digest::sha256(&bytes), bytes)).into();
    let image = Image { blobs, manifests: vec![root.clone()], root };
    NamedImage { repository: "team/zstd".parse().unwrap(), tag: "v1".parse().unwrap(), image }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_docker_cannot_load_is_not_saved_for_it() {
    let images = [image("team/api", 1, 0), zstd_image()];
    let gap = Gap::new(&images).await;
    let ran = gap.export(&images, &["--to", "docker-archive:all.tar"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("docker load cannot read its layers of type"), "{}", ran.out);
    assert!(ran.out.contains("write oci-archive: instead"), "{}", ran.out);
    gap.held(&gap.ferry.path("all.tar"), &images[..1]).await;
    gap.export(&images, &["--to", "oci-archive:both.tar"]).await.ok();
    gap.held(&gap.ferry.path("both.tar"), &images).await;
    let ran = gap.ferry.run(&["copy", "--to", "docker-archive:new.tar", "oci-archive:both.tar"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
}
