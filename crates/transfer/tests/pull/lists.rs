//! Listings: what they cost, how long they are believed, and what stands in for them.

use std::sync::Arc;

use ferry_oci::{Digest, Tag};
use ferry_store::{
    CountingStore, Counts, Kind, Operation, Page, PageRequest, Repository, Result, Scope, Store, TagEntry,
    Told,
};
use ferry_testkit::images::Image;
use ferry_transfer::{PullOptions, PullThrough};
use futures_util::future::join_all;

use crate::fixtures::*;

const DAY: u64 = 24 * 60 * 60;

fn page(after: Option<&Page<TagEntry>>, limit: usize) -> PageRequest {
    PageRequest { after: after.and_then(|page| page.next.clone()), limit: Some(limit) }
}

fn names(page: &Page<TagEntry>) -> Vec<&str> {
    page.items.iter().map(|entry| entry.tag.as_str()).collect()
}

async fn tags(mirror: &Mirror) -> Result<Page<TagEntry>> {
    mirror.app().tags(PageRequest::default()).await
}

/// An image, and something that refers to it.
pub async fn with_sbom(mirror: &Mirror) -> (Image, Image) {
    let image = mirror.image(14, "v1").await;
    let sbom = Image::artifact(&image.root, "application/vnd.example.sbom", "sbom");
    sbom.push_to(&*mirror.upstream.writer(APP), None).await.unwrap();
    (image, sbom)
}

async fn referrers(app: &dyn Repository, subject: &Digest, of_type: Option<&str>) -> (Vec<Digest>, Told) {
    let listed = app.referrers(subject, of_type, PageRequest::default()).await.unwrap();
    (listed.items.iter().map(|found| found.digest).collect(), listed.told)
}

