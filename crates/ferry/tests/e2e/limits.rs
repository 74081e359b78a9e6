//! Limits of time, room and quota, and other places to read from.

use ferry_oci::Reference;
use ferry_store::Store;
use ferry_testkit::fake::{FakeRegistry, Kind as Asked};
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage, SetSpec, image_set};
use ferry_testkit::link::{Link, LinkOptions};

use crate::harness::{Ferry, check, push, writer};

const SIZE: usize = 48 << 20;

fn large() -> [NamedImage; 1] {
    [numbered(1, SIZE)]
}

/// An image of one manifest and one layer of so many bytes, tagged `v` and its number.
fn numbered(number: u64, size: usize) -> NamedImage {
    let layer = Layer::random(number, size);
    let image = ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [layer]).build_single();
    let tag = format!("v{number}").parse().unwrap();
    NamedImage { repository: "team/app".parse().unwrap(), tag, image }
}

/// A source that holds images, and an empty target.
struct Scene {
    ferry: Ferry,
    source: FakeRegistry,
    target: FakeRegistry,
    images: Vec<NamedImage>,
}

impl Scene {
    async fn new(images: impl Into<Vec<NamedImage>>) -> Self {
        let (source, target) = (FakeRegistry::start().await.unwrap(), FakeRegistry::start().await.unwrap());
        let images = images.into();
        hold(&source, &images).await;
        Self { ferry: Ferry::new(), source, target, images }
    }

    fn to(&self) -> String {
        self.target.host().unwrap().to_string()
    }

    /// The list of all images, to be copied from `source` under `prefix`.
    fn list_from(&self, source: &str, prefix: &str) -> String {
        let list = self.ferry.list(&self.images, source, &self.to(), prefix);
        list.to_str().unwrap().to_owned()
    }

    fn list(&self, prefix: &str) -> String {
        self.list_from(&self.source.host().unwrap().to_string(), prefix)
    }

    /// Removes from the target what was copied under these prefixes.
    async fn empty_target(&self, prefixes: &[&str]) {
        let store = self.target.store();
        for named in &self.images {
            for prefix in prefixes {
                let repository = writer(&*store, &format!("{prefix}{}", named.repository).parse().unwrap());
                for manifest in &named.image.manifests {
                    repository.delete_manifest(&Reference::Digest(manifest.digest())).await.unwrap();
                }
                for digest in named.image.blobs.keys() {
                    repository.delete_blob(digest).await.unwrap();
                }
            }
        }
    }

    async fn check(&self, prefix: &str) {
        check(&self.images, &self.to(), prefix).await;
    }
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
    let scene = Scene::new((0..8).map(|number| numbered(number, 1000)).collect::<Vec<_>>()).await;
    scene.source.quota(5, 21600);
    let ran = scene.ferry.run(&["copy", "--jobs", "1", "--from-file", &scene.list("")]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("more pulls of its 5 in 6h"), "{ran:?}");
    assert!(ran.out.contains("allows 5 pulls in 6 hours and none is left"), "{ran:?}");
    assert!(scene.source.count(Asked::ManifestGet) <= 5 + 2, "what cannot succeed is not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mirror_holds_is_not_asked_of_the_registry() {
    let scene = Scene::new(image_set(&SetSpec::small(1, 1))).await;
    let mirror = FakeRegistry::start().await.unwrap();
    let mirrored = |named: &NamedImage| {
        let repository = format!("hub/{}", named.repository).parse().unwrap();
        NamedImage { repository, ..named.clone() }
    };
    hold(&mirror, &scene.images.iter().map(mirrored).collect::<Vec<_>>()).await;
    let named = format!("127.0.0.1:1={}/hub", mirror.host().unwrap());
    let list = scene.list_from("127.0.0.1:1", "");
    scene.ferry.run(&["copy", "--mirror", &named, "--from-file", &list]).await.ok();
    scene.check("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_staging_blobs_go_through_memory() {
    let scene = Scene::new(large()).await;
    let limits = ["--spool-limit", "40MB", "--limit-rate", "200MB"];
    let list = scene.list("");
    let arguments = [&["copy"][..], &limits, &["--from-file", &list]].concat();
    scene.ferry.run(&arguments).await.ok();
    scene.check("").await;
    assert!(scene.source.requests().iter().all(|request| request.range.is_none()), "in one go");
}

/// What an earlier run put into another repository is mounted from there, and nothing is lost if it has gone since.
#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_runs_saw_is_mounted() {
    let scene = Scene::new(image_set(&SetSpec::small(1, 1))).await;
    for (prefix, fetched_before) in [("one/", false), ("two/", true)] {
        scene.source.reset_counts();
        scene.ferry.run(&["copy", "--from-file", &scene.list(prefix)]).await.ok();
        assert_eq!(scene.source.count(Asked::BlobGet) == 0, fetched_before, "{prefix}");
        scene.check(prefix).await;
    }
    scene.empty_target(&["one/", "two/"]).await;
    scene.ferry.run(&["copy", "--from-file", &scene.list("three/")]).await.ok();
    scene.check("three/").await;
}

/// Full disks: of the staging, which then does without, and of a target, which gets no tag.
mod small_disks {
    use std::path::Path;
    use std::process::Stdio;
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::process::Command;

