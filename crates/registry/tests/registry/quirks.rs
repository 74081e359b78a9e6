//! Registries that go their own ways, where that takes more than a look at an answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_registry::{Anonymous, ClientOptions, Habit, Site};
use ferry_store::{ByteRange, Kind, RepositoryMut, Scope, Store, Upload};
use ferry_testkit::fake::{FakeRegistry, Fault, FaultRule, Kind as Asked};
use ferry_testkit::quirks::{Location, Patches, Quirks, Stale, Uploads, Whole};

use crate::support::*;

/// Three chunks of a large blob, and a rest.
const SIZE: usize = 3_500_000;
const CHUNK: u64 = 1_000_000;

fn resumable() -> ClientOptions {
    ClientOptions { resumable_from: CHUNK, ..quick() }
}

fn in_chunks() -> ClientOptions {
    let usual = Site { habit: Some(Habit::Chunks(CHUNK)), ..Site::default() };
    ClientOptions { usual, ..resumable() }
}

async fn with(quirks: Quirks) -> FakeRegistry {
    let registry = FakeRegistry::start().await.unwrap();
    registry.create(&name(NAME));
    registry.quirks(quirks);
    registry
}

async fn uploading(uploads: Uploads) -> FakeRegistry {
    with(Quirks { uploads, ..Quirks::default() }).await
}

fn store(registry: &FakeRegistry, options: ClientOptions) -> Arc<dyn Store> {
    client(options, Anonymous).registry(&registry.host().unwrap()).unwrap()
}

/// Sends what an upload lacks, and commits.
async fn send(mut upload: Box<dyn Upload>, bytes: &Bytes) -> ferry_store::Result<()> {
    let from = usize::try_from(upload.durable_offset().await?).unwrap();
    for piece in bytes.slice(from..).chunks(100_000) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    upload.commit(&Digest::sha256(bytes)).await
}

