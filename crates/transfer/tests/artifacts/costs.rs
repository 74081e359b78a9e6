//! How much is asked for, where there is nothing to bring and where there is.

use std::sync::Arc;

use ferry_oci::Reference;
use ferry_store::{Counts, FaultyStore, Kind, MemoryStore, Operation};
use ferry_transfer::{Copier, Options, Outcome};
use tokio_util::sync::CancellationToken;

use crate::harness::{Pair, artifact, copied, copier, cosign, image, push, quick, signature, tag, unchanged};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_costs_a_listing_and_a_question_for_each_manifest() {
    let pair = Pair::with(&image().build()).await;
    assert_eq!(copied(pair.copy().await).referrers, 0);
    let (source, target) = pair.asked();
    assert_eq!((source.tags, source.referrers, source.manifest, source.resolve), (1, 3, 3, 0));
    assert_eq!((target.tags, target.referrers, target.manifest, target.resolve), (0, 0, 0, 1));
    unchanged(pair.copy().await);
    let (source, target) = pair.asked();
    assert_eq!(source, Counts { resolve: 1, tags: 1, referrers: 3, ..Counts::default() });
    assert_eq!(
        target,
        Counts { resolve: 1, manifest: 1, ..Counts::default() },
        "the index, which has no quota there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_index_is_not_even_read() {
    let pair = Pair::with(&image().build_single()).await;
    copied(pair.copy().await);
    pair.asked();
    unchanged(pair.copy().await);
    let (source, target) = pair.asked();
    assert_eq!(source, Counts { resolve: 1, tags: 1, referrers: 1, ..Counts::default() });
    assert_eq!(target, Counts { resolve: 1, ..Counts::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_none_pays_nothing() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    pair.push(&artifact(&whole.root, "a"), None).await;
    let options = Options { belongings: false, ..quick() };
    let without = || Copier::new(options.clone(), CancellationToken::new());
    assert_eq!(copied(without().copy(pair.job()).await).referrers, 0);
    let (source, target) = pair.asked();
    assert_eq!((source.tags, source.referrers, target.referrers), (0, 0, 0));
    unchanged(without().copy(pair.job()).await);
    let (source, target) = pair.asked();
    assert_eq!(source, Counts { resolve: 1, ..Counts::default() });
    assert_eq!(target, Counts { resolve: 1, ..Counts::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_one_repository_share_the_listing_and_their_subjects() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    pair.push(&whole, Some(&tag("v2"))).await;
    let (referrer, signed) = (artifact(&whole.root, "a"), signature("b"));
    pair.push(&referrer, None).await;
    pair.push(&signed, Some(&cosign(&whole.root, "sig"))).await;
    let mut figures = Vec::new();
    let jobs = vec![pair.job_to("v1", "a"), pair.job_to("v2", "a")];
    copier().copy_all(jobs, |_, outcome| figures.push(copied(outcome))).await;
    let (source, target) = pair.asked();
    assert_eq!((source.tags, source.referrers), (1, 3 + 2), "each manifest and each artifact once");
    assert_eq!(target.referrers, 1, "of what has some");
    assert_eq!(figures.iter().map(|f| f.referrers).sum::<usize>(), 2);
    assert_eq!(target.put_manifest, 2 * 3 - 2 + 2, "both roots, two children and two artifacts");
    assert!(pair.has_referrer(&referrer).await && pair.has_tag(&cosign(&whole.root, "sig"), &signed).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_looked_at_and_no_more() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    pair.push(&artifact(&whole.root, "a"), None).await;
    pair.push(&signature("b"), Some(&cosign(&whole.root, "sig"))).await;
    copied(pair.copy().await);
    pair.asked();
    unchanged(pair.copy().await);
    let (source, target) = pair.asked();
    assert_eq!(source, Counts { resolve: 2, tags: 1, referrers: 5, ..Counts::default() });
    assert_eq!(target, Counts { resolve: 2, manifest: 1, referrers: 1, ..Counts::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_lists_no_tags_is_asked_for_the_usual_ones() {
    let whole = image().attestations().build();
    for kind in [Kind::Denied, Kind::Unauthorized, Kind::NotFound, Kind::Invalid] {
        let memory = Arc::new(MemoryStore::new());
        push(&*memory, &whole, Some(&tag("v1"))).await;
        let (signed, odd) = (signature("a"), signature("b"));
        push(&*memory, &signed, Some(&cosign(&whole.root, "sig"))).await;
        push(&*memory, &odd, Some(&cosign(&whole.root, "unusual"))).await;
        let faulty = Arc::new(FaultyStore::new(memory));
        faulty.fail(Operation::Tags, 1, kind);
        let pair = Pair::between(faulty.clone(), Arc::new(MemoryStore::new()));
        assert_eq!(copied(pair.copy().await).referrers, 1);
        let (source, _) = pair.asked();
        assert_eq!((source.tags, source.resolve), (1, 3 * 3), "three tags of the index and of each platform");
        assert_eq!(source.referrers, 5 + 1);
        assert!(faulty.is_spent() && pair.has_tag(&cosign(&whole.root, "sig"), &signed).await);
        assert!(!pair.has_tag(&cosign(&whole.root, "unusual"), &odd).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_repository_everything_is_where_it_belongs() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    pair.push(&artifact(&whole.root, "a"), None).await;
    let mut job = pair.job();
    job.target = job.source.clone();
    job.tag = Some(tag("v2"));
    copied(copier().copy(job.clone()).await);
    assert_eq!((pair.source.counts().tags, pair.source.counts().referrers), (0, 0));
    job.target.repository = "other".parse().unwrap();
    let figures = copied(copier().copy(job).await);
    assert_eq!((figures.referrers, figures.moved, figures.mounted > 0), (1, 0, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_by_digest_brings_what_belongs_to_it() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    let referrer = artifact(&whole.root, "a");
    pair.push(&referrer, None).await;
    let mut job = pair.job();
    job.reference = Reference::Digest(whole.root.digest());
    job.tag = None;
    assert_eq!(copied(copier().copy(job.clone()).await).referrers, 1);
    assert!(pair.has_referrer(&referrer).await);
    assert!(matches!(copier().copy(job).await, Outcome::Unchanged { .. }));
}
