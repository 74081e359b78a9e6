//! What a dry run says, which is what a run then does, and that it writes nothing.

use std::sync::Arc;

use ferry_policy::degrade::{Degradation, Degradations};
use ferry_store::{FaultyStore, Kind, MemoryStore, Operation, Side};
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes};
use ferry_transfer::{Copier, Figures, Job, Options, Survey};
use tokio_util::sync::CancellationToken;

use crate::harness::{Pair, artifact, copied, copier, cosign, image, push, quick, signature, tag, writes};

/// What would be sent: manifests, blobs, bytes, present, artifacts.
type Sums = (usize, usize, u64, usize, usize);

async fn survey(copier: &Copier, jobs: &[Job]) -> Sums {
    let mut sums = Sums::default();
    let count = |_, survey| match survey {
        Survey::Wanted { manifests, blobs, bytes, present, referrers, .. } => {
            let (m, b, y, p, r) = sums;
            sums = (m + manifests, b + blobs, y + bytes, p + present, r + referrers);
        }
        Survey::Unchanged { .. } => {}
        other => panic!("{other:?}"),
    };
    copier.survey_all(jobs.to_vec(), count).await;
    sums
}

fn add(sums: &mut Sums, figures: Figures) {
    sums.0 += figures.manifests;
    sums.1 += figures.moved;
    sums.2 += figures.bytes;
    sums.3 += figures.present + figures.mounted;
    sums.4 += figures.referrers;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_run_does_what_the_dry_run_said() {
    let whole = image().attestations().build();
    let pair = Pair::with(&whole).await;
    let other = image().platform("linux/s390x", [Layer::random(4, 700)]).build();
    pair.push(&other, Some(&tag("v2"))).await;
    pair.push(&artifact(&whole.root, "a"), None).await;
    pair.push(&signature("b"), Some(&cosign(&whole.manifests[0], "sig"))).await;
    let jobs =
        [pair.job_to("v1", "a"), pair.job_to("v2", "a"), pair.job_to("v1", "b"), pair.job_to("v2", "c")];
    // Nothing, some and all of it is there. What mounts from what is a matter of who comes first.
    for jobs in [&jobs[..1], &jobs[..], &jobs[..]] {
        let copier = Copier::new(Options { images: 1, ..quick() }, CancellationToken::new());
        pair.asked();
        let told = survey(&copier, jobs).await;
        let (source, target) = pair.asked();
        assert_eq!((writes(source), writes(target), source.blob), (0, 0, 0));
        let mut done = Sums::default();
        let count = |_, outcome| match outcome {
            ferry_transfer::Outcome::Unchanged { .. } => {}
            other => add(&mut done, copied(other)),
        };
        copier.copy_all(jobs.to_vec(), count).await;
        assert_eq!(told, done);
    }
    assert_eq!(survey(&copier(), &jobs).await, Sums::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_asked_for_once_and_counted_once() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    pair.push(&whole, Some(&tag("v2"))).await;
    let jobs = [pair.job_to("v1", "a"), pair.job_to("v2", "a"), pair.job_to("v1", "b")];
    let (manifests, blobs, bytes, _, _) = survey(&copier(), &jobs).await;
    let size: usize = whole.blobs.values().map(bytes::Bytes::len).sum();
    assert_eq!((blobs, bytes), (whole.blobs.len(), size as u64));
    assert_eq!(manifests, (3 + 1) + 3, "of the second tag only its root");
    let (source, target) = pair.asked();
    assert_eq!(target.stat as usize, 2 * whole.blobs.len(), "in each of two repositories");
    assert_eq!((source.blob, source.stat, writes(target)), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_image_may_want_a_signature() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    copied(pair.copy().await);
    match copier().survey(pair.job()).await {
        Survey::Unchanged { digest } => assert_eq!(digest, whole.root.digest()),
        other => panic!("{other:?}"),
    }
    let referrer = artifact(&whole.root, "a");
    pair.push(&referrer, None).await;
    match copier().survey(pair.job()).await {
        Survey::Wanted {
            digest,
            degraded: None,
            manifests: 1,
            blobs,
            present: 0,
            referrers: 1,
            left_behind: 0,
            ..
        } => {
            assert_eq!((digest, blobs), (whole.root.digest(), referrer.blobs.len()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(writes(pair.asked().1), 0);
    assert!(!pair.has_referrer(&referrer).await);
    let options = Options { belongings: false, ..quick() };
    let without = Copier::new(options, CancellationToken::new());
    assert!(matches!(without.survey(pair.job()).await, Survey::Unchanged { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told() {
    let whole = image().attestations().build();
    let pair = Pair::with(&whole).await;
    let strip = Degradations::from(Degradation::StripAttestations);
    let options = Options { degradations: [("target".into(), strip)].into(), ..quick() };
    let run = Copier::new(options, CancellationToken::new());
    match run.survey(pair.job()).await {
        Survey::Wanted { digest, degraded: Some(degraded), manifests, .. } => {
            assert_eq!((degraded.original, degraded.applied, manifests), (whole.root.digest(), strip, 3));
            assert_ne!(digest, whole.root.digest());
            assert_eq!(copied(run.copy(pair.job()).await).degraded, Some(degraded));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_store_everything_is_mounted() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    let mut job = pair.job();
    job.target.id = Arc::clone(&job.source.id);
    job.target.store = Arc::clone(&job.source.store);
    match copier().survey(job).await {
        Survey::Wanted { blobs: 0, bytes: 0, present, manifests: 3, .. } => {
            assert_eq!(present, whole.blobs.len() + 1, "the shared layer is met twice");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_stops() {
    let whole = ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", []).build();
    for (operation, kind) in [(Operation::Stat, Kind::Denied), (Operation::Resolve, Kind::Unauthorized)] {
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        faulty.fail(operation, 1, kind);
        let pair = Pair::between(Arc::new(MemoryStore::new()), faulty);
        push(&*pair.source, &whole, Some(&tag("v1"))).await;
        match copier().survey(pair.job()).await {
            Survey::Failed { error } => assert_eq!((error.kind(), error.side()), (kind, Some(Side::Target))),
            other => panic!("{other:?}"),
        }
        let stop = CancellationToken::new();
        stop.cancel();
        assert!(matches!(Copier::new(quick(), stop).survey(pair.job()).await, Survey::Stopped));
    }
    // A repository that is said not to exist holds nothing.
    let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
    faulty.fail(Operation::Stat, 1, Kind::NotFound);
    let pair = Pair::between(Arc::new(MemoryStore::new()), faulty);
    push(&*pair.source, &whole, Some(&tag("v1"))).await;
    assert_eq!(survey(&copier(), &[pair.job()]).await.1, whole.blobs.len());
}