    use crate::harness::remote;

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
        let scene = Scene::new(large()).await;
        let state = scene.ferry.path("state");
        let limits = ["--spool-limit", "1GB", "--state-dir", state.to_str().unwrap()];
        let list = scene.list("");
        let arguments = [&["copy"][..], &limits, &["--from-file", &list]].concat();
        let output = on_small_disk(&scene.ferry, &state, &arguments).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        scene.check("").await;
    }

    /// A registry that is full must still be able to get rid of something.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_registry_can_be_emptied() {
        let ferry = Ferry::new();
        let storage = ferry.path("storage");
        let serve = ["serve", "--listen", "127.0.0.1:0", "--storage", storage.to_str().unwrap()];
        let more = ["--untagged-older-than", "1s"];
        // Long enough for a push on a busy machine, whose images have no children: these would be without a tag at first.
        let config = "serve: {grace: 20s, upload_expiry: 20s, upkeep_every: 1s}\n";
        std::fs::write(ferry.path("ferry.yaml"), config).unwrap();
        let arguments = [&["--config", "ferry.yaml"][..], &serve, &more].concat();
        let mut serving = on_small_disk(&ferry, &storage, &arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let host = line.rsplit_once("http://").unwrap().1.to_owned();
        let images: Vec<_> = (0..20).map(|number| numbered(number, 2 << 20)).collect();
        let store = remote(&host);
        let mut kept = Vec::new();
        let mut full = false;
        for named in &images {
            let repository = writer(&*store, &named.repository);
            match named.image.push_to(&*repository, Some(&named.tag)).await {
                Ok(()) => kept.push(named),
                Err(error) => {
                    assert_eq!(error.kind(), ferry_store::Kind::Full, "{error}");
                    full = true;
                }
            }
        }
        assert!(full && kept.len() > 1, "{} of them fit", kept.len());
        let (first, last) = (kept.remove(0), &images[images.len() - 1]);
        let tag = ferry_oci::Reference::Tag(first.tag.clone());
        writer(&*store, &first.repository).delete_manifest(&tag).await.unwrap();
        // Not more often: what a push leaves that does not fit takes room until its upload has expired.
        let repository = writer(&*store, &last.repository);
        let mut pushed = false;
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_secs(25)).await;
            pushed = last.image.push_to(&*repository, Some(&last.tag)).await.is_ok();
            if pushed {
                break;
            }
        }
        assert!(pushed, "room was made by itself");
        for named in kept {
            check(std::slice::from_ref(named), &host, "").await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_target_gets_no_tag() {
        let scene = Scene::new(large()).await;
        let layout = scene.ferry.path("layout");
        let from = format!("{}/team/app:v1", scene.source.host().unwrap());
        let target = format!("oci:{}/images:v1", layout.display());
        let output = on_small_disk(&scene.ferry, &layout, &["copy", &from, &target]).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(said.contains("no space left"), "{said}");
    }
}
