//! Copies into registries as particular as the real ones, and out of them again, by the program itself.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ferry_oci::{Name, Reference};
use ferry_store::{Scope, Store};
use ferry_testkit::fake::{Auth, FakeRegistry, Kind, Login};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_testkit::quirks::{Head, Quirks};

use crate::harness::Ferry;

/// From here on the program sends a blob in a way that can be gone on with.
const LARGE: usize = 33 << 20;

/// More than a page of Quay's has.
const TAGS: usize = 103;

fn image(types: MediaTypes, layer: usize) -> Image {
    ImageBuilder::new(types)
        .platform("linux/amd64", [Layer::random(1, layer)])
        .platform("linux/arm64", [Layer::random(2, 3_000)])
        .build()
}

/// A registry of this sort, and someone who may use it.
async fn particular(name: &str) -> (FakeRegistry, Ferry) {
    let registry = FakeRegistry::start().await.unwrap();
    registry.quirks(Quirks::of(name).unwrap());
    registry.create(&"team/app".parse().unwrap());
    let ferry = Ferry::new();
    if name == "ecr" {
        registry.require(Auth::Basic(Login::new("AWS", "secret")));
        let auth = STANDARD.encode("AWS:secret");
        let docker = ferry.path(".docker");
        std::fs::create_dir(&docker).unwrap();
        let auths = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.address());
        std::fs::write(docker.join("config.json"), auths).unwrap();
    }
    (registry, ferry)
}

async fn check(registry: &FakeRegistry, name: &Name, tag: &str, image: &Image) {
    let repository = registry.store().repository(&Scope::Hosted, name);
    let tag = Reference::Tag(tag.parse().unwrap());
    let root = repository.resolve(&tag).await.unwrap();
    assert_eq!(root.descriptor.digest, image.root.digest());
    verify(&*repository, &tag).await.unwrap();
}

/// How many requests a look at a tag takes: those that let us in, the look, and another where it says too little.
fn usual(name: &str) -> usize {
    let quirks = Quirks::of(name).unwrap();
    let let_in = match name {
        "ecr" => 1,
        _ if quirks.tokens.asks => 2,
        _ => 0,
    };
    let silent = quirks.manifests.head != Head::Full || quirks.manifests.plain_text;
    let_in + 1 + usize::from(silent)
}

/// An image goes into the registry and out of it, and a second time nothing does.
async fn in_and_out(name: &str, image: &Image) {
    let plain = FakeRegistry::start().await.unwrap();
    let app: Name = "team/app".parse().unwrap();
    let source = plain.store().writable(&Scope::Hosted, &app).unwrap();
    image.push_to(&*source, Some(&"v1".parse().unwrap())).await.unwrap();
    let (registry, ferry) = particular(name).await;
    let from = format!("{}/team/app:v1", plain.address());
    let there = format!("{}/team/app:v1", registry.address());
    ferry.run(&["copy", &from, &there]).await.ok();
    check(&registry, &app, "v1", image).await;

    registry.reset_counts();
    let again = ferry.run(&["copy", "--no-referrers", &from, &there]).await.ok();
    assert!(again.out.starts_with("1 image: 1 unchanged;"), "{name}: {}", again.out);
    assert_eq!(registry.requests().len(), usual(name), "{name}: {:?}", registry.requests());
    assert_eq!(registry.count(Kind::ManifestPut) + registry.count(Kind::UploadPost), 0, "{name}");

    let back = format!("{}/back/app:v1", plain.address());
    ferry.run(&["copy", &there, &back]).await.ok();
    check(&plain, &"back/app".parse().unwrap(), "v1", image).await;
}

/// Every tag is listed, once.
async fn tags(name: &str) {
    let (registry, ferry) = particular(name).await;
    let store = registry.store();
    let repository = store.writable(&Scope::Hosted, &"team/app".parse().unwrap()).unwrap();
    let image = ImageBuilder::new(MediaTypes::Docker).platform("linux/amd64", []).build_single();
    let expected: BTreeSet<String> = (0..TAGS).map(|n| format!("v{n}")).collect();
    for tag in &expected {
        image.push_to(&*repository, Some(&tag.parse().unwrap())).await.unwrap();
    }
    let listed = ferry.run(&["tags", &format!("{}/team/app", registry.address())]).await;
    if name == "ollama" {
        assert_ne!(listed.code, Some(0), "there is no list");
        return;
    }
    let listed = listed.ok();
    let lines: Vec<&str> = listed.out.lines().collect();
    assert_eq!(lines.len(), TAGS, "{name}");
    assert_eq!(lines.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), expected, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_into_every_registry_and_out_of_it() {
    let (oci, docker) = (image(MediaTypes::Oci, 50_000), image(MediaTypes::Docker, 50_000));
    for name in Quirks::NAMES {
        in_and_out(name, if name == "huawei-swr" { &docker } else { &oci }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_registry_lists_all_its_tags() {
    for name in Quirks::NAMES {
        tags(name).await;
    }
}

/// One for every way in which large blobs are taken.
#[tokio::test(flavor = "multi_thread")]
async fn large_layers_go_into_every_registry_and_out_of_it() {
    let image = image(MediaTypes::Oci, LARGE);
    for name in [
        "acr",
        "artifact-registry",
        "artifactory",
        "distribution-2.8",
        "ecr",
        "ecr-public",
        "ghcr",
        "quay",
        "zot",
    ] {
        in_and_out(name, &image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_too_large_for_one_request_goes_in_parts() {
    in_and_out("acr", &image(MediaTypes::Oci, 24 << 20)).await;
}
