//! Archives and directories between ferry and skopeo, podman and umoci.

use std::collections::BTreeSet;

use ferry_oci::{Content, Digest, Manifest};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::peers;
use tokio::process::Command;

use crate::harness::{Ferry, Ran, Served, check, push};

fn image(seed: u64, types: MediaTypes) -> Image {
    ImageBuilder::new(types)
        .shared([Layer::of_files(&[("etc/shared", b"shared")])])
        .platform("linux/amd64", [Layer::random(seed, 9000), Layer::of_files(&[("etc/a", b"a")])])
        .platform("linux/arm64/v8", [Layer::random(seed + 1, 9000)])
        .build()
}

fn single(seed: u64) -> Image {
    ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::random(seed, 9000), Layer::of_files(&[("etc/a", b"a")])])
        .build_single()
}

/// A user of ferry, a registry, and images in it.
pub struct Scene {
    pub ferry: Ferry,
    pub outside: Served,
    pub images: [NamedImage; 3],
}

impl Scene {
    pub async fn new() -> Self {
        let ferry = Ferry::new();
        let outside = ferry.serve(&ferry.path("outside"), 0).await;
        let of = |repository: &str, tag: &str, image| NamedImage {
            repository: repository.parse().unwrap(),
            tag: tag.parse().unwrap(),
            image,
        };
        let images = [
            of("team/app", "v1", image(10, MediaTypes::Oci)),
            of("team/list", "v2", image(20, MediaTypes::Docker)),
            of("one", "v3", single(30)),
        ];
        push(&images, &outside.host()).await;
        // podman's storage, for commands that say nothing of it.
        let home = ferry.home.path().display();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{home}/podman\"\nrunroot = \"{home}/podman-run\"\n"
        );
        std::fs::write(ferry.path("storage.conf"), storage).unwrap();
        std::fs::write(ferry.path("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
            .unwrap();
        Self { ferry, outside, images }
    }

    /// Writes all images under names at quay.io.
    pub async fn write(&self, target: &str, more: &[&str]) -> Ran {
        let line = |named: &NamedImage| {
            let NamedImage { repository, tag, .. } = named;
            format!("{}/{repository}:{tag} {target}:quay.io/{repository}:{tag}\n", self.outside.host())
        };
        std::fs::write(self.ferry.path("list"), self.images.iter().map(line).collect::<String>()).unwrap();
        self.ferry.run(&[&["copy", "--from-file", "list"], more].concat()).await.ok()
    }

    /// What a shell printed in the user's home; it must have succeeded.
    async fn shell(&self, script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.ferry.home.path()).env("TMPDIR", self.ferry.home.path());
        command.env("CONTAINERS_STORAGE_CONF", self.ferry.path("storage.conf"));
        let output = command.current_dir(self.ferry.home.path()).kill_on_drop(true).output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{script}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    async fn skopeo(&self, arguments: &[&str]) -> Vec<u8> {
        let output = peers::skopeo(arguments).await.unwrap();
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn path(&self, file: &str) -> String {
        self.ferry.path(file).display().to_string()
    }

    /// The images below another prefix, as the inside has them.
    pub async fn arrived(&self, inside: &Served, prefix: &str) {
        check(&self.images, &inside.host(), prefix).await;
    }
}

/// The configuration of the image for amd64, which is what podman calls an image.
fn id(image: &Image) -> Digest {
    let of = |manifest: &Manifest| match manifest.content() {
        Content::Image { config, .. } => config.digest,
        Content::Index(_) => panic!("an index has no configuration"),
    };
    match image.root.children().first() {
        Some(child) => of(image.manifests.iter().find(|m| m.digest() == child.digest).unwrap()),
        None => of(&image.root),
    }
}

/// The commands that ferry printed.
pub fn commands(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert!(!lines.is_empty(), "{printed}");
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_finds_every_image_of_ferry() {
    let scene = Scene::new().await;
    scene.write("oci-archive:all.tar", &[]).await;
    scene.write("docker-archive:docker.tar", &["--platform", "amd64", "--platform-mode", "sparse"]).await;
    for named in &scene.images {
        let (tag, repository) = (&named.tag, &named.repository);
        let written = format!("oci-archive:{}:{tag}", scene.path("all.tar"));
        // In a layout it does not look at Docker's media types.
        if repository.as_str() != "team/list" {
            let raw = scene.skopeo(&["inspect", "--raw", &written]).await;
            assert_eq!(raw, named.image.root.bytes()[..], "{repository}");
        }
        let saved = format!("docker-archive:{}:quay.io/{repository}:{tag}", scene.path("docker.tar"));
        let config = scene.skopeo(&["inspect", "--raw", "--config", &saved]).await;
        assert_eq!(Digest::sha256(&config), id(&named.image), "{repository}");
    }
    for named in [&scene.images[0], &scene.images[2]] {
        let NamedImage { repository, tag, .. } = named;
        let from = format!("{}/{repository}:{tag}", scene.outside.host());
        scene.ferry.run(&["copy", &from, "oci:layout"]).await.ok();
        let raw = scene.skopeo(&["inspect", "--raw", &format!("oci:{}:{tag}", scene.path("layout"))]).await;
        assert_eq!(raw, named.image.root.bytes()[..], "{repository}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ferry_finds_every_image_of_skopeo() {
    let scene = Scene::new().await;
    let inside = scene.ferry.serve(&scene.ferry.path("inside"), 0).await;
    let to = |prefix: &str| format!("{}/{prefix}", inside.host());
    for named in &scene.images {
        let NamedImage { repository, tag, .. } = named;
        let from = format!("docker://{}/{repository}:{tag}", scene.outside.host());
        let layout = format!("oci:{}:quay.io/{repository}:{tag}", scene.path("layout"));
        let copy = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &from];
        if repository.as_str() != "team/list" {
            scene.skopeo(&[&copy[..], &[&layout]].concat()).await;
        }
    }
    // skopeo does not put Docker's media types into a layout.
    scene.shell("tar -C layout -cf theirs.tar .").await;
    for source in ["oci-archive:theirs.tar", "oci:layout"] {
        let prefix = source.split(':').next().unwrap();
        let ran = scene.ferry.run(&["copy", "--to", &to(prefix), source]).await.ok();
        assert!(ran.out.contains("2 images: 2 copied"), "{}", ran.out);
        let images = [scene.images[0].clone(), scene.images[2].clone()];
        check(&images, &inside.host(), &format!("{prefix}/")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_loads_by_the_printed_commands() {
    let scene = Scene::new().await;
    let sparse = ["--platform", "amd64", "--platform-mode", "sparse", "--commands", "podman"];
    let ran = scene.write("docker-archive:docker.tar", &sparse).await;
    scene.shell(&commands(&ran.out)).await;
    let format = "podman images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'";
    let listed = scene.shell(format).await;
    for NamedImage { repository, tag, image } in &scene.images {
        let line = format!("quay.io/{repository}:{tag} {}", id(image));
        assert!(listed.lines().any(|found| found == line), "{line}\n{listed}");
    }
    // It loads a layout only if that holds one image.
    scene.shell("podman rmi --all --force").await;
    let from = format!("{}/one:v3", scene.outside.host());
    scene.ferry.run(&["copy", &from, "oci-archive:one.tar:quay.io/one:v3"]).await.ok();
    scene.shell("podman load -i one.tar").await;
    let listed = scene.shell(format).await;
    assert_eq!(listed.trim_end(), format!("quay.io/one:v3 {}", id(&scene.images[2].image)));
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_saves_several_images_at_once() {
    let scene = Scene::new().await;
    let inside = scene.ferry.serve(&scene.ferry.path("inside"), 0).await;
    scene.write("docker-archive:docker.tar", &["--platform", "amd64", "--platform-mode", "sparse"]).await;
    let names: Vec<String> =
        scene.images.iter().map(|named| format!("quay.io/{}:{}", named.repository, named.tag)).collect();
    let names = names.join(" ");
    scene
        .shell(&format!(
            "podman load -i docker.tar\npodman tag quay.io/one:v3 quay.io/one:again\n\
             podman save --multi-image-archive -o saved.tar {names} quay.io/one:again"
        ))
        .await;
    let to = format!("{}/saved", inside.host());
    let ran = scene.ferry.run(&["copy", "--to", &to, "docker-archive:saved.tar"]).await.ok();
    assert!(ran.out.contains("4 images: 4 copied"), "{}", ran.out);
    scene
        .shell(&format!(
            "podman rmi --all --force\n\
             for image in team/app:v1 team/list:v2 one:v3 one:again; do podman pull --tls-verify=false {to}/$image; done"
        ))
        .await;
    let listed = scene.shell("podman images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}'").await;
    for NamedImage { repository, tag, image } in &scene.images {
        let line = format!("{to}/{repository}:{tag} {}", id(image));
        assert!(listed.lines().any(|found| found == line), "{line}\n{listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn umoci_and_ferry_change_one_layout() {
    let scene = Scene::new().await;
    let inside = scene.ferry.serve(&scene.ferry.path("inside"), 0).await;
    let one = &scene.images[2];
    let from = format!("{}/one:v3", scene.outside.host());
    scene.ferry.run(&["copy", &from, "oci:layout"]).await.ok();
    let script = "umoci unpack --rootless --image layout:v3 bundle\ntest -f bundle/rootfs/etc/a\n\
                  echo more > bundle/rootfs/etc/more\numoci repack --image layout:v4 bundle";
    scene.shell(script).await;
    let to = format!("{}/umoci", inside.host());
    scene.ferry.run(&["copy", "--all-tags", "oci:layout", &to]).await.ok();
    let same = NamedImage { repository: "umoci".parse().unwrap(), ..one.clone() };
    check(&[same], &inside.host(), "").await;
    let back = format!("{}/umoci:v4", inside.host());
    scene.ferry.run(&["copy", &back, "oci:back"]).await.ok();
    scene.shell("umoci unpack --rootless --image back:v4 again\ngrep more again/rootfs/etc/more").await;

    // An archive, unpacked and packed by others.
    scene.write("oci-archive:all.tar", &[]).await;
    let script =
        "mkdir all\ntar -C all -xf all.tar\numoci ls --layout all\ntar -C all -cf packed.tar $(ls all)";
    let listed = scene.shell(script).await;
    assert_eq!(listed.lines().collect::<BTreeSet<_>>(), ["v1", "v2", "v3"].into());
    let to = format!("{}/packed", inside.host());
    scene.ferry.run(&["copy", "--to", &to, "oci-archive:packed.tar"]).await.ok();
    scene.arrived(&inside, "packed/").await;
}
