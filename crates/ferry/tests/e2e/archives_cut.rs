//! Archives whose writing is cut short: by a kill, by a budget, by Ctrl-C, by a disk that is full.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_layout::{ArchiveOptions, Layout};
use ferry_oci::Digest;
use ferry_store::{Scope, Store};
use ferry_testkit::fake::FakeRegistry;
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage, image_set};
use ferry_testkit::link::{Link, LinkOptions};
use rand::Rng;

use crate::archives::files;
use crate::artifacts::artifact;
use crate::harness::{Ferry, Served, check, push, signal, writer};
use crate::kill::{IMAGES, OVERHEAD, content, dice, finished, staged, until_moved};

const ROUNDS: usize = 8;

fn part(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.ferry-part", path.file_name().unwrap().to_str().unwrap()))
}

/// Every image goes into one archive under its name.
fn list(ferry: &Ferry, images: &[NamedImage], source: &str, archive: &str) -> String {
    let line = |named: &NamedImage| {
        let NamedImage { repository, tag, .. } = named;
        format!("{source}/{repository}:{tag} oci-archive:{archive}:quay.io/{repository}:{tag}\n")
    };
    fs::write(ferry.path("list"), images.iter().map(line).collect::<String>()).unwrap();
    ferry.path("list").to_str().unwrap().to_owned()
}

/// Bytes of blobs that need not be fetched any more: those that are whole in the part file, and pieces in staging.
async fn kept(archive: &Path, images: &[NamedImage], staging: &Path) -> u64 {
    let mut whole = BTreeSet::new();
    let mut bytes = 0;
    if part(archive).exists() {
        let layout = Layout::create_archive(archive, ArchiveOptions::default()).unwrap();
        let reader = layout.repository(&Scope::Hosted, &"any".parse().unwrap());
        let blobs: BTreeSet<Digest> =
            images.iter().flat_map(|named| named.image.blobs.keys().copied()).collect();
        for digest in blobs {
            if let Some(size) = reader.stat(&digest).await.unwrap() {
                whole.insert(digest);
                bytes += size;
            }
        }
    }
    bytes + staged(staging, &whole)
}

