//! Images that are brought before anybody asks for them.

use std::sync::atomic::{AtomicU64, Ordering};

use ferry_oci::{Digest, Name, Reference};
use ferry_policy::platforms::{Mode, Selection};
use ferry_store::{Kind, Operation, PageRequest, Result};
use ferry_testkit::images::verify;
use ferry_transfer::Warm;

use crate::fixtures::*;
use crate::lists::with_sbom;

async fn warm(mirror: &Mirror, reference: &Reference, platform: Option<&str>) -> Result<u64> {
    let name: Name = name(APP);
    let platforms = platform.map(|one| Selection::new([one.parse().unwrap()], Mode::Sparse).unwrap());
    let bytes = AtomicU64::new(0);
    let image = Warm { name: &name, reference, platforms: platforms.as_ref() };
    let kept = |size| {
        bytes.fetch_add(size, Ordering::SeqCst);
    };
    mirror.pull.warm(image, &kept).await?;
    Ok(bytes.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_warm_costs_the_upstream_nothing() {
    let mirror = Mirror::new().await;
    let image = mirror.image(1, "v1").await;
    let bytes = warm(&mirror, &by_tag("v1"), None).await.unwrap();
    let inventory = verify(&*mirror.upstream.writer(APP).reader(), &by_tag("v1")).await.unwrap();
    let asked = mirror.upstream.take();
    assert_eq!((asked.manifest, asked.blob), (3, image.blobs.len() as u64), "each once: {asked:?}");
    assert!(bytes > 60_000);
    assert_eq!(verify(&*mirror.app(), &by_tag("v1")).await.unwrap(), inventory);
    assert_eq!(warm(&mirror, &by_tag("v1"), None).await.unwrap(), bytes, "all is there");
    let asked = mirror.upstream.take();
    assert_eq!((asked.manifest, asked.blob, asked.resolve, asked.stat), (0, 0, 0, 0), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_an_image_comes_with_it() {
    let mirror = Mirror::new().await;
    let (image, sbom) = with_sbom(&mirror).await;
    warm(&mirror, &by_tag("v1"), Some("linux/arm64")).await.unwrap();
    assert_eq!(mirror.upstream.take().referrers, 1);
    let (app, digest) = (mirror.app(), sbom.root.digest());
    let listed = app.referrers(&image.root.digest(), None, PageRequest::default()).await.unwrap();
    assert_eq!(listed.items.iter().map(|found| found.digest).collect::<Vec<_>>(), [digest]);
    verify(&*app, &Reference::Digest(digest)).await.unwrap();
    let asked = mirror.upstream.take();
    assert_eq!(asked, ferry_store::Counts::default(), "all is there");
    // An upstream that does not answer the question has nothing of the kind, one that fails may have.
    for (fails, expected) in [(Kind::Denied, None), (Kind::Unavailable, Some(Kind::Unavailable))] {
        let mirror = Mirror::new().await;
        mirror.image(1, "v1").await;
        mirror.upstream.fail(Operation::Referrers, fails);
        assert_eq!(kind(warm(&mirror, &by_tag("v1"), None).await), expected, "{fails:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_platforms_that_are_wanted_come() {
    let mirror = Mirror::new().await;
    let image = mirror.image(1, "v1").await;
    warm(&mirror, &by_tag("v1"), Some("linux/arm64")).await.unwrap();
    let asked = mirror.upstream.take();
    assert_eq!((asked.manifest, asked.blob), (2, image.blobs.len() as u64 / 2), "{asked:?}");
    let root = mirror.app().manifest(&by_tag("v1")).await.unwrap();
    assert_eq!(root.bytes(), image.root.bytes(), "the index is whole");
    assert_eq!(kind(warm(&mirror, &by_tag("v1"), Some("linux/s390x")).await), Some(Kind::Invalid));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_and_what_came_stays() {
    let mirror = Mirror::new().await;
    let image = mirror.image(1, "v1").await;
    assert_eq!(kind(warm(&mirror, &by_tag("absent"), None).await), Some(Kind::NotFound));
    mirror.upstream.fail(Operation::Blob, Kind::Denied);
    assert_eq!(kind(warm(&mirror, &by_tag("v1"), None).await), Some(Kind::Denied));
    mirror.settle().await;
    mirror.upstream.take();
    warm(&mirror, &by_tag("v1"), None).await.unwrap();
    let asked = mirror.upstream.take();
    assert!(asked.manifest == 0 && asked.blob < image.blobs.len() as u64, "{asked:?}");
}

/// The tag under which cosign puts what belongs to `subject`.
fn cosign(subject: &Digest, suffix: &str) -> String {
    format!("sha256-{}.{suffix}", subject.hex())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cosign_tagged_comes_with_its_image_for_one_listing() {
    let mirror = Mirror::new().await;
    let [one, two] = [(1, "v1"), (2, "v2")].map(|(seed, at)| mirror.image(seed, at));
    let (one, two) = (one.await, two.await);
    let [root, other] = [&one, &two].map(|image| image.root.digest());
    let of_root = cosign(&root, "sig");
    mirror.image(50, &of_root).await;
    let of_platform = cosign(&one.root.children()[0].digest, "att");
    let attestation = mirror.image(51, &of_platform).await;
    let of_attestation = cosign(&attestation.root.digest(), "sig");
    mirror.image(52, &of_attestation).await;
    let of_other = cosign(&other, "sbom");
    mirror.image(53, &of_other).await;

    warm(&mirror, &by_tag("v1"), None).await.unwrap();
    assert_eq!(mirror.upstream.take().tags, 1);
    for tag in ["v1", &of_root, &of_platform, &of_attestation] {
        verify(&*mirror.app(), &by_tag(tag)).await.unwrap();
    }
    assert_eq!(mirror.upstream.take(), ferry_store::Counts::default(), "all is there");
    warm(&mirror, &by_tag("v2"), None).await.unwrap();
    let asked = mirror.upstream.take();
    assert_eq!((asked.tags, asked.manifest), (0, 3 + 3), "the listing holds for it too, {asked:?}");
    verify(&*mirror.app(), &by_tag(&of_other)).await.unwrap();
    assert_eq!(mirror.upstream.take(), ferry_store::Counts::default(), "nor for this");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tags_are_not_listed_the_usual_ones_are_asked_for() {
    for (fails, expected) in [(Kind::Denied, None), (Kind::Unavailable, Some(Kind::Unavailable))] {
        let mirror = Mirror::new().await;
        let image = mirror.image(1, "v1").await;
        let signature = cosign(&image.root.digest(), "sig");
        mirror.image(50, &signature).await;
        mirror.upstream.fail(Operation::Tags, fails);
        assert_eq!(kind(warm(&mirror, &by_tag("v1"), None).await), expected, "{fails:?}");
        mirror.upstream.take();
        verify(&*mirror.app(), &by_tag(&signature)).await.unwrap();
        let asked = mirror.upstream.take();
        assert_eq!(asked.manifest == 0, expected.is_none(), "{fails:?}: {asked:?}");
    }
}
