//! Limits of time, room and quota, and other places to read from.

use ferry_store::Store;
use ferry_testkit::fake::{FakeRegistry, Kind as Asked};
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage, SetSpec, image_set};
use ferry_testkit::link::{Link, LinkOptions};

use crate::harness::{Ferry, check, push, writer};

const SIZE: usize = 48 << 20;

fn large() -> [NamedImage; 1] {
    let image =
        ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(3, SIZE)]).build_single();
    [NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image }]
}

async fn hold(registry: &FakeRegistry, images: &[NamedImage]) {
    let store = registry.store() as std::sync::Arc<dyn Store>;
    for named in images {
        named.image.push_to(&*writer(&*store, &named.repository), Some(&named.tag)).await.unwrap();
    }
}

/// A layer that takes longer than the budget arrives over several runs, and neither side moves a byte twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_cuts_a_copy_into_runs_that_lose_nothing() {
    let ferry = Ferry::new();
    let source = ferry.serve(&ferry.path("source"), 0).await;
    let target = ferry.serve(&ferry.path("target"), 0).await;
    let images = large();
    push(&images, &source.host()).await;
    let options = LinkOptions { total_rate: Some(6_000_000), ..LinkOptions::default() };
    let from = Link::start(source.address, options).await.unwrap();
    let to = Link::start(target.address, LinkOptions::default()).await.unwrap();
    let list = ferry.list(&images, &from.host().to_string(), &to.host().to_string(), "");
    let arguments = ["copy", "--budget", "3s", "--from-file", list.to_str().unwrap()];
    let mut runs = 1;
    loop {
        let ran = ferry.run(&arguments).await;
        if ran.code == Some(0) {
            break;
        }
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.out.contains("left ") && ran.err.contains("the budget of 3s is used up"), "{ran:?}");
        runs += 1;
        assert!(runs < 12, "each run gets further");
    }
    assert!(runs > 2, "{runs} runs");
    let spare = runs * 400_000;
    let (came, went) = (from.stats().bytes_down, to.stats().bytes_up);
    assert!(came < SIZE as u64 + spare, "{came} bytes came in {runs} runs");
    assert!(went < SIZE as u64 + spare, "{went} bytes went in {runs} runs");
    check(&images, &target.host(), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_announced_before_it_hurts_and_then_respected() {
    let (ferry, source, target) =
        (Ferry::new(), FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap());
    let one = |number: u64| NamedImage {
        repository: "team/app".parse().unwrap(),
        tag: format!("v{number}").parse().unwrap(),
        image: ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [Layer::random(number, 1000)])
            .build_single(),
    };
    let images: Vec<NamedImage> = (0..8).map(one).collect();
    hold(&source, &images).await;
    source.quota(5, 21600);
    let (from, to) = (source.host().unwrap().to_string(), target.host().unwrap().to_string());
    let list = ferry.list(&images, &from, &to, "");
    let ran = ferry.run(&["copy", "--jobs", "1", "--from-file", list.to_str().unwrap()]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("more pulls of its 5 in 6h"), "{ran:?}");
    assert!(ran.out.contains("allows 5 pulls in 6 hours and none is left"), "{ran:?}");
    assert!(source.count(Asked::ManifestGet) <= 5 + 2, "what cannot succeed is not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mirror_holds_is_not_asked_of_the_registry() {
    let (ferry, mirror, target) =
        (Ferry::new(), FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap());
    let images = image_set(&SetSpec::small(1, 1));
    let kept: Vec<NamedImage> = images
        .iter()
        .map(|named| NamedImage {
            repository: format!("hub/{}", named.repository).parse().unwrap(),
            ..named.clone()
        })
        .collect();
    hold(&mirror, &kept).await;
    let to = target.host().unwrap().to_string();
    let list = ferry.list(&images, "127.0.0.1:1", &to, "");
    let named = format!("127.0.0.1:1={}/hub", mirror.host().unwrap());
    ferry.run(&["copy", "--mirror", &named, "--from-file", list.to_str().unwrap()]).await.ok();
    check(&images, &to, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_staging_blobs_go_through_memory() {
    let (ferry, source, target) =
        (Ferry::new(), FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap());
    let images = large();
    hold(&source, &images).await;
    let (from, to) = (source.host().unwrap().to_string(), target.host().unwrap().to_string());
    let list = ferry.list(&images, &from, &to, "");
    let arguments =
        ["copy", "--spool-limit", "40MB", "--limit-rate", "200MB", "--from-file", list.to_str().unwrap()];
    ferry.run(&arguments).await.ok();
    check(&images, &to, "").await;
    assert!(source.requests().iter().all(|request| request.range.is_none()), "in one go");
}

/// What an earlier run put into another repository is mounted from there, and nothing is lost if it has gone since.
#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_runs_saw_is_mounted() {
    let (ferry, source, target) =
        (Ferry::new(), FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap());
    let images = image_set(&SetSpec::small(1, 1));
    hold(&source, &images).await;
    let (from, to) = (source.host().unwrap().to_string(), target.host().unwrap().to_string());
    for (prefix, fetched_before) in [("one/", false), ("two/", true)] {
        source.reset_counts();
        let list = ferry.list(&images, &from, &to, prefix);
        ferry.run(&["copy", "--from-file", list.to_str().unwrap()]).await.ok();
        assert_eq!(source.count(Asked::BlobGet) == 0, fetched_before, "{prefix}");
        check(&images, &to, prefix).await;
    }
    let emptied = FakeRegistry::start().await.unwrap();
    drop(target);
    // The same state with a registry that knows nothing of it.
    let link = Link::start(emptied.address(), LinkOptions::default()).await.unwrap();
    let list = ferry.list(&images, &from, &link.host().to_string(), "three/");
    ferry.run(&["copy", "--from-file", list.to_str().unwrap()]).await.ok();
    check(&images, &link.host().to_string(), "three/").await;
}

/// Full disks: of the staging, which then does without, and of a target, which gets no tag.
mod small_disks {
    use std::path::Path;

    use tokio::process::Command;

    use super::*;

    /// Runs ferry where `directory` is a file system of 20 MB that nobody else sees.
    fn on_small_disk(ferry: &Ferry, directory: &Path, arguments: &[&str]) -> Command {
        std::fs::create_dir_all(directory).unwrap();
        let script = "mount -t tmpfs -o size=20m ferry \"$1\" && shift && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-ec", script, "sh"]).arg(directory);
        command.arg(env!("CARGO_BIN_EXE_ferry")).args(arguments);
        command.env("HOME", ferry.home.path()).current_dir(ferry.home.path()).kill_on_drop(true);
        command
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_staging_disk_is_done_without() {
        let (ferry, source, target) =
            (Ferry::new(), FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap());
        let images = large();
        hold(&source, &images).await;
        let (from, to) = (source.host().unwrap().to_string(), target.host().unwrap().to_string());
        let list = ferry.list(&images, &from, &to, "");
        let state = ferry.path("state");
        let arguments = [
            "copy",
            "--spool-limit",
            "1GB",
            "--state-dir",
            state.to_str().unwrap(),
            "--from-file",
            list.to_str().unwrap(),
        ];
        let output = on_small_disk(&ferry, &state, &arguments).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        check(&images, &to, "").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_target_gets_no_tag() {
        let (ferry, source) = (Ferry::new(), FakeRegistry::start().await.unwrap());
        let images = large();
        hold(&source, &images).await;
        let layout = ferry.path("layout");
        let from = format!("{}/team/app:v1", source.host().unwrap());
        let target = format!("oci:{}/images:v1", layout.display());
        let output = on_small_disk(&ferry, &layout, &["copy", &from, &target]).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(said.contains("no space left"), "{said}");
    }
}
