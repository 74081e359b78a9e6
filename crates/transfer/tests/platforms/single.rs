//! One manifest in the place of the index.

use ferry_oci::media_type;
use ferry_policy::platforms::Mode;
use ferry_store::{Counts, Kind, Side};
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes};
use serde_json::json;

use super::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn it_takes_the_place_of_the_index() {
    let image = image();
    let pair = Pair::with(&image).await;
    let arm = || select(&["arm64"], Mode::Single);
    let outcome = pair.run(arm()).await;
    let (digest, figures) = copied(&outcome);
    assert_eq!(digest, image.root.children()[1].digest);
    assert_eq!(changed(&outcome), (image.root.digest(), "single-platform".to_owned()));
    assert_eq!((figures.moved, figures.manifests), (3, 1));
    let (source, target) = pair.asked();
    assert_eq!((source.manifest, source.blob, source.resolve), (2, 3, 0));
    assert_eq!((target.resolve, target.begin, target.put_manifest), (1, 3, 1));
    let root = pair.arrived().await;
    assert_eq!((root.digest(), root.media_type()), (digest, media_type::OCI_MANIFEST));

    assert_eq!(unchanged(&pair.run(arm()).await), digest);
    assert_eq!(pair.asked(), (resolved(1), resolved(1)));
    pair.forget();
    assert_eq!(unchanged(&pair.run(arm()).await), digest);
    assert_eq!(pair.asked(), (Counts { manifest: 2, ..resolved(1) }, resolved(1)));
    assert_eq!(unchanged(&pair.run(arm()).await), digest);
    assert_eq!(pair.asked(), (resolved(1), resolved(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_at_the_target_makes_way() {
    let image = image();
    let pair = Pair::with(&image).await;
    copied(&pair.run(None).await);
    let outcome = pair.run(select(&["amd64"], Mode::Single)).await;
    let (digest, figures) = copied(&outcome);
    assert_eq!((digest, figures.moved), (image.root.children()[0].digest, 0));
    assert_eq!(pair.arrived().await.digest(), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_variants_the_usual_one() {
    let image = ImageBuilder::new(MediaTypes::Docker)
        .platform("linux/arm/v5", [Layer::random(5, 1000)])
        .platform("linux/arm/v7", [Layer::random(7, 1000)])
        .platform("linux/arm/v6", [Layer::random(6, 1000)])
        .build();
    for (asked, place) in [("linux/arm", 1), ("linux/arm/v6", 2), ("armhf", 1), ("linux/arm/v5", 0)] {
        let pair = Pair::with(&image).await;
        let (digest, _) = copied(&pair.run(select(&[asked], Mode::Single)).await);
        assert_eq!(digest, image.root.children()[place].digest, "{asked}");
        pair.arrived().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_only_its_configuration_tells_and_one_of_an_inner_index() {
    let (amd, arm) = (alone("linux/amd64"), alone("linux/arm64"));
    let inner = index_of(&[&arm], &[entry(&arm)]);
    let whole = index_of(&[&amd, &inner], &[entry(&amd), entry(&inner)]);
    for (asked, expected) in [("amd64", &amd), ("arm64", &arm)] {
        let pair = Pair::with(&whole).await;
        let (digest, _) = copied(&pair.run(select(&[asked], Mode::Single)).await);
        assert_eq!(digest, expected.root.digest());
        pair.arrived().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_versions_of_windows_are_listed() {
    let images = [alone("windows/amd64"), alone("windows/arm64")];
    let mut entries = Vec::new();
    for (image, version) in images.iter().zip(["10.0.17763.6293", "10.0.20348.2700"]) {
        let mut entry = entry(image);
        entry["platform"] = json!({"os": "windows", "architecture": "amd64", "os.version": version});
        entries.push(entry);
    }
    let pair = Pair::with(&index_of(&[&images[0], &images[1]], &entries)).await;
    let (kind, side, said) = failed(&pair.run(select(&["windows/amd64"], Mode::Single)).await);
    assert_eq!((kind, side), (Kind::Invalid, Some(Side::Source)));
    assert!(said.contains("windows/amd64:10.0.17763.6293, windows/amd64:10.0.20348.2700"), "{said}");
    let (digest, _) = copied(&pair.run(select(&["windows(10.0.20348)/amd64"], Mode::Single)).await);
    assert_eq!(digest, images[1].root.digest());
}
