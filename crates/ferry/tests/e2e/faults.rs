//! Sources and targets that break: a tag is never written over missing or wrong content.

use std::path::PathBuf;
use std::time::Duration;

use ferry_oci::Reference;
use ferry_store::{Kind, Scope, Store};
use ferry_testkit::fake::{Auth, FakeRegistry, Fault, FaultRule, Kind as Asked};
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

    fn list(&self) -> PathBuf {
        let [source, target] =
            [&self.source, &self.target].map(|registry| registry.host().unwrap().to_string());
        self.ferry.list(&self.image, &source, &target, "")
    }

    async fn copy(&self) -> Ran {
        let list = self.list();
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
async fn sources_that_trickle_or_ask_for_patience_are_given_it() {
    let limited = |after: Option<&str>| Fault::Status {
        status: 429,
        retry_after: after.map(str::to_owned),
        body: r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#.to_owned(),
    };
    for (fault, times) in [
        (Fault::Trickle { chunk: 30_000, pause: Duration::from_millis(2) }, 4),
        (limited(Some("1")), 3),
        (limited(None), 3),
    ] {
        let scene = Scene::new().await;
        scene.source.fail(FaultRule::new(fault.clone()).method("GET").path("/blobs/").times(times));
        scene.source.fail(FaultRule::new(fault).method("GET").path("/manifests/").times(1));
        scene.copy().await.ok();
        scene.assert_heals().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_falls_silent_is_gone_on_with() {
    let scene = Scene::new().await;
    let stall = Fault::Stall { after: 3_000_000 };
    scene.source.fail(FaultRule::new(stall).method("GET").path("/blobs/").times(2));
    let ran = scene.copy().await.ok();
    let size: usize = scene.image[0].image.blobs.values().map(|bytes| bytes.len()).sum();
    let fetched = ran.out.rsplit_once(" fetched").unwrap().0.rsplit_once(", ").unwrap().1;
    assert_eq!(fetched, format!("{:.1} MB", size as f64 / 1e6), "what had come was kept: {ran:?}");
    scene.assert_heals().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_under_another_digest_are_not_believed() {
    let scene = Scene::new().await;
    scene.source.fail(FaultRule::new(Fault::WrongDigest).method("GET").path("/manifests/").always());
    assert_eq!(scene.copy().await.code, Some(4));
    scene.assert_no_tag().await;
    scene.assert_heals().await;
}

/// Tokens that end in the middle of a run are renewed, on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn authorization_that_ends_in_mid_run_is_renewed() {
    let scene = Scene::new().await;
    for registry in [&scene.source, &scene.target] {
        registry.require(Auth::Bearer { login: None, lifetime: Duration::from_secs(300) });
    }
    // Each request brings a part, so there are many, and some after each end of the tokens.
    scene
        .source
        .fail(FaultRule::new(Fault::Truncate { after: 700_000 }).method("GET").path("/blobs/").always());
    let expire = async {
        for requests in [5, 12, 20] {
            while scene.source.count(Asked::BlobGet) < requests {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            scene.source.expire_tokens();
            scene.target.expire_tokens();
        }
        std::future::pending().await
    };
    let ran = tokio::select! {
        ran = scene.copy() => ran,
        () = expire => unreachable!("it never ends"),
    };
    ran.ok();
    assert!(scene.source.count(Asked::BlobGet) >= 20, "they ended in mid-run");
    for registry in [&scene.source, &scene.target] {
        assert!(registry.count(Asked::Token) >= 2, "tokens were renewed");
        registry.require(Auth::None);
    }
    scene.assert_heals().await;
}

/// Blobs that were confirmed are gone when the manifest comes: everything is asked for once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_loses_a_blob_gets_it_again() {
    let scene = Scene::new().await;
    let unknown = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
    let lost = Fault::Status { status: 404, retry_after: None, body: unknown.to_owned() };
    scene.target.fail(FaultRule::new(lost).method("PUT").path("/manifests/").times(1));
    scene.copy().await.ok();
    assert!(scene.target.count(Asked::BlobHead) > 0, "nothing was trusted any more");
    scene.assert_heals().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_cannot_be_kept_is_no_reason_not_to_copy() {
    let scene = Scene::new().await;
    let list = scene.list();
    let mut command = scene.ferry.command(&["copy", "--from-file", list.to_str().unwrap()]);
    let output = command.env("HOME", "/proc").output().await.unwrap();
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && warning.contains("--state-dir"), "{warning}");
    let given = ["copy", "--state-dir", "/proc/ferry", "--from-file", list.to_str().unwrap()];
    let ran = scene.ferry.run(&given).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    scene.assert_heals().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_break_off_are_tried_again() {
    for rule in [
        FaultRule::new(Fault::status(500)).method("PUT").path("/blobs/uploads/").times(2),
        FaultRule::new(Fault::CutRequest { after: 100_000 }).method("PUT").path("/blobs/uploads/").times(2),
        FaultRule::new(Fault::StaleUpload).method("PUT").path("/blobs/uploads/").times(2),
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
