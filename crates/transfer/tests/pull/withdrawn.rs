//! Tags that the upstream does not want to give any more.

use std::time::Duration;

use ferry_oci::Reference;
use ferry_store::{Cache, Kind, Operation};

use crate::fixtures::*;

const DAY: u64 = 24 * 60 * 60;
const REFUSALS: [Kind; 3] = [Kind::NotFound, Kind::Unauthorized, Kind::Denied];

/// The tag has become stale, and the upstream refuses it.
async fn refused(mirror: &Mirror, seconds: u64, refusal: Kind) -> ferry_store::Result<ferry_store::Resolved> {
    mirror.time.pass(seconds);
    // Where nothing is kept any more the manifest is asked for.
    mirror.upstream.fail(Operation::Resolve, refusal);
    mirror.app().resolve(&by_tag("v1")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_anonymously_is_served_for_a_time() {
    for refusal in REFUSALS {
        let mirror = Mirror::new().await;
        let image = mirror.image(1, "v1").await;
        mirror.app().manifest(&by_tag("v1")).await.unwrap();
        for (seconds, age) in [(60, 60), (3 * DAY, 3 * DAY + 60), (4 * DAY - 1, 7 * DAY + 59)] {
            let found = refused(&mirror, seconds, refusal).await.unwrap();
            assert_eq!(
                (found.descriptor.digest, found.told.stale),
                (image.root.digest(), true),
                "{refusal:?}"
            );
            assert_eq!(found.told.age, Duration::from_secs(age));
        }
        mirror.time.pass(5);
        mirror.upstream.fail(Operation::Resolve, refusal);
        assert_eq!(kind(mirror.app().manifest(&by_tag("v1")).await), Some(refusal), "seven days are over");
        assert!(mirror.upstream.faulty.is_spent());
        // Another one is asked for from the beginning.
        let next = mirror.image(3, "v1").await;
        mirror.time.pass(5);
        assert_eq!(mirror.app().manifest(&by_tag("v1")).await.unwrap().bytes(), next.root.bytes());
        // What does not change is still here.
        mirror.upstream.writer(APP).delete_manifest(&Reference::Digest(image.root.digest())).await.unwrap();
        mirror.app().manifest(&Reference::Digest(image.root.digest())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_comes_back_is_fresh_and_its_time_begins_anew() {
    let mirror = Mirror::new().await;
    mirror.image(1, "v1").await;
    mirror.app().manifest(&by_tag("v1")).await.unwrap();
    for _ in 0..3 {
        assert!(refused(&mirror, 5 * DAY, Kind::NotFound).await.unwrap().told.stale);
        mirror.time.pass(5);
        let found = mirror.app().resolve(&by_tag("v1")).await.unwrap();
        assert_eq!((found.told.stale, found.told.age), (false, Duration::ZERO));
    }
    assert!(mirror.upstream.faulty.is_spent());
}

/// It does not matter that the upstream is down when the time is over.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_ends_whether_or_not_the_upstream_can_be_asked() {
    let mirror = Mirror::new().await;
    mirror.image(1, "v1").await;
    mirror.app().manifest(&by_tag("v1")).await.unwrap();
    assert!(refused(&mirror, 60, Kind::Denied).await.unwrap().told.stale);
    assert!(refused(&mirror, DAY, Kind::Unavailable).await.unwrap().told.stale);
    assert_eq!(kind(refused(&mirror, 6 * DAY, Kind::Unavailable).await), Some(Kind::Unavailable));
    mirror.time.pass(5);
    assert!(!mirror.app().resolve(&by_tag("v1")).await.unwrap().told.stale, "it may come back all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_fetched_is_not_served() {
    for refusal in REFUSALS {
        let mirror = Mirror::with(|mut options| {
            options.scope = account();
            options
        })
        .await;
        mirror.image(1, "v1").await;
        mirror.app().manifest(&by_tag("v1")).await.unwrap();
        assert!(refused(&mirror, 60, Kind::Unavailable).await.unwrap().told.stale, "a failure is no refusal");
        assert_eq!(kind(refused(&mirror, 60, refusal).await), Some(refusal));
        let kept = mirror.storage.cached(&account(), &name(APP)).tag(&tag("v1")).await.unwrap();
        assert_eq!(kept, None, "forgotten at once");
        for _ in 0..2 {
            assert_eq!(kind(mirror.app().manifest(&by_tag("v1")).await), Some(refusal), "for some seconds");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_where_that_is_not_wanted() {
    let mirror = Mirror::with(|mut options| {
        options.keep_withdrawn = Duration::ZERO;
        options
    })
    .await;
    mirror.image(1, "v1").await;
    mirror.app().manifest(&by_tag("v1")).await.unwrap();
    assert_eq!(kind(refused(&mirror, 60, Kind::NotFound).await), Some(Kind::NotFound));
    assert_eq!(
        kind(mirror.storage.cached(&anonymous(), &name(APP)).resolve(&by_tag("v1")).await),
        Some(Kind::NotFound)
    );
}
