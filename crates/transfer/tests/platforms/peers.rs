//! What ferry makes of an image of which some platforms are asked for, before those who know indexes better.

use std::sync::{Arc, Once};

use ferry_oci::{Manifest, Reference};
use ferry_policy::platforms::{Mode, Selection};
use ferry_registry::{Anonymous, Client, ClientOptions};
use ferry_store::{Kind, MemoryStore, Scope, Side, Store};
use ferry_testkit::images::verify;
use ferry_testkit::peers::{DockerRegistry, skopeo};
use ferry_transfer::{Copier, Job, Options, Outcome, Place};
use tokio_util::sync::CancellationToken;

use super::harness::*;

/// Debian's `docker-registry`, as ferry reaches it.
fn store(registry: &DockerRegistry) -> Arc<dyn Store> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    });
    let client = Client::new(ClientOptions::default(), Arc::new(Anonymous)).unwrap();
    client.registry(&registry.host()).unwrap()
}

/// Copies the image of three platforms there.
async fn copy(target: &Arc<dyn Store>, platforms: Option<Selection>) -> Outcome {
    let source: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = source.writable(&Scope::Hosted, &name("a")).unwrap();
    image().push_to(&*repository, Some(&tag())).await.unwrap();
    let place = |id: &str, store: &Arc<dyn Store>| Place {
        id: id.into(),
        store: Arc::clone(store),
        repository: name("a"),
    };
    let job = Job {
        source: place("source", &source),
        reference: Reference::Tag(tag()),
        target: place("target", target),
        tag: Some(tag()),
        platforms,
    };
    Copier::new(Options::default(), CancellationToken::new()).copy(job).await
}

/// What skopeo says when it copies the whole image, or only the one for this machine's system and `architecture`.
async fn pull(registry: &DockerRegistry, architecture: Option<&str>) -> (bool, Manifest) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (format!("docker://{}/a:v1", registry.host()), format!("dir:{}", dir.path().display()));
    let mut options: Vec<&str> = Vec::new();
    if let Some(architecture) = architecture {
        options.extend(["--override-os=linux", "--override-arch", architecture]);
    }
    options.extend(["copy", "--src-tls-verify=false", "--preserve-digests"]);
    options.extend(architecture.is_none().then_some("--all"));
    options.extend([from.as_str(), &to]);
    let output = skopeo(options).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let read = std::fs::read(dir.path().join("manifest.json"));
    let bytes = read.unwrap_or_else(|e| panic!("{e}: {said}"));
    (output.status.success(), Manifest::parse(None, bytes.into()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_takes_and_skopeo_reads_a_subset() {
    let registry = DockerRegistry::start().await.unwrap();
    let target = store(&registry);
    let outcome = copy(&target, select(&["arm64", "amd64"], Mode::Rewrite)).await;
    let expected = kept(&image(), &[true, true, false, true, true, false]);
    assert_eq!(copied(&outcome).0, expected.digest());
    verify(&*target.repository(&Scope::Hosted, &name("a")), &Reference::Tag(tag())).await.unwrap();
    let (read, whole) = pull(&registry, None).await;
    assert_eq!((read, whole.bytes()), (true, expected.bytes()));
    let (read, one) = pull(&registry, Some("arm64")).await;
    assert_eq!((read, one.digest()), (true, image().root.children()[1].digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_takes_and_skopeo_reads_a_single_manifest() {
    let registry = DockerRegistry::start().await.unwrap();
    let outcome = copy(&store(&registry), select(&["linux/s390x"], Mode::Single)).await;
    let expected = image().root.children()[2].digest;
    assert_eq!(copied(&outcome).0, expected);
    let (read, one) = pull(&registry, Some("s390x")).await;
    assert_eq!((read, one.digest()), (true, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_registry_refuses_a_sparse_index() {
    let registry = DockerRegistry::start().await.unwrap();
    let target = store(&registry);
    let (kind, side, said) = failed(&copy(&target, select(&["arm64"], Mode::Sparse)).await);
    assert_eq!((kind, side), (Kind::Incomplete, Some(Side::Target)), "{said}");
    assert!(said.ends_with("whose manifests are missing; use rewrite"), "{said}");
    let untagged = target.repository(&Scope::Hosted, &name("a")).resolve(&Reference::Tag(tag())).await;
    assert_eq!(untagged.unwrap_err().kind(), Kind::NotFound);
}
