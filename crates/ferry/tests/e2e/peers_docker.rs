//! Docker itself: what ferry wrote, loaded; what it saved, read; and pulls of what ferry copied.

use std::collections::BTreeMap;

use ferry_oci::{Content, Digest};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::peers::{DockerRegistry, Engine};

use crate::harness::{Ferry, push};
use crate::peers_archives::commands;

fn single(seed: u64) -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .shared([Layer::of_files(&[("etc/shared", b"shared by all")])])
        .platform("linux/amd64", [Layer::random(seed, 20_000), Layer::of_files(&[("etc/b", b"b")])])
        .build_single()
}

fn several(types: MediaTypes) -> Image {
    ImageBuilder::new(types)
        .shared([Layer::of_files(&[("etc/shared", b"shared by all")])])
        .platform("linux/s390x", [Layer::random(50, 20_000)])
        .platform("linux/amd64", [Layer::random(51, 20_000)])
        .platform("linux/arm64/v8", [Layer::random(52, 20_000)])
        .attestations()
        .build()
}

fn named(repository: &str, tag: &str, image: Image) -> NamedImage {
    NamedImage { repository: repository.parse().unwrap(), tag: tag.parse().unwrap(), image }
}

/// What Docker calls the image of amd64: the digest of its configuration.
fn id(image: &Image) -> String {
    let of = |at: &ferry_oci::Manifest| match at.content() {
        Content::Image { config, .. } => config.digest,
        Content::Index(_) => panic!("an index has no configuration"),
    };
    let children = image.root.children();
    let amd64 =
        children.iter().find(|child| child.platform.as_ref().is_some_and(|p| p.architecture == "amd64"));
    let digest: Digest = match amd64 {
        Some(child) => of(image.manifests.iter().find(|m| m.digest() == child.digest).unwrap()),
        None => of(&image.root),
    };
    digest.to_string()
}

