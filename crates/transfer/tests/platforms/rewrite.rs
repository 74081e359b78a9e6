//! Indexes that are rewritten to name what was asked for.

use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::{Digest, Manifest, Reference, media_type};
use ferry_policy::platforms::Mode;
use ferry_policy::profile::Profile;
use ferry_store::{BodyFault, Counts, FaultyStore, Kind, MemoryStore, Side};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
use ferry_testkit::quirks::{Quirks, QuirkyStore};
use ferry_transfer::{Copier, Job, Options};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_asked_for_is_moved() {
    let image = image();
    let pair = Pair::with(&image).await;
    let outcome = pair.run(select(&["arm64", "linux/s390x"], Mode::Rewrite)).await;
    let expected = kept(&image, &[false, true, true, false, true, true]);
    let (digest, figures) = copied(&outcome);
    assert_eq!(digest, expected.digest());
    assert_eq!(changed(&outcome), (image.root.digest(), "platform-subset".to_owned()));
    let (source, target) = pair.asked();
    assert_eq!((source.manifest, source.resolve), (5, 0), "the index, two images, two attestations");
    let blobs = 1 + 2 * 2 + 2 * 2;
    assert_eq!((figures.moved as u64, source.blob), (blobs, blobs));
    assert_eq!((target.resolve, target.begin, target.put_manifest), (1, blobs, 5));
    assert_eq!(pair.arrived().await.bytes(), expected.bytes());
    assert!(!pair.has(image.root.children()[0].digest).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_two_requests() {
    let pair = Pair::with(&image()).await;
    let arm = || select(&["arm64"], Mode::Rewrite);
    let (digest, _) = copied(&pair.run(arm()).await);
    pair.asked();
    assert_eq!(unchanged(&pair.run(arm()).await), digest);
    assert_eq!(pair.asked(), (resolved(1), resolved(1)));
    pair.forget();
    assert_eq!(unchanged(&pair.run(arm()).await), digest);
    assert_eq!(pair.asked(), (Counts { manifest: 1, ..resolved(1) }, resolved(1)), "the index says it all");
    assert_eq!(unchanged(&pair.run(arm()).await), digest);
    assert_eq!(pair.asked(), (resolved(1), resolved(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_choice_is_another_image() {
    let image = image();
    let pair = Pair::with(&image).await;
    let (arm, _) = copied(&pair.run(select(&["arm64"], Mode::Rewrite)).await);
    let (amd, figures) = copied(&pair.run(select(&["amd64"], Mode::Rewrite)).await);
    assert_ne!(arm, amd);
    assert_eq!(pair.arrived().await.bytes(), kept(&image, &[true, false, false, true, false, false]).bytes());
    assert_eq!((figures.moved, figures.present), (4, 1), "the layer that they share was there");
    let outcome = pair.run(None).await;
    assert_eq!((copied(&outcome).0, outcome.degraded()), (image.root.digest(), None));
    assert_eq!(pair.arrived().await.bytes(), image.root.bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_platforms_make_way_for_what_was_asked_for() {
    let image = image();
    let pair = Pair::with(&image).await;
    copied(&pair.run(None).await);
    pair.asked();
    let outcome = pair.run(select(&["arm64"], Mode::Rewrite)).await;
    let (digest, figures) = copied(&outcome);
    assert_eq!((figures.moved, figures.manifests), (0, 1), "it is all there");
    assert_eq!(pair.arrived().await.digest(), digest);
    assert_eq!(changed(&outcome).0, image.root.digest());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_of_everything_changes_nothing() {
    let image = image();
    let pair = Pair::with(&image).await;
    let all = || select(&["amd64", "arm64", "linux/s390x", "linux/riscv64"], Mode::Rewrite);
    let outcome = pair.run(all()).await;
    assert_eq!((copied(&outcome).0, outcome.degraded()), (image.root.digest(), None));
    assert_eq!(pair.arrived().await.bytes(), image.root.bytes());
    pair.asked();
    assert_eq!(unchanged(&pair.run(all()).await), image.root.digest());
    assert_eq!(pair.asked(), (resolved(1), resolved(1)));
    pair.forget();
    assert_eq!(unchanged(&pair.run(all()).await), image.root.digest());
    assert_eq!(pair.asked(), (Counts { manifest: 1, ..resolved(1) }, resolved(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_tag_is_found_under_what_it_became() {
    let image = image();
    let pair = Pair::with(&image).await;
    let job = || Job {
        reference: Reference::Digest(image.root.digest()),
        tag: None,
        ..pair.job(select(&["arm64"], Mode::Rewrite))
    };
    let run = || pair.run_job(job(), Default::default(), Options::default());
    let (digest, _) = copied(&run().await);
    assert!(pair.has(digest).await);
    pair.asked();
    assert_eq!(unchanged(&run().await), digest);
    assert_eq!(pair.asked(), (Counts::default(), resolved(1)));
    pair.forget();
    assert_eq!(unchanged(&run().await), digest);
    assert_eq!(pair.asked(), (Counts { manifest: 1, ..Counts::default() }, resolved(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_has_nothing_of_it_says_what_it_has() {
    for mode in Mode::ALL {
        let pair = Pair::with(&image()).await;
        let (kind, side, said) = failed(&pair.run(select(&["linux/riscv64"], mode)).await);
        assert_eq!((kind, side), (Kind::NotFound, Some(Side::Source)), "{mode}");
        let expected = "it has no linux/riscv64; it has linux/amd64, linux/arm64/v8, linux/s390x";
        assert!(said.contains(expected), "{mode}: {said}");
        assert_eq!(pair.asked(), (Counts { manifest: 1, ..Counts::default() }, resolved(1)), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_index_says_it_in_its_configuration() {
    let image = alone("linux/arm64/v8");
    for mode in Mode::ALL {
        let pair = Pair::with(&image).await;
        let (kind, side, said) = failed(&pair.run(select(&["amd64"], mode)).await);
        assert_eq!((kind, side), (Kind::NotFound, Some(Side::Source)), "{mode}");
        assert!(said.contains("it has no linux/amd64; it has linux/arm64/v8"), "{mode}: {said}");
        let looked = Counts { manifest: 1, blob: 1, ..Counts::default() };
        assert_eq!(pair.asked(), (looked, resolved(1)), "{mode}");

        let outcome = pair.run(select(&["arm64"], mode)).await;
        assert_eq!((copied(&outcome).0, outcome.degraded()), (image.root.digest(), None), "{mode}");
        assert_eq!(pair.arrived().await.bytes(), image.root.bytes(), "{mode}");
        pair.forget();
        pair.asked();
        assert_eq!(unchanged(&pair.run(select(&["arm64"], mode)).await), image.root.digest());
        let read = u64::from(mode == Mode::Sparse);
        let asked = (resolved(1), Counts { manifest: read, ..resolved(1) });
        assert_eq!(pair.asked(), asked, "{mode}: its configuration is not read again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_is_for_every_platform() {
    let artifact = Image::artifact(&alone("linux/amd64").root, "application/vnd.example", "{}");
    let index = index_of(&[&artifact], &[entry(&artifact)]);
    for image in [artifact, index] {
        for mode in Mode::ALL {
            let pair = Pair::with(&image).await;
            let outcome = pair.run(select(&["linux/s390x"], mode)).await;
            assert_eq!((copied(&outcome).0, outcome.degraded()), (image.root.digest(), None), "{mode}");
            assert_eq!(pair.arrived().await.bytes(), image.root.bytes());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_does_not_say_is_looked_up() {
    let (amd, arm) = (alone("linux/amd64"), alone("linux/arm64"));
    let artifact = Image::artifact(&amd.root, "application/vnd.example", "payload");
    let whole = index_of(&[&amd, &arm, &artifact], &[entry(&arm), entry(&artifact), entry(&amd)]);
    let pair = Pair::with(&whole).await;
    let outcome = pair.run(select(&["amd64"], Mode::Rewrite)).await;
    assert_eq!(copied(&outcome).0, kept(&whole, &[false, true, true]).digest());
    let (source, _) = pair.asked();
    assert_eq!(
        (source.manifest, source.blob),
        (4, 2 + 2 + 2),
        "each manifest once; two configurations and four blobs"
    );
    pair.arrived().await;
    let (_, _, said) = failed(&pair.run(select(&["linux/386"], Mode::Rewrite)).await);
    assert!(said.contains("it has no linux/386; it has linux/a"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_inside_are_looked_into() {
    let inner = image();
    let arm = ImageBuilder::new(MediaTypes::Oci).platform("linux/arm64", [Layer::random(7, 1000)]).build();
    let mut told = entry(&arm);
    told["platform"] = json!({"os": "windows", "architecture": "arm64"});
    let whole = index_of(&[&inner, &arm], &[entry(&arm), entry(&inner), told]);
    let pair = Pair::with(&whole).await;
    let outcome = pair.run(select(&["amd64"], Mode::Rewrite)).await;
    copied(&outcome);
    let root = pair.arrived().await;
    let new_inner = kept(&inner, &[true, false, false, true, false, false]);
    assert_eq!(root.children().iter().map(|child| child.digest).collect::<Vec<_>>(), [new_inner.digest()]);
    assert!(!pair.has(arm.root.digest()).await && !pair.has(inner.root.digest()).await);
    let (_, _, said) = failed(&pair.run(select(&["linux/386"], Mode::Rewrite)).await);
    assert!(said.contains("it has windows/arm64, linux/a"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_does_not_take_is_changed_as_well() {
    let image = image();
    let how = Profile::named("huawei-swr").unwrap().degradations();
    let quirks = Quirks { refuses_oci: true, refuses_attestations: true, ..Quirks::default() };
    for (mode, applied) in [
        (Mode::Rewrite, "strip-attestations, platform-subset, docker-types"),
        (Mode::Single, "single-platform, docker-types"),
    ] {
        let pair = Pair::to(QuirkyStore::new(Arc::new(MemoryStore::new()), quirks), &image).await;
        let run = || pair.run_job(pair.job(select(&["arm64"], mode)), how, Options::default());
        let outcome = run().await;
        let (digest, figures) = copied(&outcome);
        assert_eq!(changed(&outcome), (image.root.digest(), applied.to_owned()));
        assert_eq!(figures.moved, 3, "a configuration and two layers");
        assert_eq!(pair.arrived().await.digest(), digest);
        pair.asked();
        assert_eq!(unchanged(&run().await), digest);
        assert_eq!(pair.asked(), (resolved(1), resolved(1)), "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recheck_asks_for_everything_again() {
    let pair = Pair::with(&image()).await;
    let arm = || select(&["arm64"], Mode::Rewrite);
    let (digest, _) = copied(&pair.run(arm()).await);
    pair.asked();
    let options = Options { recheck: true, ..Options::default() };
    let outcome = pair.run_job(pair.job(arm()), Default::default(), options).await;
    let (again, figures) = copied(&outcome);
    assert_eq!((again, figures.moved, figures.manifests), (digest, 0, 3));
    assert_eq!(pair.asked().1.stat, 1 + 2 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_brings_one_image_in_several_ways() {
    let image = image();
    let pair = Pair::with(&image).await;
    let jobs = [
        ("all", None),
        ("arm", select(&["arm64"], Mode::Rewrite)),
        ("two", select(&["arm64", "amd64"], Mode::Rewrite)),
        ("one", select(&["amd64"], Mode::Single)),
    ];
    let expected = [
        image.root.digest(),
        kept(&image, &[false, true, false, false, true, false]).digest(),
        kept(&image, &[true, true, false, true, true, false]).digest(),
        image.root.children()[0].digest,
    ];
    let jobs = jobs.map(|(tag, platforms)| Job { tag: Some(tag.parse().unwrap()), ..pair.job(platforms) });
    let copier = Copier::new(Options::default(), CancellationToken::new());
    let mut found = [None; 4];
    copier.copy_all(jobs.to_vec(), |place, outcome| found[place] = Some(copied(&outcome).0)).await;
    assert_eq!(found, expected.map(Some));
    let (_, target) = pair.asked();
    assert_eq!(target.commit as usize, image.blobs.len(), "each blob once");
    for tag in ["all", "arm", "two", "one"] {
        verify(&*pair.there(), &Reference::Tag(tag.parse().unwrap())).await.unwrap();
    }
}

/// An image whose configuration is said to be of `size`, and is `config`, but for its digest.
async fn with_config(size: usize, config: &'static [u8]) -> (Kind, Option<Side>, String) {
    let digest = Digest::sha256(config);
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": [],
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": digest, "size": size}});
    let root = Manifest::parse(None, Bytes::from(manifest.to_string())).unwrap();
    let blobs = [(digest, Bytes::from_static(config))].into();
    let pair = Pair::with(&Image { blobs, manifests: vec![root.clone()], root }).await;
    let failure = failed(&pair.run(select(&["amd64"], Mode::Rewrite)).await);
    assert_eq!(pair.asked().1, resolved(1), "nothing was written");
    failure
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_not_believed_unseen() {
    let (kind, side, said) = with_config(9 << 20, b"{}").await;
    assert_eq!((kind, side), (Kind::Invalid, Some(Side::Source)));
    assert!(said.contains("too large"), "{said}");
    let (kind, side, _) = with_config(3, b"{}").await;
    assert_eq!((kind, side), (Kind::DigestMismatch, Some(Side::Source)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_was_altered_is_refused_and_a_broken_one_asked_for_again() {
    let pair = Pair::with(&alone("linux/amd64")).await;
    for (fault, expected) in [
        (BodyFault::CorruptAt(7), Err((Kind::DigestMismatch, Some(Side::Source)))),
        (BodyFault::TruncateAfter(7), Ok(())),
    ] {
        let source = Arc::new(FaultyStore::new(Arc::clone(&pair.source) as _));
        source.spoil(1, fault);
        let mut job = pair.job(select(&["amd64"], Mode::Rewrite));
        job.source.store = Arc::clone(&source) as _;
        let outcome = pair.run_job(job, Default::default(), Options::default()).await;
        assert!(source.is_spent());
        match expected {
            Err(expected) => {
                let (kind, side, _) = failed(&outcome);
                assert_eq!((kind, side), expected);
                assert_eq!(pair.asked().1, resolved(1), "nothing was written");
            }
            Ok(()) => assert_eq!(copied(&outcome).0, pair.arrived().await.digest()),
        }
    }
}
