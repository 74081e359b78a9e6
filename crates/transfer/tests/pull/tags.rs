//! Manifests and tags: what is asked of the upstream, and when.

use std::sync::Arc;
use std::time::Duration;

use ferry_oci::Reference;
use ferry_store::{Kind, Operation};
use ferry_testkit::images::{Image, verify};
use futures_util::future::join_all;

use crate::fixtures::*;

/// What fifty clients get who ask at once.
async fn fifty(mirror: &Mirror, reference: &Reference) -> Vec<ferry_oci::Manifest> {
    let asking = (0..50).map(|_| {
        let (app, reference) = (mirror.app(), reference.clone());
        tokio::spawn(async move { app.manifest(&reference).await.unwrap() })
    });
    join_all(asking.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_image_costs_one_request_for_each_manifest_and_blob() {
    let mirror = Mirror::new().await;
    let image = mirror.image(1, "v1").await;
    verify(&*mirror.app(), &by_tag("v1")).await.unwrap();
    let asked = mirror.upstream.take();
    assert_eq!((asked.manifest, asked.resolve), (image.manifests.len() as u64, 0));
    assert_eq!((asked.blob, asked.stat), (image.blobs.len() as u64, 0));
    mirror.settle().await;
    let found = verify(&*mirror.app(), &by_tag("v1")).await.unwrap();
    assert_eq!(found.blobs.len(), image.blobs.len());
    assert_eq!(mirror.upstream.take(), ferry_store::Counts::default(), "warm");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_who_want_a_cold_manifest_cost_one_request() {
    let mirror = Mirror::new().await;
    let image = mirror.image(2, "v1").await;
    let child = Reference::Digest(image.manifests[0].digest());
    for (reference, expected) in [(by_tag("v1"), &image.root), (child, &image.manifests[0])] {
        for found in fifty(&mirror, &reference).await {
            assert_eq!(found.bytes(), expected.bytes());
        }
        let asked = mirror.upstream.take();
        assert_eq!((asked.manifest, asked.resolve), (1, 0), "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_tag_costs_nothing_and_then_one_head() {
    let mirror = Mirror::new().await;
    let image = mirror.image(3, "v1").await;
    let resolved = mirror.app().resolve(&by_tag("v1")).await.unwrap();
    assert_eq!((resolved.descriptor.digest, resolved.told.age), (image.root.digest(), Duration::ZERO));
    assert_eq!(mirror.upstream.take().manifest, 1, "a HEAD would be followed by a GET");
    mirror.time.pass(59);
    let resolved = mirror.app().resolve(&by_tag("v1")).await.unwrap();
    assert_eq!((resolved.told.age, resolved.told.stale), (Duration::from_secs(59), false));
    fifty(&mirror, &by_tag("v1")).await;
    assert_eq!(mirror.upstream.take(), ferry_store::Counts::default(), "fresh");
    mirror.time.pass(1);
    fifty(&mirror, &by_tag("v1")).await;
    let asked = mirror.upstream.take();
    assert_eq!((asked.resolve, asked.manifest), (1, 0));
    let resolved = mirror.app().resolve(&by_tag("v1")).await.unwrap();
    assert_eq!((resolved.told.age, resolved.told.stale), (Duration::ZERO, false), "confirmed");
    // By digest it is not asked for again, however old it is.
    mirror.time.pass(10_000_000);
    mirror.app().manifest(&Reference::Digest(image.root.digest())).await.unwrap();
    assert_eq!(
        mirror.app().resolve(&Reference::Digest(image.root.digest())).await.unwrap().told.age,
        Duration::ZERO
    );
    assert_eq!(mirror.upstream.take(), ferry_store::Counts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_is_a_matter_of_name_and_tag() {
    let mirror = Mirror::with(|mut options| {
        options.freshness = Arc::new(|name, tag| {
            Duration::from_secs(if name.as_str() == APP && tag.as_str() == "v1.2.3" { 86_400 } else { 10 })
        });
        options
    })
    .await;
    mirror.image(4, "v1.2.3").await;
    mirror.image(4, "latest").await;
    for (seconds, heads) in [(0, 0), (11, 1), (86_400, 2)] {
        mirror.time.pass(seconds);
        for name in ["v1.2.3", "latest"] {
            mirror.app().resolve(&by_tag(name)).await.unwrap();
        }
        assert_eq!(mirror.upstream.take().resolve, heads, "after {seconds} s more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved() {
    let mirror = Mirror::new().await;
    let (one, two) = (mirror.image(5, "v1").await, mirror.image(7, "v2").await);
    let expect = async |image: &Image, gets| {
        mirror.image_at(image, "v1").await;
        mirror.time.pass(60);
        for found in fifty(&mirror, &by_tag("v1")).await {
            assert_eq!(found.bytes(), image.root.bytes());
        }
        let asked = mirror.upstream.take();
        assert_eq!((asked.resolve, asked.manifest), (1, gets));
    };
    mirror.app().manifest(&by_tag("v1")).await.unwrap();
    mirror.upstream.take();
    expect(&one, 0).await;
    expect(&two, 1).await;
    // Back to what is still here.
    expect(&one, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_cache_answers() {
    let mirror = Mirror::new().await;
    let image = mirror.image(8, "v1").await;
    mirror.app().manifest(&by_tag("v1")).await.unwrap();
    let mut age = 0;
    let soon = Kind::RateLimited { after: Some(Duration::from_secs(3600)) };
    let limited = Kind::RateLimited { after: None };
    for failure in [Kind::Unavailable, Kind::Stalled, limited, soon, Kind::Invalid, Kind::DigestMismatch] {
        mirror.time.pass(60);
        age += 60;
        mirror.upstream.take();
        mirror.upstream.fail(Operation::Resolve, failure);
        for _ in 0..3 {
            let found = mirror.app().resolve(&by_tag("v1")).await.unwrap();
            assert_eq!(
                (found.descriptor.digest, found.told.stale),
                (image.root.digest(), true),
                "{failure:?}"
            );
            assert_eq!(found.told.age, Duration::from_secs(age));
            assert_eq!(mirror.app().manifest(&by_tag("v1")).await.unwrap().bytes(), image.root.bytes());
        }
        assert_eq!(mirror.upstream.take().resolve, 1, "it is left alone for a while");
    }
    assert!(mirror.upstream.faulty.is_spent());
    assert!(mirror.pull.figures().stale >= 18);
    mirror.time.pass(5);
    let found = mirror.app().resolve(&by_tag("v1")).await.unwrap();
    assert_eq!((found.told.age, found.told.stale), (Duration::ZERO, false), "asked again, and confirmed");
}

/// An upstream that never answers costs those who wait the patience, and those who come later nothing.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_not_waited_for() {
    let mirror = Mirror::new().await;
    let image = mirror.image(9, "v1").await;
    mirror.app().manifest(&by_tag("v1")).await.unwrap();
    mirror.time.pass(60);
    mirror.upstream.faulty.stall(Operation::Resolve, 1);
    for _ in 0..3 {
        for found in fifty(&mirror, &by_tag("v1")).await {
            assert_eq!(found.bytes(), image.root.bytes());
        }
        assert!(mirror.app().resolve(&by_tag("v1")).await.unwrap().told.stale);
    }
    let asked = mirror.upstream.take();
    assert_eq!((asked.resolve, asked.manifest), (1, 1), "the one that goes on, and the first of all");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_remembered_for_seconds_and_failures_are_not() {
    let mirror = Mirror::new().await;
    mirror.image(11, "v1").await;
    let absent = [by_tag("absent"), Reference::Digest(ferry_oci::Digest::sha256(b"absent"))];
    for _ in 0..3 {
        for reference in &absent {
            assert_eq!(kind(mirror.app().manifest(reference).await), Some(Kind::NotFound));
            assert_eq!(kind(mirror.app().resolve(reference).await), Some(Kind::NotFound));
        }
    }
    let asked = mirror.upstream.take();
    assert_eq!((asked.manifest, asked.resolve), (2, 0));
    let image = mirror.image(13, "absent").await;
    mirror.time.pass(5);
    assert_eq!(mirror.app().manifest(&absent[0]).await.unwrap().bytes(), image.root.bytes());
    for failure in [Kind::Unavailable, Kind::RateLimited { after: None }, Kind::Denied] {
        mirror.upstream.fail(Operation::Manifest, failure);
        assert_eq!(kind(mirror.app().manifest(&by_tag("v1")).await), Some(failure));
    }
    mirror.app().manifest(&by_tag("v1")).await.unwrap();
}