/// What Docker printed; it must have succeeded.
async fn docker(engine: &Engine, script: &str) -> String {
    let output = engine.shell(script).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{script}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// All names of images that Docker has, with their ids.
async fn names(engine: &Engine) -> BTreeMap<String, String> {
    let format = "docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'";
    let pair = |line: &str| {
        let (name, id) = line.split_once(' ').unwrap();
        (name.to_owned(), id.to_owned())
    };
    docker(engine, format).await.lines().map(pair).collect()
}

fn expected(names: &[(&str, &Image)]) -> BTreeMap<String, String> {
    names.iter().map(|(name, image)| ((*name).to_owned(), id(image))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ferry_wrote_is_loaded() {
    let engine = Engine::dockerd().await.unwrap();
    let ferry = Ferry::new();
    let outside = ferry.serve(&ferry.path("outside"), 0).await;
    let (one, oci, list) = (single(1), several(MediaTypes::Oci), several(MediaTypes::Docker));
    let images =
        [named("one", "v1", one.clone()), named("oci", "v1", oci.clone()), named("list", "v1", list.clone())];
    push(&images, &outside.host()).await;
    let names_of = [
        ("quay.io/team/one:v1", "one", &one),
        ("quay.io/team/one:stable", "one", &one),
        ("alpine:3", "one", &one),
        ("grafana/oci:v1", "oci", &oci),
        ("localhost:5000/a/b/list:v1", "list", &list),
    ];
    let line = |(name, from, _): &(&str, &str, &Image)| {
        format!("{}/{from}:v1 docker-archive:my images.tar:{name}\n", outside.host())
    };
    // A path with a space cannot stand in a list.
    let lines: String = names_of.iter().map(|entry| line(entry).replace("my images", "images")).collect();
    std::fs::write(ferry.path("list"), lines).unwrap();
    let arguments = ["copy", "--platform", "amd64", "--platform-mode", "sparse", "--commands", "docker"];
    let ran = ferry.run(&[&arguments[..], &["--from-file", "list"]].concat()).await.ok();
    let load = commands(&ran.out);
    assert_eq!(load, "docker load -i images.tar");
    docker(&engine, &format!("cd {}\n{load}", ferry.home.path().display())).await;
    let wanted: Vec<(&str, &Image)> = names_of.iter().map(|(name, _, image)| (*name, *image)).collect();
    assert_eq!(names(&engine).await, expected(&wanted));

    // With all platforms of it: what is loaded is that of this machine. The quoted name is understood.
    docker(&engine, "docker rmi --force $(docker images --quiet --no-trunc | sort -u)").await;
    let from = format!("{}/oci:v1", outside.host());
    let to = "docker-archive:my images.tar:quay.io/team/all:v2";
    let ran = ferry.run(&["copy", "--commands", "docker", &from, to]).await.ok();
    docker(&engine, &format!("cd {}\n{}", ferry.home.path().display(), commands(&ran.out))).await;
    let loaded = names(&engine).await;
    assert_eq!(loaded.keys().collect::<Vec<_>>(), ["quay.io/team/all:v2"]);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(loaded, expected(&[("quay.io/team/all:v2", &oci)]));
    }
}

/// What was left out because an earlier archive has it is there after that one was loaded.
#[tokio::test(flavor = "multi_thread")]
async fn an_incremental_archive_is_loaded_after_the_full_one() {
    let engine = Engine::dockerd().await.unwrap();
    let ferry = Ferry::new();
    let outside = ferry.serve(&ferry.path("outside"), 0).await;
    let (old, new) = (single(1), single(2));
    push(&[named("app", "v1", old.clone()), named("app", "v2", new.clone())], &outside.host()).await;
    let from = |tag: &str| format!("{}/app:{tag}", outside.host());
    ferry.run(&["copy", &from("v1"), "docker-archive:full.tar:quay.io/app:v1"]).await.ok();
    let arguments = ["copy", "--except", "full.tar", &from("v2"), "docker-archive:step.tar:quay.io/app:v2"];
    ferry.run(&arguments).await.ok();
    let home = ferry.home.path().display();
    docker(&engine, &format!("cd {home}\ndocker load -i full.tar")).await;
    let load = engine.shell(&format!("cd {home}\ndocker load -i step.tar")).await.unwrap();
    assert!(load.status.success(), "{load:?}");
    assert_eq!(names(&engine).await, expected(&[("quay.io/app:v1", &old), ("quay.io/app:v2", &new)]));
}

/// What Docker before 25 saves is no image layout: layers are uncompressed, and shared ones are links.
#[tokio::test(flavor = "multi_thread")]
async fn what_docker_saved_comes_back_from_a_registry() {
    let engine = Engine::dockerd().await.unwrap();
    let ferry = Ferry::new();
    let outside = ferry.serve(&ferry.path("outside"), 0).await;
    let images = [single(1), single(2), several(MediaTypes::Docker)];
    let tags = [named("app", "v1", images[0].clone()), named("app", "v2", images[1].clone())];
    push(&[&tags[..], &[named("other", "v1", images[2].clone())]].concat(), &outside.host()).await;
    let host = outside.host();
    let script = format!(
        "for image in app:v1 app:v2 other:v1; do docker pull --platform linux/amd64 {host}/$image; done\n\
         docker tag {host}/app:v1 quay.io/team/app:v1\ndocker tag {host}/app:v1 quay.io/team/again:x\n\
         docker tag {host}/app:v2 quay.io/team/app:v2\ndocker tag {host}/other:v1 alpine:3\n\
         docker save -o {home}/saved.tar quay.io/team/app:v1 quay.io/team/again:x quay.io/team/app:v2 alpine:3\n\
         tar -tvf {home}/saved.tar",
        home = ferry.home.path().display()
    );
    let listed = docker(&engine, &script).await;
    assert!(!listed.contains("index.json"), "the old form: {listed}");
    assert!(listed.contains("/layer.tar -> ../"), "with links: {listed}");

    let registry = DockerRegistry::start().await.unwrap();
    let to = format!("{}/mirror", registry.host());
    let copy = ["copy", "--to", &to, "--commands", "docker", "docker-archive:saved.tar"];
    let ran = ferry.run(&copy).await.ok();
    assert!(ran.out.contains("4 images: 4 copied"), "{}", ran.out);
    docker(&engine, "docker rmi --force $(docker images --quiet --no-trunc | sort -u)").await;
    docker(&engine, &commands(&ran.out)).await;
    let of = |name: &str| format!("{to}/{name}");
    let wanted = [
        (of("team/app:v1"), &images[0]),
        (of("team/again:x"), &images[0]),
        (of("team/app:v2"), &images[1]),
        (of(concat!("library", "/alpine:3")), &images[2]),
    ];
    let wanted: Vec<(&str, &Image)> = wanted.iter().map(|(name, image)| (name.as_str(), *image)).collect();
    assert_eq!(names(&engine).await, expected(&wanted), "the same images as before they were saved");
    let again = ferry.run(&copy).await.ok();
    assert!(again.out.contains("4 images: 4 unchanged"), "{}", again.out);

    // One of them, by its name, into an archive that Docker loads again.
    let one = "docker-archive:saved.tar:quay.io/team/app:v2";
    ferry.run(&["copy", "--to", "docker-archive:one.tar", one]).await.ok();
    docker(&engine, "docker rmi --force $(docker images --quiet --no-trunc | sort -u)").await;
    docker(&engine, &format!("docker load -i {}", ferry.path("one.tar").display())).await;
    assert_eq!(names(&engine).await, expected(&[("quay.io/team/app:v2", &images[1])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ferry_copied_is_pulled_by_the_printed_commands() {
    let engine = Engine::dockerd().await.unwrap();
    let ferry = Ferry::new();
    let outside = ferry.serve(&ferry.path("outside"), 0).await;
    let (one, list) = (single(1), several(MediaTypes::Docker));
    push(&[named("one", "v1", one.clone()), named("list", "v1", list.clone())], &outside.host()).await;
    let (registry, served) =
        (DockerRegistry::start().await.unwrap(), ferry.serve(&ferry.path("inside"), 0).await);
    let host = outside.host();
    let (from_one, from_list) = (format!("{host}/one:v1"), format!("{host}/list:v1"));
    for to in [registry.host().to_string(), served.host()] {
        let arguments = ["copy", "--commands", "docker", "--to", &to, &from_one, &from_list];
        let ran = ferry.run(&arguments).await.ok();
        docker(&engine, &commands(&ran.out)).await;
        let (at_one, at_list) = (format!("{to}/one:v1"), format!("{to}/list:v1"));
        let wanted = [(&*from_one, &one), (&*from_list, &list), (&*at_one, &one), (&*at_list, &list)];
        assert_eq!(names(&engine).await, expected(&wanted));
        docker(&engine, "docker rmi --force $(docker images --quiet --no-trunc | sort -u)").await;
    }
    // And what Docker pushes to ferry is what ferry copies.
    let script = format!(
        "docker pull {from_one}\ndocker tag {from_one} {inside}/pushed:v1\ndocker push {inside}/pushed:v1",
        inside = served.host()
    );
    docker(&engine, &script).await;
    let (from, to) = (format!("{}/pushed:v1", served.host()), format!("{}/back:v1", registry.host()));
    ferry.run(&["copy", &from, &to]).await.ok();
    docker(&engine, "docker rmi --force $(docker images --quiet --no-trunc | sort -u)").await;
    docker(&engine, &format!("docker pull {to}")).await;
    assert_eq!(names(&engine).await, expected(&[(&*to, &one)]));
}
