//! Archives that ferry wrote and others read, and the other way round.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod peers {
    use std::ffi::OsStr;
    use std::path::Path;
    use std::sync::Arc;

    use ferry_layout::{ArchiveOptions, ImageName, Layout};
    use ferry_oci::{ImageReference, Platform, Reference, Tag};
    use ferry_store::{Repository, Scope, Store};
    use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes, verify};
    use ferry_testkit::peers::skopeo;

    const APP: &str = "quay.io/team/app";

    fn name(text: &str) -> ImageName {
        ImageName::from(&text.parse::<ImageReference>().unwrap())
    }

    fn tag(text: &str) -> Tag {
        text.parse().unwrap()
    }

    fn image() -> Image {
        ImageBuilder::new(MediaTypes::Oci)
            .shared([Layer::of_files(&[("etc/shared", b"shared")])])
            .platform("linux/amd64", [Layer::of_files(&[("etc/a", b"a")])])
            .platform("linux/arm64/v8", [Layer::of_files(&[("etc/b", b"b")])])
            .build()
    }

    fn reader(layout: &Layout, of: Option<&str>) -> Arc<dyn Repository> {
        layout.named(of.map(name).as_ref()).repository(&Scope::Hosted, &"any".parse().unwrap())
    }

    async fn write(path: &Path, image: &Image, docker: Option<Platform>) {
        let layout = Layout::create_archive(path, ArchiveOptions { docker, except: Vec::new() }).unwrap();
        let named = layout.named(Some(&name(APP)));
        let writer = named.writable(&Scope::Hosted, &"any".parse().unwrap()).unwrap();
        image.push_to(&*writer, Some(&tag("v1"))).await.unwrap();
        assert!(layout.finish().unwrap());
    }

    fn amd64() -> Option<Platform> {
        let (os, architecture) = ("linux".to_owned(), "amd64".to_owned());
        Some(Platform { os, architecture, os_version: None, variant: None })
    }

    async fn run(args: &[&str]) -> Vec<u8> {
        let output = skopeo(args).await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn program<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
        let output = std::process::Command::new(program).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[tokio::test]
    async fn skopeo_reads_archives_of_ferry() {
        let dir = tempfile::tempdir().unwrap();
        let image = image();
        let file = dir.path().join("images.tar");
        write(&file, &image, amd64()).await;
        let file = file.display();
        let raw = run(&["inspect", "--raw", &format!("oci-archive:{file}:v1")]).await;
        assert_eq!(raw, image.root.bytes()[..]);
        let copy = dir.path().join("copy");
        let (source, target) = (format!("oci-archive:{file}:v1"), format!("oci:{}:v1", copy.display()));
        run(&["copy", "--all", "--preserve-digests", &source, &target]).await;
        let copied = reader(&Layout::open(&copy).unwrap(), None);
        let found = verify(&*copied, &Reference::Tag(tag("v1"))).await.unwrap();
        assert!(found.manifests.contains_key(&image.root.digest()));

        let saved = format!("docker-archive:{file}:{APP}:v1");
        let inspected = String::from_utf8(run(&["inspect", "--config", &saved]).await).unwrap();
        assert!(inspected.contains("\"amd64\""), "{inspected}");
        let unpacked = dir.path().join("unpacked");
        run(&["copy", &saved, &format!("dir:{}", unpacked.display())]).await;
        assert!(unpacked.join("manifest.json").exists());
    }

    #[tokio::test]
    async fn ferry_reads_archives_of_skopeo() {
        let dir = tempfile::tempdir().unwrap();
        let image = image();
        let file = dir.path().join("images.tar");
        write(&file, &image, None).await;
        let source = format!("oci-archive:{}:v1", file.display());
        let theirs = dir.path().join("theirs.tar");
        run(&[
            "copy",
            "--all",
            "--preserve-digests",
            &source,
            &format!("oci-archive:{}:v1", theirs.display()),
        ])
        .await;
        let found =
            verify(&*reader(&Layout::open_archive(&theirs).unwrap(), None), &Reference::Tag(tag("v1"))).await;
        assert!(found.unwrap().manifests.contains_key(&image.root.digest()));
        // A base that others wrote is added to.
        write(&theirs, &image, None).await;
        assert_eq!(Layout::open_archive(&theirs).unwrap().images().unwrap().len(), 2);

        let named = dir.path().join("named.tar");
        let target = format!("oci-archive:{}:{APP}:v2", named.display());
        run(&["copy", "--all", &source, &target]).await;
        let layout = Layout::open_archive(&named).unwrap();
        verify(&*reader(&layout, Some(APP)), &Reference::Tag(tag("v2"))).await.unwrap();

        let saved = dir.path().join("saved.tar");
        let target = format!("docker-archive:{}:{APP}:v3", saved.display());
        run(&["copy", "--override-arch", "amd64", &source, &target]).await;
        let layout = Layout::open_archive(&saved).unwrap();
        let found = verify(&*reader(&layout, Some(APP)), &Reference::Tag(tag("v3"))).await.unwrap();
        assert_eq!(found.blobs.len(), 3);
    }

    #[tokio::test]
    async fn podman_loads_and_saves() {
        let dir = tempfile::tempdir().unwrap();
        let [root, runroot] = ["root", "run"].map(|part| dir.path().join(part).display().to_string());
        let podman = |args: &[&str]| {
            let own = ["--storage-driver", "vfs", "--root", &root, "--runroot", &runroot];
            program("podman", &[&own[..], args].concat())
        };
        let image = image();
        let full = format!("{APP}:v1");
        for docker in [amd64(), None] {
            let file = dir.path().join(if docker.is_some() { "docker.tar" } else { "oci.tar" });
            write(&file, &image, docker).await;
            let file = file.display().to_string();
            let said = podman(&["load", "--input", &file]);
            assert!(said.contains("Loaded image"), "{said}");
            podman(&["image", "exists", &full]);
            for format in ["docker-archive", "oci-archive"] {
                let saved = dir.path().join(format!("{format}.tar"));
                podman(&["save", "--format", format, "--output", saved.to_str().unwrap(), &full]);
                let layout = Layout::open_archive(&saved).unwrap();
                let found = verify(&*reader(&layout, Some(APP)), &Reference::Tag(tag("v1"))).await.unwrap();
                assert_eq!(found.blobs.len(), 3, "{format}");
                std::fs::remove_file(&saved).unwrap();
            }
            podman(&["image", "rm", "--force", &full]);
        }
    }

    #[tokio::test]
    async fn umoci_unpacks_a_layout_of_an_archive() {
        let dir = tempfile::tempdir().unwrap();
        let (file, layout) = (dir.path().join("images.tar"), dir.path().join("layout"));
        let image = ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [Layer::of_files(&[("etc/a", b"a")])])
            .build_single();
        write(&file, &image, None).await;
        std::fs::create_dir(&layout).unwrap();
        program("tar", &["-xf".as_ref(), file.as_os_str(), "-C".as_ref(), layout.as_os_str()]);
        let of = format!("{}:v1", layout.display());
        let bundle = dir.path().join("bundle").display().to_string();
        program("umoci", &["unpack", "--rootless", "--image", &of, &bundle]);
        assert_eq!(std::fs::read(dir.path().join("bundle/rootfs/etc/a")).unwrap(), b"a");

        // What umoci changed and tar packed.
        let args = ["config", "--image", &of, "--tag", "v2", "--author", "umoci"];
        program("umoci", &args);
        let packed = dir.path().join("packed.tar");
        let args: [&OsStr; 5] =
            ["-cf".as_ref(), packed.as_os_str(), "-C".as_ref(), layout.as_os_str(), ".".as_ref()];
        program("tar", &args);
        let read = reader(&Layout::open_archive(&packed).unwrap(), None);
        verify(&*read, &Reference::Tag(tag("v2"))).await.unwrap();
    }
}