/// Reads an archive into a registry and checks every byte there.
async fn import_and_check(
    ferry: &Ferry,
    archive: &str,
    images: &[NamedImage],
    inside: &Served,
    prefix: &str,
) {
    let to = format!("{}/{prefix}", inside.host());
    let archive = format!("oci-archive:{archive}");
    ferry.run(&["copy", "--state-dir", "import", "--to", to.trim_end_matches('/'), &archive]).await.ok();
    check(images, &inside.host(), prefix).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_export_goes_on_where_it_stopped() {
    let ferry = Ferry::new();
    let outside = ferry.serve(&ferry.path("outside"), 0).await;
    let inside = ferry.serve(&ferry.path("inside"), 0).await;
    let images = image_set(&IMAGES);
    push(&images, &outside.host()).await;
    let expected = check(&images, &outside.host(), "").await;
    let options = LinkOptions { total_rate: Some(35_000_000), ..LinkOptions::default() };
    let link = Link::start(outside.address, options).await.unwrap();
    let mut dice = dice();
    for round in 0..ROUNDS {
        let archive = format!("images{round}.tar");
        let path = ferry.path(&archive);
        let list = list(&ferry, &images, &link.host().to_string(), &archive);
        let state = format!("state{round}");
        let arguments = ["copy", "--state-dir", &state, "--from-file", &list];
        link.reset_stats();
        let mut killed = ferry.command(&arguments).spawn().unwrap();
        until_moved(&link, dice.random_range(1..expected.bytes() * 9 / 10), &mut killed).await;
        killed.kill().await.unwrap();
        link.kill_connections();
        assert!(!path.exists(), "an archive that is not whole has no name");
        let kept = kept(&path, &images, &ferry.path(&state).join("staging")).await;
        link.reset_stats();
        // One connection: where others take over, what is under way on the first is delivered for nothing.
        ferry.run(&[&arguments[..], &["--jobs", "1"]].concat()).await.ok();
        let (fetched, missing) = (link.stats().bytes_down, content(&expected) - kept);
        assert!(
            fetched <= missing + OVERHEAD,
            "round {round}: {fetched} bytes fetched where {missing} were missing"
        );
        assert!(!part(&path).exists());
        import_and_check(&ferry, &archive, &images, &inside, &format!("round{round}/")).await;
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_import_goes_on_where_it_stopped() {
    let ferry = Ferry::new();
    let outside = ferry.serve(&ferry.path("outside"), 0).await;
    let inside = ferry.serve(&ferry.path("inside"), 0).await;
    let images = image_set(&IMAGES);
    push(&images, &outside.host()).await;
    let expected = check(&images, &outside.host(), "").await;
    let list = list(&ferry, &images, &outside.host(), "all.tar");
    ferry.run(&["copy", "--from-file", &list]).await.ok();
    let options = LinkOptions { total_rate: Some(35_000_000), ..LinkOptions::default() };
    let link = Link::start(inside.address, options).await.unwrap();
    let mut dice = dice();
    for round in 0..ROUNDS {
        let (prefix, state) = (format!("round{round}/"), format!("state{round}"));
        let to = format!("{}/round{round}", link.host());
        let arguments = ["copy", "--state-dir", &state, "--to", &to, "oci-archive:all.tar"];
        link.reset_stats();
        let mut killed = ferry.command(&arguments).spawn().unwrap();
        let until = dice.random_range(1..expected.bytes() * 9 / 10);
        while link.stats().bytes_up < until {
            assert!(killed.try_wait().unwrap().is_none(), "the copy ended before the kill");
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        killed.kill().await.unwrap();
        link.kill_connections();
        let there = finished(&images, &inside, &prefix, Path::new("none")).await;
        link.reset_stats();
        ferry.run(&arguments).await.ok();
        let (sent, missing) = (link.stats().bytes_up, content(&expected) - there);
        assert!(sent <= missing + OVERHEAD, "round {round}: {sent} bytes sent where {missing} were missing");
        assert_eq!(check(&images, &inside.host(), &prefix).await, expected, "round {round}");
    }
}

fn large(size: usize) -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::random(1, size), Layer::random(2, 1 << 20)])
        .build_single()
}

fn named(image: Image) -> [NamedImage; 1] {
    [NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_and_an_interrupt_leave_no_archive_and_lose_nothing() {
    const SIZE: usize = 40 << 20;
    let ferry = Ferry::new();
    let (outside, inside) =
        (ferry.serve(&ferry.path("outside"), 0).await, ferry.serve(&ferry.path("inside"), 0).await);
    let images = named(large(SIZE));
    push(&images, &outside.host()).await;
    let options = LinkOptions { total_rate: Some(8_000_000), ..LinkOptions::default() };
    let link = Link::start(outside.address, options).await.unwrap();
    let list = list(&ferry, &images, &link.host().to_string(), "all.tar");
    let arguments = ["copy", "--from-file", &list];
    let ran = ferry.run(&[&arguments[..], &["--budget", "2s"]].concat()).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.err.contains("the budget of 2s is used up"), "{ran:?}");
    assert!(!ferry.path("all.tar").exists());

    let mut interrupted = ferry.command(&arguments).spawn().unwrap();
    until_moved(&link, SIZE as u64 / 2, &mut interrupted).await;
    signal(&interrupted, "INT").await;
    assert_eq!(interrupted.wait().await.unwrap().code(), Some(3));
    assert!(!ferry.path("all.tar").exists());

    ferry.run(&arguments).await.ok();
    let came = link.stats().bytes_down;
    assert!(came < (SIZE + (1 << 20)) as u64 + 3 * 400_000, "{came} bytes came in three runs");
    import_and_check(&ferry, "all.tar", &images, &inside, "in/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_written_by_one_at_a_time() {
    let ferry = Ferry::new();
    let (outside, inside) =
        (ferry.serve(&ferry.path("outside"), 0).await, ferry.serve(&ferry.path("inside"), 0).await);
    let images = named(large(2 << 20));
    push(&images, &outside.host()).await;
    let options = LinkOptions { total_rate: Some(1_500_000), ..LinkOptions::default() };
    let link = Link::start(outside.address, options).await.unwrap();
    let list = list(&ferry, &images, &link.host().to_string(), "all.tar");
    let mut first = ferry.command(&["copy", "--from-file", &list]).spawn().unwrap();
    until_moved(&link, 100_000, &mut first).await;
    let second = ferry.run(&["copy", "--from-file", &list]).await;
    assert_eq!(second.code, Some(4), "{second:?}");
    assert!(second.err.contains("another process is writing this archive; wait for it"), "{}", second.err);
    assert_eq!(first.wait().await.unwrap().code(), Some(0));
    import_and_check(&ferry, "all.tar", &images, &inside, "in/").await;
    let third = ferry.run(&["copy", "--from-file", &list]).await.ok();
    assert!(third.out.contains("1 image: 1 unchanged"), "{}", third.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_leave_what_is_good() {
    let ferry = Ferry::new();
    let (outside, inside) =
        (ferry.serve(&ferry.path("outside"), 0).await, ferry.serve(&ferry.path("inside"), 0).await);
    let images = named(large(100_000));
    push(&images, &outside.host()).await;
    fs::create_dir(ferry.path("out")).unwrap();
    let absent = format!("{}/team/absent:v1", outside.host());
    let nothing = ferry.run(&["copy", "--to", "oci-archive:out/all.tar", &absent]).await;
    assert_eq!(nothing.code, Some(4), "{nothing:?}");
    assert!(files(&ferry.path("out")).is_empty(), "{:?}", files(&ferry.path("out")));

    let good = format!("{}/team/app:v1", outside.host());
    let some = ferry.run(&["copy", "--to", "oci-archive:out/all.tar", &absent, &good]).await;
    assert_eq!(some.code, Some(1), "{some:?}");
    assert_eq!(files(&ferry.path("out")), ["all.tar".to_owned()].into());
    import_and_check(&ferry, "out/all.tar", &images, &inside, "in/").await;
}

/// An image that came without its signature is in the archive all the same, and the run says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_its_signature_is_kept() {
    let ferry = Ferry::new();
    let (registry, inside) =
        (FakeRegistry::start().await.unwrap(), ferry.serve(&ferry.path("inside"), 0).await);
    let images = named(large(100_000));
    let store = registry.store() as std::sync::Arc<dyn Store>;
    let repository = writer(&*store, &images[0].repository);
    images[0].image.push_to(&*repository, Some(&images[0].tag)).await.unwrap();
    let signature = artifact(&images[0].image.root, "a signature");
    signature.push_to(&*repository, None).await.unwrap();
    repository.delete_blob(&Digest::sha256(b"a signature")).await.unwrap();
    let from = format!("{}/team/app:v1", registry.host().unwrap());
    let to = "oci-archive:all.tar:quay.io/team/app:v1";
    let ran = ferry.run(&["copy", &from, to]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.out.contains("the image is there"), "{ran:?}");
    import_and_check(&ferry, "all.tar", &images, &inside, "in/").await;

    signature.push_to(&*repository, None).await.unwrap();
    let again = ferry.run(&["copy", &from, to]).await.ok();
    assert!(again.out.contains("1 image: 1 copied"), "{}", again.out);
}

/// Full disks.
mod small_disks {
    use super::*;

    /// Writes an archive that fits, fails at one that does not, makes room and succeeds; on a file system that nobody
    /// else sees.
    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=24m ferry "$1"; cd "$1"
        "$2" copy "$3/small:v1" oci-archive:all.tar:quay.io/small:v1 >/dev/null
        cp all.tar "$HOME/before.tar"
        head -c 14000000 /dev/zero > filler
        code=0; "$2" copy "$3/team/app:v1" oci-archive:all.tar:quay.io/team/app:v1 || code=$?
        echo "exit $code"; cmp all.tar "$HOME/before.tar" && echo "as before"
        rm filler
        "$2" copy "$3/team/app:v1" oci-archive:all.tar:quay.io/team/app:v1
        ls -A; cp all.tar "$HOME/after.tar"

        # There is room for what is new, but not for what was there beside it.
        code=0; "$2" copy --commands podman "$3/more:v1" docker-archive:all.tar:quay.io/more:v1 || code=$?
        echo "exit $code"; cmp all.tar "$HOME/after.tar" && echo "as it was"
        mount -o remount,size=64m "$1"
        "$2" copy --commands podman "$3/more:v1" docker-archive:all.tar:quay.io/more:v1
        ls -A; cp all.tar "$HOME/last.tar"
    "#;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_archive_on_a_full_disk_stays_as_it_was() {
        let ferry = Ferry::new();
        let (outside, inside) =
            (ferry.serve(&ferry.path("outside"), 0).await, ferry.serve(&ferry.path("inside"), 0).await);
        let [app] = named(large(12 << 20));
        let [small] = named(large(3000));
        let more = NamedImage { repository: "more".parse().unwrap(), ..named(large(7 << 20))[0].clone() };
        let images = [app, NamedImage { repository: "small".parse().unwrap(), ..small }, more];
        push(&images, &outside.host()).await;
        fs::create_dir(ferry.path("disk")).unwrap();
        let mut command = tokio::process::Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-ec", SCRIPT, "sh"]).arg(ferry.path("disk"));
        command.arg(env!("CARGO_BIN_EXE_ferry")).arg(outside.host()).env("HOME", ferry.home.path());
        let output = command.kill_on_drop(true).output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let complained = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}\n{complained}");
        assert!(said.contains("exit 4\nas before\n"), "{said}\n{complained}");
        assert!(said.contains("No space left"), "{said}\n{complained}");
        assert!(complained.contains("the target has no space left"), "{complained}");
        assert!(
            complained.contains("finish archive all.tar: no space left; until it is whole"),
            "{complained}"
        );
        let (before, after) = said.split_once("exit 4\nas it was\n").expect(&said);
        assert!(before.contains("\nall.tar\n"), "no part file is left: {said}");
        assert!(!before.contains("podman load"), "there is nothing to load: {said}");
        let again = "1 image: 1 copied; 0 blobs sent (0 B), 3 already there, 0 B fetched";
        assert!(after.contains(again), "nothing is fetched again: {said}");
        assert!(after.ends_with("  podman load -i all.tar\nall.tar\n"), "{said}");
        import_and_check(&ferry, "after.tar", &images[..2], &inside, "in/").await;
        import_and_check(&ferry, "last.tar", &images, &inside, "last/").await;
    }
}