/// Brings a blob over as the transfer core does: what broke off is gone on with where that can be, else begun anew.
/// Returns how many attempts it took.
async fn bring(repository: &Arc<dyn RepositoryMut>, bytes: &Bytes) -> usize {
    let digest = Digest::sha256(bytes);
    let mut kept = None;
    for attempt in 1..=6 {
        let resumed = match kept.take() {
            Some(token) => repository.resume(&token).await.unwrap_or(None),
            None => None,
        };
        let mut upload = match resumed {
            Some(upload) => upload,
            None => begin(repository, bytes).await,
        };
        let from = upload.durable_offset().await.unwrap_or(0) as usize;
        let mut failed = None;
        for piece in bytes.slice(from..).chunks(100_000) {
            failed = upload.write(Bytes::copy_from_slice(piece)).await.err();
            if failed.is_some() {
                break;
            }
        }
        let error = match failed {
            Some(error) => {
                kept = upload.token();
                error
            }
            None => match upload.commit(&digest).await {
                Ok(()) => return attempt,
                Err(error) => error,
            },
        };
        assert!(error.kind().is_transient() || error.kind() == Kind::DigestMismatch, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not arrive");
}

async fn arrived(registry: &FakeRegistry, bytes: &Bytes) {
    let repository = registry.store().repository(&Scope::Hosted, &name(NAME));
    let blob = repository.blob(&Digest::sha256(bytes), ByteRange::ALL).await.unwrap();
    assert!(blob.into_bytes().await.unwrap() == *bytes);
}

/// Every habit of uploads that there is, with what may be sent there.
fn habits() -> Vec<(&'static str, Uploads)> {
    let of = |name: &str| Quirks::of(name).unwrap().uploads;
    let short = Uploads { min_chunk: Some(CHUNK), max_chunk: Some(2 * CHUNK), ..of("ecr") };
    vec![
        ("as specified", Uploads::default()),
        ("quay", of("quay")),
        ("ecr", short),
        ("ecr-public", Uploads { no_status: true, ..short }),
        ("ghcr", Uploads { ranged_limit: Some(CHUNK / 2), ..of("ghcr") }),
        ("artifact-registry", of("artifact-registry")),
        ("artifactory", of("artifactory")),
        ("no PUT with content", Uploads { whole: Whole::Refused(405), ..Uploads::default() }),
        ("acr", Uploads { whole: Whole::TooLargeAbove(2 * CHUNK), ..Uploads::default() }),
        ("distribution 2.8", of("distribution-2.8")),
        ("distribution 3", of("distribution")),
        ("zot", of("zot")),
        ("chunks of a least length", Uploads { min_chunk: Some(CHUNK), ..Uploads::default() }),
        ("absolute", Uploads { location: Location::Absolute, stale: Stale::Refused, ..Uploads::default() }),
    ]
}

#[tokio::test]
async fn an_upload_that_is_cut_arrives_whatever_the_habit() {
    for (habit, uploads) in habits() {
        for options in [resumable(), in_chunks()] {
            let registry = uploading(uploads).await;
            let cut = Fault::CutRequest { after: 1_700_000 };
            registry.fail(FaultRule::new(cut.clone()).method("PATCH"));
            registry.fail(FaultRule::new(cut).method("PUT").path("/uploads/"));
            let repository = writer(&store(&registry, options));
            let bytes = content(1, SIZE);
            let attempts = bring(&repository, &bytes).await;
            arrived(&registry, &bytes).await;
            assert!((2..=5).contains(&attempts), "{habit}: {attempts} attempts");
            registry.heal();
            let (small, next) = (content(2, 1000), content(3, SIZE));
            assert!(bring(&repository, &small).await <= 2, "{habit}");
            assert!(bring(&repository, &next).await <= 2, "{habit}: what was learnt holds");
            arrived(&registry, &small).await;
            arrived(&registry, &next).await;
        }
    }
}

#[tokio::test]
async fn what_is_objected_to_is_tried_once() {
    for (habit, uploads) in habits() {
        for options in [resumable(), in_chunks()] {
            let registry = uploading(uploads).await;
            let repository = writer(&store(&registry, options));
            let mut attempts = Vec::new();
            for seed in 0..3 {
                let (small, large) = (content(seed, 1000), content(seed + 10, SIZE));
                attempts.push((bring(&repository, &small).await, bring(&repository, &large).await));
                arrived(&registry, &small).await;
                arrived(&registry, &large).await;
            }
            assert!(attempts[0].0 <= 2 && attempts[0].1 <= 3, "{habit}: {attempts:?}");
            assert_eq!(attempts[1..], [(1, 1), (1, 1)], "{habit}");
        }
    }
}

#[tokio::test]
async fn a_slow_source_does_not_make_a_second_patch_where_that_loses_the_first() {
    for patches in [Patches::Overwrite, Patches::Once] {
        let registry = uploading(Uploads { patches, ..Uploads::default() }).await;
        let options = ClientOptions { upload_pause: Duration::from_millis(50), ..resumable() };
        let repository = writer(&store(&registry, options));
        let mut failures = 0;
        for seed in 0..3 {
            let bytes = content(seed, SIZE);
            let mut upload = begin(&repository, &bytes).await;
            let mut sent = Ok(());
            for half in bytes.chunks(SIZE / 2) {
                tokio::time::sleep(Duration::from_millis(150)).await;
                sent = sent.and(upload.write(Bytes::copy_from_slice(half)).await);
            }
            let sent = match sent {
                Ok(()) => upload.commit(&Digest::sha256(&bytes)).await,
                failed => failed,
            };
            failures += usize::from(sent.is_err());
        }
        assert_eq!(failures, 1, "{patches:?}: the first, from which it is learnt");
    }
}

#[tokio::test]
async fn put_bodies_that_are_reset_go_in_parts_from_then_on() {
    let registry = uploading(Uploads { whole: Whole::ResetAfter(2_000_000), ..Uploads::default() }).await;
    let repository = writer(&store(&registry, quick()));
    let (one, two) = (content(1, SIZE), content(2, SIZE));
    assert_eq!(bring(&repository, &one).await, 2);
    assert_eq!(bring(&repository, &two).await, 1);
    assert_eq!((registry.count(Asked::UploadPatch), registry.count(Asked::UploadPut)), (2, 3));
}

#[tokio::test]
async fn wrong_bytes_are_wrong_whatever_the_registry_makes_of_good_ones() {
    for uploads in [Uploads::default(), Quirks::of("artifactory").unwrap().uploads] {
        let registry = uploading(uploads).await;
        let repository = writer(&store(&registry, quick()));
        let bytes = content(1, 1000);
        let mut upload = begin(&repository, &bytes).await;
        upload.write(content(2, 1000)).await.unwrap();
        assert_eq!(kind(upload.commit(&Digest::sha256(&bytes)).await), Kind::DigestMismatch);
    }
}

#[tokio::test]
async fn where_every_way_is_refused_the_registry_has_the_last_word() {
    let quirks = Uploads { whole: Whole::Refused(400), patches: Patches::Once, ..Uploads::default() };
    let registry = uploading(quirks).await;
    registry.fail(FaultRule::new(Fault::status(400)).method("PATCH").always());
    let repository = writer(&store(&registry, resumable()));
    let bytes = content(1, 1000);
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(kind(send(begin(&repository, &bytes).await, &bytes).await));
    }
    assert_eq!(kinds.last(), Some(&Kind::Invalid), "{kinds:?}");
    assert!(kinds.iter().filter(|kind| kind.is_transient()).count() <= 2, "{kinds:?}");
}
