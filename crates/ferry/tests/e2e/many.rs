//! Many images at once: lists, `--to` with its namings, `--all-tags`.

use std::process::Stdio;

use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage, SetSpec, image_set};
use tokio::io::AsyncWriteExt;

use crate::harness::{Ferry, Ran, check, push, reader, remote, writer};

fn image(seed: u64) -> Image {
    ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(seed, 1000)]).build()
}

fn named(repository: &str, tag: &str, seed: u64) -> NamedImage {
    NamedImage { repository: repository.parse().unwrap(), tag: tag.parse().unwrap(), image: image(seed) }
}

/// A run that reads `input`.
async fn fed(ferry: &Ferry, arguments: &[&str], input: &str) -> Ran {
    let mut child = ferry.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_goes_below_a_prefix() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    let images = image_set(&SetSpec::small(6, 7));
    push(&images, &from.host()).await;
    let sources: Vec<String> =
        images.iter().map(|named| format!("{}/{}:{}", from.host(), named.repository, named.tag)).collect();
    let prefix = format!("{}/team/mirror", to.host());
    let mut arguments = vec!["copy", "--to", &prefix];
    arguments.extend(sources.iter().map(String::as_str));
    ferry.run(&arguments).await.ok();
    check(&images, &to.host(), "team/mirror/").await;

    let list = sources.join("\n");
    let other = format!("{}/piped", to.host());
    fed(&ferry, &["copy", "--from-file", "-", "--to", &other], &list).await.ok();
    check(&images, &to.host(), "piped/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_chosen_made_and_kept() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    let images = [named("coredns/coredns", "v1.8.6", 1), named("pause", "3.10", 2)];
    push(&images, &from.host()).await;
    let (host, target) = (from.host(), to.host());
    let dashed = host.replace(':', "-");
    let list = format!(
        "{host}/coredns/coredns:v1.8.6$dns\n{host}/coredns/coredns:v1.8.6$dns:chosen\n{host}/pause:3.10\n\
         {host}/pause:3.10 {target}/exactly/here:now\n"
    );
    let to = format!("{target}/ns");
    fed(&ferry, &["copy", "--from-file", "-", "--to", &to, "--naming", "dots"], &list).await.ok();
    for (repository, tag, image) in [
        ("ns/dns".to_owned(), "v1.8.6", 0),
        ("ns/dns".to_owned(), "chosen", 0),
        (format!("ns/{dashed}.pause"), "3.10", 1),
        ("exactly/here".to_owned(), "now", 1),
    ] {
        let found = reader(&target, &repository).resolve(&tag.parse().unwrap()).await.unwrap();
        assert_eq!(found.descriptor.digest, images[image].image.root.digest(), "{repository}:{tag}");
    }
    let source = format!("{host}/pause:3.10");
    let template = "{basename}-x:{tag}-y";
    ferry.run(&["copy", "--to", &to, "--naming", template, &source]).await.ok();
    reader(&target, "ns/pause-x").resolve(&"3.10-y".parse().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_of_a_repository() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    let store = remote(&from.host());
    let repository = writer(&*store, &"team/app".parse().unwrap());
    // More than a page of tags, most of them the same image.
    let image = image(3);
    image.push_to(&*repository, None).await.unwrap();
    for n in 0..1100 {
        repository.put_manifest(&image.root, Some(&format!("v{n}").parse().unwrap())).await.unwrap();
    }
    let (source, target) = (format!("{}/team/app", from.host()), format!("{}/copy/app", to.host()));
    let ran = ferry.run(&["copy", "--all-tags", &source, &target]).await.ok();
    assert!(ran.out.contains("1100 images"), "{}", ran.out);
    for tag in ["v0", "v999", "v1099"] {
        reader(&to.host(), "copy/app").resolve(&tag.parse().unwrap()).await.unwrap();
    }
    let prefix = format!("{}/other", to.host());
    ferry.run(&["copy", "--all-tags", "--to", &prefix, &source]).await.ok();
    reader(&to.host(), "other/team/app").resolve(&"v500".parse().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_when_names_clash() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    let images = [named("a/app", "v1", 4), named("b/app", "v1", 5), named("c/only", "v1", 6)];
    push(&images, &from.host()).await;
    let host = from.host();
    let sources = ["a/app", "b/app", "c/only"].map(|name| format!("{host}/{name}"));
    let target = to.host();
    let mut arguments = vec!["copy", "--to", &target, "--naming", "basename", "--all-tags"];
    arguments.extend(sources.iter().map(String::as_str));
    let ran = ferry.run(&arguments).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("would both become"), "{}", ran.err);
    let listed = remote(&to.host()).repositories("", Default::default()).await.unwrap();
    assert!(listed.items.is_empty(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_are_chosen() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    let image = ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::random(1, 1000)])
        .platform("linux/arm64", [Layer::random(2, 1000)])
        .platform("linux/s390x", [Layer::random(3, 1000)])
        .build();
    let named = NamedImage { repository: "app".parse().unwrap(), tag: "v1".parse().unwrap(), image };
    push(std::slice::from_ref(&named), &from.host()).await;
    let (source, host) = (format!("{}/app:v1", from.host()), to.host());
    let target = |name: &str| format!("{host}/{name}");
    let two = "--platform=arm64,linux/amd64";
    let ran = ferry.run(&["copy", two, &source, &target("two")]).await.ok();
    assert!(ran.out.contains("platform-subset"), "{}", ran.out);
    let index = reader(&host, "two").manifest(&"v1".parse().unwrap()).await.unwrap();
    assert_eq!(index.children().len(), 2);

    let both = ["copy", two, "--platform-mode", "single", "--to", &host];
    let apart = ferry.run(&[&both[..], &["--naming", "{basename}-{platform}", &source]].concat()).await.ok();
    assert!(
        apart.out.contains("app-linux-amd64:v1") && apart.out.contains("app-linux-arm64:v1"),
        "{}",
        apart.out
    );
    let alone = reader(&host, "app-linux-arm64").manifest(&"v1".parse().unwrap()).await.unwrap();
    assert!(alone.children().is_empty());
    let clash = ferry.run(&[&both[..], &[&source]].concat()).await;
    assert_eq!(clash.code, Some(2), "{clash:?}");
    let none = ferry.run(&["copy", "--platform", "riscv64", &source, &target("none")]).await;
    assert_eq!(none.code, Some(4));
    assert!(none.out.contains("it has no linux/riscv64; it has linux/amd64, linux/arm64"), "{}", none.out);
    assert_eq!(none.err, "", "the error says all");
    let sparse = ferry.run(&["copy", two, "--platform-mode", "sparse", &source, &target("sparse")]).await;
    assert_eq!(sparse.code, Some(4));
    assert!(sparse.out.contains("use rewrite"), "{}", sparse.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn layouts_named_alone_clash_before_anything_moves() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    let images = [named("a", "v1", 4), named("b", "v1", 5)];
    push(&images, &from.host()).await;
    for name in ["a", "b"] {
        let (source, layout) = (format!("{}/{name}:v1", from.host()), format!("oci:{name}:v1"));
        ferry.run(&["copy", &source, &layout]).await.ok();
    }
    let target = format!("{}/x", to.host());
    let list = format!("oci:a {target}\noci:b {target}\n");
    let ran = fed(&ferry, &["copy", "--from-file", "-"], &list).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("would both become"), "{}", ran.err);
    let listed = remote(&to.host()).repositories("", Default::default()).await.unwrap();
    assert!(listed.items.is_empty(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_list_its_tags_ends_the_run_before_anything_moves() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    push(&[named("a", "v1", 4)], &from.host()).await;
    let [there, missing] = ["a", "missing"].map(|name| format!("{}/{name}", from.host()));
    let ran = ferry.run(&["copy", "--all-tags", "--to", &to.host(), &there, &missing]).await;
    assert_eq!(ran.code, Some(4), "what was typed may be right: {ran:?}");
    assert!(ran.err.contains(&missing) && ran.err.contains("check the name"), "{}", ran.err);
    let listed = remote(&to.host()).repositories("", Default::default()).await.unwrap();
    assert!(listed.items.is_empty(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_get_their_names_if_images_are_in_them() {
    let ferry = Ferry::new();
    let from = ferry.serve(&ferry.path("from"), 0).await;
    push(&[named("a", "v1", 4)], &from.host()).await;
    let host = from.host();
    let list = format!("{host}/a:v1 oci-archive:a.tar\n{host}/missing:v1 oci-archive:b.tar\n");
    let ran = fed(&ferry, &["copy", "--from-file", "-"], &list).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ferry.path("a.tar").exists(), "{ran:?}");
    assert!(!ferry.path("b.tar").exists(), "an archive of nothing is none");

    // All is there, and yet it is not what docker load reads.
    let ran = ferry.run(&["copy", &format!("{host}/a:v1"), "docker-archive:a.tar"]).await.ok();
    assert!(ran.out.contains("1 unchanged"), "{}", ran.out);
    let archive = std::fs::read(ferry.path("a.tar")).unwrap();
    assert!(archive.windows(13).any(|bytes| bytes == b"manifest.json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_not_told_for_an_archive_that_is_not_finished() {
    let ferry = Ferry::new();
    let from = ferry.serve(&ferry.path("from"), 0).await;
    push(&[named("a", "v1", 4)], &from.host()).await;
    let source = format!("{}/a:v1", from.host());
    let arguments = ["copy", "--commands", "podman", &source, "docker-archive:a.tar"];
    let dry = ferry.run(&[&arguments[..], &["--dry-run"]].concat()).await.ok();
    assert!(!dry.out.contains("podman load") && !ferry.path("a.tar").exists(), "{}", dry.out);
    let ran = ferry.run(&arguments).await.ok();
    assert!(ran.out.contains("podman load -i a.tar") && ferry.path("a.tar").exists(), "{}", ran.out);
}
