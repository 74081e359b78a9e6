//! `ferry storage`, and what `ferry serve` does by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_oci::Digest;
use ferry_store::Kind;
use ferry_testkit::images::{NamedImage, SetSpec, image_set};

use crate::harness::{Ferry, check, push, reader, remote, writer};

fn images(count: usize) -> Vec<NamedImage> {
    image_set(&SetSpec { images: count, seed: 21, base_size: 30_000, own_size: 2_000 })
}

fn file(storage: &Path, digest: &Digest) -> PathBuf {
    storage.join("blobs").join(digest.algorithm().as_str()).join(&digest.hex()[..2]).join(digest.hex())
}

/// Every file of content.
fn files(storage: &Path) -> usize {
    fn below(directory: &Path) -> usize {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { below(&path) } else { 1 }).sum()
    }
    below(&storage.join("blobs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_found_taken_out_and_pushed_again() {
    let ferry = Ferry::new();
    let storage = ferry.path("images");
    let images = images(2);
    let served = ferry.serve(&storage, 0).await;
    push(&images, &served.host()).await;
    let busy = ferry.run(&["storage", "check", "--storage", "images"]).await;
    assert!(busy.code == Some(2) && busy.err.contains("is using this directory"), "{busy:?}");
    served.stop().await;
    let sound = ferry.run(&["storage", "check", "--storage", "images"]).await.ok();
    assert!(sound.out.contains(": 0 findings, 0 repaired"), "{}", sound.out);

    let victim = *images[0].image.blobs.keys().next().unwrap();
    let mut bytes = fs::read(file(&storage, &victim)).unwrap();
    bytes[0] ^= 1;
    fs::write(file(&storage, &victim), &bytes).unwrap();
    let quick = ferry.run(&["storage", "check", "--storage", "images", "--quick"]).await;
    assert_eq!(quick.code, Some(0), "its size is right: {quick:?}");
    let found = ferry.run(&["storage", "check", "--storage", "images"]).await;
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.out.contains(&format!("damaged     {victim}  holds sha256:")), "{}", found.out);
    assert!(found.err.contains("--repair"), "{}", found.err);
    let as_json = ferry.run(&["storage", "check", "--storage", "images", "--output", "json"]).await;
    let report: serde_json::Value = serde_json::from_str(&as_json.out).unwrap();
    assert_eq!(report["findings"][0]["digest"], victim.to_string());
    let repaired = ferry.run(&["storage", "check", "--storage", "images", "--repair"]).await;
    assert!(repaired.out.contains("taken out") && storage.join("damaged").is_dir(), "{repaired:?}");

    let served = ferry.serve(&storage, 0).await;
    let missing = reader(&served.host(), images[0].repository.as_str()).stat(&victim).await.unwrap();
    assert_eq!(missing, None, "clients are told that it is not there");
    push(&images, &served.host()).await;
    check(&images, &served.host(), "").await;
    served.stop().await;
    ferry.run(&["storage", "check", "--storage", "images"]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_needs_goes_and_everything_else_stays() {
    let ferry = Ferry::new();
    let storage = ferry.path("images");
    let images = images(4);
    let served = ferry.serve(&storage, 0).await;
    push(&images, &served.host()).await;
    let (gone, kept) = images.split_first().unwrap();
    let image = format!("{}/{}:{}", served.host(), gone.repository, gone.tag);
    ferry.run(&["delete", "--yes", &image]).await.ok();
    served.stop().await;
    let all = files(&storage);
    let early = ferry.run(&["storage", "gc", "--storage", "images"]).await.ok();
    assert!(
        early.out.starts_with("removed 0 files"),
        "untagged manifests stay unless it is said: {}",
        early.out
    );
    let arguments = ["storage", "gc", "--storage", "images", "--untagged-older-than", "0s", "--grace", "0s"];
    let collected = ferry.run(&arguments).await.ok();
    assert!(files(&storage) < all, "{}", collected.out);
    let stats = ferry.run(&["storage", "stats", "--storage", "images", "--output", "json"]).await.ok();
    let stats: serde_json::Value = serde_json::from_str(&stats.out).unwrap();
    assert_eq!((stats["tags"].as_u64(), stats["files"].as_u64()), (Some(3), Some(files(&storage) as u64)));
    ferry.run(&["storage", "stats", "--storage", "images"]).await.ok();
    let served = ferry.serve(&storage, 0).await;
    check(kept, &served.host(), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_keeps_itself_in_order_while_it_serves() {
    let ferry = Ferry::new();
    let images = images(3);
    let configuration = "serve: {storage: images, listen: \"127.0.0.1:0\", untagged_older_than: 1s, grace: 1s, \
                         upload_expiry: 1s, upkeep_every: 1s}\n";
    fs::write(ferry.path("ferry.yaml"), configuration).unwrap();
    // On a busy machine a push takes longer than what it brings is left alone.
    let served = ferry.serve(&ferry.path("images"), 0).await;
    push(&images, &served.host()).await;
    served.stop().await;
    let served = ferry.serve_with(&["--config", "ferry.yaml", "serve"]).await;
    let (gone, kept) = images.split_first().unwrap();
    let repository = writer(&*remote(&served.host()), &gone.repository);
    let root = gone.image.root.digest();
    repository.delete_manifest(&ferry_oci::Reference::Tag(gone.tag.clone())).await.unwrap();
    // Whoever looks at it uses it, so its file is watched instead.
    for round in 0.. {
        if !file(&ferry.path("images"), &root).exists() {
            break;
        }
        assert!(round < 600, "it is never collected");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let gone = repository.resolve(&ferry_oci::Reference::Digest(root)).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
    for _ in 0..20 {
        check(kept, &served.host(), "").await;
    }
    assert_eq!(served.stop().await, Some(0));
}
