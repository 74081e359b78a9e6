//! Sources and targets that break: a tag is never written over missing or wrong content.

use ferry_oci::Reference;
use ferry_store::{Kind, Scope, Store};
use ferry_testkit::fake::{FakeRegistry, Fault, FaultRule};
use ferry_testkit::images::{NamedImage, SetSpec, image_set};

use crate::harness::{Ferry, Ran, check, writer};

struct Scene {
    ferry: Ferry,
    source: FakeRegistry,
    target: FakeRegistry,
    image: Vec<NamedImage>,
}

impl Scene {
    /// An image whose base layers are large enough to be staged.
    async fn new() -> Self {
        let (source, target) = (FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap());
        let image = image_set(&SetSpec { images: 1, seed: 11, base_size: 9 << 20, own_size: 20_000 });
        let store = source.store();
        let named = &image[0];
        named.image.push_to(&*writer(&*store, &named.repository), Some(&named.tag)).await.unwrap();
        Self { ferry: Ferry::new(), source, target, image }
    }

    async fn copy(&self) -> Ran {
        let [source, target] =
            [&self.source, &self.target].map(|registry| registry.host().unwrap().to_string());
        let list = self.ferry.list(&self.image, &source, &target, "");
        self.ferry.run(&["copy", "--from-file", list.to_str().unwrap()]).await
    }

    async fn assert_no_tag(&self) {
        let repository = self.target.store().repository(&Scope::Hosted, &self.image[0].repository);
        let found = repository.resolve(&Reference::Tag(self.image[0].tag.clone())).await;
        assert_eq!(found.unwrap_err().kind(), Kind::NotFound);
    }

    async fn assert_heals(&self) {
        self.source.heal();
        self.target.heal();
        self.copy().await.ok();
        check(&self.image, &self.target.host().unwrap().to_string(), "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_always_wrong_never_yields_a_tag() {
    let scene = Scene::new().await;
    scene.source.fail(FaultRule::new(Fault::Corrupt { at: 1000 }).method("GET").path("/blobs/").always());
    let ran = scene.copy().await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.err.contains("damaged or altered"), "{ran:?}");
    scene.assert_no_tag().await;
    scene.assert_heals().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_wrong_never_yields_a_tag() {
    let scene = Scene::new().await;
    scene
        .source
        .fail(FaultRule::new(Fault::Corrupt { at: 40 }).method("GET").path("/manifests/sha256").always());
    assert_eq!(scene.copy().await.code, Some(4));
    scene.assert_no_tag().await;
    scene.assert_heals().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_break_off_are_gone_on_with() {
    for fault in [Fault::Truncate { after: 200_000 }, Fault::Reset { after: 200_000 }, Fault::status(502)] {
        let scene = Scene::new().await;
        scene.source.fail(FaultRule::new(fault).method("GET").path("/blobs/").times(8));
        scene.copy().await.ok();
        scene.assert_heals().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_break_off_are_tried_again() {
    for rule in [
        FaultRule::new(Fault::status(500)).method("PUT").path("/blobs/uploads/").times(2),
        FaultRule::new(Fault::CutRequest { after: 100_000 }).method("PUT").path("/blobs/uploads/").times(2),
        FaultRule::new(Fault::status(503)).method("POST").times(2),
        FaultRule::new(Fault::status(503)).method("PUT").path("/manifests/").times(2),
    ] {
        let scene = Scene::new().await;
        scene.target.fail(rule);
        scene.copy().await.ok();
        scene.assert_heals().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_names_itself() {
    let scene = Scene::new().await;
    scene.target.fail(FaultRule::new(Fault::status(403)).method("POST").always());
    let ran = scene.copy().await;
    assert_eq!(ran.code, Some(4));
    assert!(ran.out.contains("target: ") && ran.err.contains("may not write there"), "{ran:?}");
    scene.assert_no_tag().await;
    scene.assert_heals().await;
}
