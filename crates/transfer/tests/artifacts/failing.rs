//! What becomes of an image when something that belongs to it does not arrive.

use std::sync::Arc;

use ferry_store::{FaultyStore, Kind, MemoryStore, Operation, Side};
use ferry_transfer::{Copier, Outcome};
use tokio_util::sync::CancellationToken;

use crate::harness::{Pair, artifact, copied, cosign, image, push, quick, signature, tag, unchanged};

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_holds_up_no_other_and_is_made_good() {
    let whole = image().build();
    // The manifests of the image come first, then the artifacts.
    for nth in [4, 5] {
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let pair = Pair::between(Arc::new(MemoryStore::new()), faulty.clone());
        push(&*pair.source, &whole, Some(&tag("v1"))).await;
        let (referrer, signed) = (artifact(&whole.root, "a"), signature("b"));
        pair.push(&referrer, None).await;
        pair.push(&signed, Some(&cosign(&whole.root, "sig"))).await;
        faulty.fail(Operation::PutManifest, nth, Kind::Denied);
        match pair.copy().await {
            Outcome::Failed { error, arrived, figures } => {
                assert_eq!((error.kind(), error.side()), (Kind::Denied, Some(Side::Target)));
                let text = error.to_string();
                let named = text.contains(&referrer.root.digest().to_string())
                    || text.contains(cosign(&whole.root, "sig").as_str());
                assert!(named, "{text}");
                assert_eq!((arrived, figures.referrers), (Some(whole.root.digest()), 1));
            }
            other => panic!("{other:?}"),
        }
        assert!(faulty.is_spent() && pair.has_tag(&tag("v1"), &whole).await);
        let figures = copied(pair.copy().await);
        assert_eq!((figures.referrers, figures.manifests), (1, 1), "only what is missing");
        assert!(
            pair.has_referrer(&referrer).await && pair.has_tag(&cosign(&whole.root, "sig"), &signed).await
        );
        unchanged(pair.copy().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_did_not_arrive_says_so() {
    let whole = image().build();
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    faulty.fail(Operation::PutManifest, 3, Kind::Denied);
    let pair = Pair::between(Arc::new(MemoryStore::new()), faulty);
    push(&*pair.source, &whole, Some(&tag("v1"))).await;
    assert!(matches!(pair.copy().await, Outcome::Failed { arrived: None, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_a_failure_and_a_refusal_is_none() {
    let whole = image().build();
    for (operation, times, kind, fails) in [
        // Tags are listed while the image is brought, and again if that failed.
        (Operation::Tags, 1, Kind::Unavailable, false),
        (Operation::Tags, 2, Kind::Unavailable, true),
        (Operation::Referrers, 1, Kind::Stalled, true),
        (Operation::Referrers, 1, Kind::Denied, false),
        (Operation::Referrers, 1, Kind::NotFound, false),
    ] {
        let memory = Arc::new(MemoryStore::new());
        push(&*memory, &whole, Some(&tag("v1"))).await;
        let faulty = Arc::new(FaultyStore::new(memory));
        (1..=times).for_each(|time| faulty.fail(operation, time, kind));
        let pair = Pair::between(faulty.clone(), Arc::new(MemoryStore::new()));
        match pair.copy().await {
            Outcome::Failed { error, arrived, .. } => {
                assert_eq!((error.side(), arrived), (Some(Side::Source), Some(whole.root.digest())));
                assert!(fails, "{operation} {error}");
            }
            Outcome::Copied { .. } => assert!(!fails, "{operation}"),
            other => panic!("{other:?}"),
        }
        assert!(faulty.is_spent());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_lists_no_referrers_is_asked_for_each() {
    let whole = image().build_single();
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let pair = Pair::between(Arc::new(MemoryStore::new()), faulty.clone());
    push(&*pair.source, &whole, Some(&tag("v1"))).await;
    pair.push(&artifact(&whole.root, "a"), None).await;
    for (expected, resolves) in [(1, 2), (0, 2)] {
        faulty.fail(Operation::Referrers, 1, Kind::Denied);
        let copied = match pair.copy().await {
            Outcome::Copied { figures, .. } => figures.referrers,
            Outcome::Unchanged { .. } => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!((copied, pair.asked().1.resolve), (expected, resolves));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_are_refused_before_any_is_brought() {
    let whole = image().build_single();
    let pair = Pair::with(&whole).await;
    for n in 0..1001 {
        push(&*pair.source, &artifact(&whole.root, &n.to_string()), None).await;
    }
    pair.asked();
    match pair.copy().await {
        Outcome::Failed { error, arrived, figures } => {
            assert_eq!((error.kind(), arrived), (Kind::Invalid, Some(whole.root.digest())));
            assert_eq!((figures.referrers, figures.manifests), (0, 1));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_between_image_and_signature_is_gone_on_with() {
    let whole = image().build();
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    let pair = Pair::between(Arc::new(MemoryStore::new()), faulty.clone());
    push(&*pair.source, &whole, Some(&tag("v1"))).await;
    let referrer = artifact(&whole.root, "a");
    pair.push(&referrer, None).await;
    faulty.stall(Operation::PutManifest, 4);
    let stop = CancellationToken::new();
    let stopped = Copier::new(quick(), stop.clone());
    let (outcome, ()) = tokio::join!(stopped.copy(pair.job()), async {
        while pair.target.counts().put_manifest < 4 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    });
    assert!(matches!(outcome, Outcome::Stopped), "{outcome:?}");
    assert!(!pair.has_referrer(&referrer).await);
    let figures = copied(pair.copy().await);
    assert_eq!((figures.referrers, figures.manifests), (1, 1));
    assert!(pair.has_referrer(&referrer).await);
}