fn told(age: u64, stale: bool, renewed: bool) -> Told {
    Told { age: std::time::Duration::from_secs(age), stale, renewed }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_asked_for_once_and_again_when_it_is_not_fresh() {
    let mirror = Mirror::new().await;
    let image = mirror.image(1, "a").await;
    for at in ["b", "c"] {
        mirror.image_at(&image, at).await;
    }
    for (seconds, requests, expected) in
        [(0, 2, told(0, false, false)), (59, 0, told(59, false, false)), (1, 2, told(0, false, true))]
    {
        mirror.time.pass(seconds);
        mirror.upstream.take();
        let first = mirror.app().tags(page(None, 2)).await.unwrap();
        let second = mirror.app().tags(page(Some(&first), 2)).await.unwrap();
        assert_eq!((names(&first), names(&second)), (vec!["a", "b"], vec!["c"]));
        assert!(first.next.is_some() && second.next.is_none());
        assert_eq!((first.told, second.told), (expected, expected));
        assert_eq!(mirror.upstream.take().tags, requests, "after {seconds} s more");
    }
    mirror.image_at(&image, "d").await;
    assert_eq!(names(&mirror.app().tags(page(None, 9)).await.unwrap()), ["a", "b", "c", "d"], "another page");
    assert!(mirror.repository("other").tags(page(None, 2)).await.is_err(), "another repository");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_who_list_cost_one_request() {
    let mirror = Mirror::new().await;
    let (image, sbom) = with_sbom(&mirror).await;
    let subject = image.root.digest();
    for _ in 0..2 {
        mirror.upstream.take();
        let asking = (0..50).map(|_| {
            let app = mirror.app();
            tokio::spawn(async move {
                let tags = app.tags(PageRequest::default()).await.unwrap();
                (tags.items.len(), referrers(&*app, &subject, None).await.0)
            })
        });
        for asked in join_all(asking.collect::<Vec<_>>()).await {
            assert_eq!(asked.unwrap(), (1, vec![sbom.root.digest()]));
        }
        let asked = mirror.upstream.take();
        assert_eq!((asked.tags, asked.referrers), (1, 1));
        mirror.time.pass(60);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_cache_lists_also_in_a_new_process() {
    let mirror = Mirror::new().await;
    let (image, sbom) = with_sbom(&mirror).await;
    let (subject, kind) = (image.root.digest(), Some("application/vnd.example.sbom"));
    tags(&mirror).await.unwrap();
    for of_type in [None, kind, Some("other")] {
        referrers(&*mirror.app(), &subject, of_type).await;
    }
    mirror.time.pass(DAY);
    let nobody = Arc::new(CountingStore::new(Arc::new(ferry_store::MemoryStore::new())));
    let faulty = Arc::new(ferry_store::FaultyStore::new(nobody.clone()));
    let again = PullThrough::new(PullOptions {
        upstream: faulty.clone(),
        ..options(&mirror.storage, faulty.clone(), &mirror.time).await
    });
    let app = again.repository(&Scope::Hosted, &name(APP));
    let limited = Kind::RateLimited { after: None };
    for failure in [Kind::Unavailable, Kind::Stalled, limited, Kind::Invalid] {
        faulty.fail(Operation::Tags, 1, failure);
        let listed = app.tags(PageRequest::default()).await.unwrap();
        assert_eq!((names(&listed), listed.told.stale), (vec!["v1"], true), "{failure:?}");
        for (of_type, expected) in
            [(None, vec![sbom.root.digest()]), (kind, vec![sbom.root.digest()]), (Some("other"), vec![])]
        {
            faulty.fail(Operation::Referrers, 1, failure);
            let (found, told) = referrers(&*app, &subject, of_type).await;
            assert_eq!((found, told.stale), (expected, true), "{failure:?}");
        }
        mirror.time.pass(60);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_listed_is_known_from_what_was_pulled() {
    let mirror = Mirror::new().await;
    let (image, sbom) = with_sbom(&mirror).await;
    mirror.upstream.fail(Operation::Tags, Kind::Unavailable);
    assert_eq!(kind(tags(&mirror).await), Some(Kind::Unavailable), "nothing is known");
    mirror.app().manifest(&by_tag("v1")).await.unwrap();
    mirror.app().manifest(&ferry_oci::Reference::Digest(sbom.root.digest())).await.unwrap();
    mirror.upstream.fail(Operation::Tags, Kind::Unavailable);
    let listed = tags(&mirror).await.unwrap();
    assert_eq!((names(&listed), listed.told.stale), (vec!["v1"], true));
    mirror.upstream.fail(Operation::Referrers, Kind::Unavailable);
    let (found, told) = referrers(&*mirror.app(), &image.root.digest(), None).await;
    assert_eq!((found, told.stale), (vec![sbom.root.digest()], true));
    mirror.upstream.fail(Operation::Tags, Kind::Denied);
    assert_eq!(kind(tags(&mirror).await), Some(Kind::Denied), "a refusal is an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_withdrawn_and_comes_back() {
    for refusal in [Kind::NotFound, Kind::Unauthorized, Kind::Denied] {
        let mirror = Mirror::new().await;
        mirror.image(3, "v1").await;
        tags(&mirror).await.unwrap();
        let refused = async |seconds| {
            mirror.time.pass(seconds);
            mirror.upstream.fail(Operation::Tags, refusal);
            tags(&mirror).await
        };
        for days in [0, 3, 6] {
            let listed = refused(if days == 0 { 60 } else { 3 * DAY }).await.unwrap();
            assert!(listed.told.stale, "{refusal:?} after {days} days");
        }
        assert_eq!(kind(refused(2 * DAY).await), Some(refusal), "seven days are over");
        mirror.time.pass(5);
        assert_eq!(tags(&mirror).await.unwrap().told, told(0, false, false), "it is back, and was forgotten");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_listed_is_gone_when_it_is_refused() {
    let mirror = Mirror::with(|options| PullOptions { scope: account(), ..options }).await;
    let (image, _) = with_sbom(&mirror).await;
    tags(&mirror).await.unwrap();
    referrers(&*mirror.app(), &image.root.digest(), None).await;
    mirror.time.pass(60);
    mirror.upstream.fail(Operation::Tags, Kind::Denied);
    assert_eq!(kind(tags(&mirror).await), Some(Kind::Denied));
    mirror.time.pass(60);
    mirror.upstream.fail(Operation::Tags, Kind::Stalled);
    assert_eq!(kind(tags(&mirror).await), Some(Kind::Stalled), "nothing is left of it");
}

/// A dead upstream is waited for once, not once for every tag; and it is asked again before long.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_for_all_tags_at_once() {
    const TAGS: usize = 20;
    let mirror = Mirror::new().await;
    let image = mirror.image(9, "v0").await;
    let all: Vec<Tag> = (0..TAGS).map(|n| tag(&format!("v{n}"))).collect();
    for one in &all {
        mirror.image_at(&image, one.as_str()).await;
        mirror.app().manifest(&by_tag(one.as_str())).await.unwrap();
    }
    tags(&mirror).await.unwrap();
    mirror.time.pass(60);
    mirror.upstream.take();
    mirror.upstream.faulty.stall(Operation::Resolve, 1);
    for asked in [1, 0] {
        for one in &all {
            assert!(mirror.app().resolve(&by_tag(one.as_str())).await.unwrap().told.stale);
        }
        assert!(tags(&mirror).await.unwrap().told.stale);
        assert_eq!(mirror.upstream.take(), Counts { resolve: asked, ..Counts::default() });
        mirror.time.pass(5);
    }
    // The question that nobody answers does not keep the others from being asked once one of them is.
    for one in all.iter().rev() {
        let found = mirror.app().resolve(&by_tag(one.as_str())).await.unwrap();
        assert_eq!(found.told.stale, one == &all[0], "{one}");
    }
    assert!(!tags(&mirror).await.unwrap().told.stale);
}
