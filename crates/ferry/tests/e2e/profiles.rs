//! Targets that do not take images as they are.

use ferry_testkit::fake::FakeRegistry;
use ferry_testkit::images::{SetSpec, image_set};
use ferry_testkit::quirks::Quirks;

use crate::harness::{Ferry, push};

#[tokio::test(flavor = "multi_thread")]
async fn images_are_changed_for_a_target_and_a_repeat_changes_nothing() {
    let ferry = Ferry::new();
    let served = ferry.serve(&ferry.path("a"), 0).await;
    let images = image_set(&SetSpec { images: 1, seed: 3, base_size: 20_000, own_size: 1_000 });
    push(&images, &served.host()).await;
    let target = FakeRegistry::start().await.unwrap();
    target.quirks(Quirks { refuses_oci: true, ..Quirks::default() });
    let (host, named) = (target.host().unwrap(), &images[0]);
    let source = format!("{}/{}:{}", served.host(), named.repository, named.tag);
    let to = format!("{host}/mine/app:v1");

    let strict = ferry.run(&["copy", "--profile", "strict", &source, &to]).await;
    assert_eq!(strict.code, Some(4), "{strict:?}");
    assert!(strict.out.contains("manifest.json"), "what the target said: {}", strict.out);
    let changed = ferry.run(&["copy", "--profile", "huawei-swr", &source, &to]).await.ok();
    let was = format!("was {}", named.image.root.digest());
    assert!(changed.out.contains("changed (") && changed.out.contains(&was), "{}", changed.out);
    ferry.run(&["inspect", &to]).await.ok();

    target.reset_counts();
    let again = ferry.run(&["copy", "--profile", "huawei-swr", &source, &to]).await.ok();
    assert!(again.out.starts_with("1 image: 1 unchanged;"), "{}", again.out);
    assert_eq!(target.requests().len(), 1, "one look at the tag: {:?}", target.requests());

    std::fs::write(
        ferry.path("ferry.yaml"),
        format!("registries: {{\"{host}\": {{profile: huawei-swr}}}}\n"),
    )
    .unwrap();
    let deep = format!("{host}/mine/deep/app:v1");
    ferry.run(&["--config", "ferry.yaml", "copy", &source, &deep]).await.ok();
    let before = target.requests().len();
    let refused = ferry.run(&["copy", "--profile", "tencent-ccr", &source, &deep]).await;
    assert_eq!((refused.code, target.requests().len()), (Some(2), before), "{refused:?}");
    assert!(refused.err.contains("with the preset"), "{}", refused.err);
}
