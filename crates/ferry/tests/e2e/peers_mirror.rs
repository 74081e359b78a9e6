//! A mirror between registries and clients that nobody here wrote: Debian's docker-registry, skopeo and podman.

use std::path::Path;
use std::process::Stdio;

use ferry_oci::Digest;
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::peers::{self, DockerRegistry};
use tokio::process::Command;

use crate::harness::{Ferry, Served, push};

/// A mirror of a docker-registry that holds an index of two platforms.
struct Mirrored {
    ferry: Ferry,
    upstream: DockerRegistry,
    mirror: Served,
    image: NamedImage,
}

impl Mirrored {
    async fn new() -> Self {
        let ferry = Ferry::new();
        let upstream = DockerRegistry::start().await.unwrap();
        let layer = |name: &'static str| Layer::of_files(&[(name, &[7; 100_000])]);
        let image = ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [layer("etc/amd64")])
            .platform("linux/arm64/v8", [layer("etc/arm64")])
            .build();
        let image = NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image };
        let host = upstream.host().to_string();
        push(std::slice::from_ref(&image), &host).await;
        let config = format!(
            "serve:\n  mirror:\n    upstreams: [\"{host}\"]\n    default: none\n    default_at: {{localhost: \"{host}\"}}\n    freshness: {{moving: 0s}}\n"
        );
        std::fs::write(ferry.path("mirror.yaml"), config).unwrap();
        let arguments = ["--config", "mirror.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "cache"];
        let mirror = ferry.serve_with(&arguments).await;
        Self { ferry, upstream, mirror, image }
    }

    /// What the image is called with the upstream in front.
    fn by_prefix(&self) -> String {
        format!("{}/{}/team/app", self.mirror.host(), self.upstream.host().as_str().replace(':', "-"))
    }
}

/// Pulls all platforms and compares the root.
async fn skopeo(name: &str, to: &Path, root: Digest) {
    let (from, to) = (format!("docker://{name}:v1"), format!("oci:{}:v1", to.display()));
    let arguments = ["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &from, &to];
    let output = peers::skopeo(&arguments).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = peers::skopeo(["inspect", "--raw", &to]).await.unwrap();
    assert_eq!(Digest::sha256(&output.stdout), root, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_cold_and_warm_and_without_the_upstream() {
    let Mirrored { ferry, upstream, mirror, image } = Mirrored::new().await;
    let root = image.image.root.digest();
    let prefix = upstream.host().as_str().replace(':', "-");
    let by_prefix = format!("{}/{prefix}/team/app", mirror.host());
    let transparent = format!("localhost:{}/team/app", mirror.address.port());
    skopeo(&by_prefix, &ferry.path("cold"), root).await;
    skopeo(&transparent, &ferry.path("warm"), root).await;
    drop(upstream);
    skopeo(&by_prefix, &ferry.path("alone"), root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_pulls_through_a_mirror_that_it_is_configured_with() {
    let at = Mirrored::new().await;
    // The registry itself cannot be reached, so the mirror is what answers.
    let conf = format!(
        "[[registry]]\nlocation = \"registry.corp.invalid\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        at.by_prefix().trim_end_matches("/team/app")
    );
    std::fs::write(at.ferry.path("registries.conf"), conf).unwrap();
    let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
    std::fs::write(at.ferry.path("policy.json"), policy).unwrap();
    let [root, run, policy] =
        ["root", "run", "policy.json"].map(|name| at.ferry.path(name).display().to_string());
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--storage-driver", "vfs", "--root", &root, "--runroot", &run]).args(arguments);
        command.env("CONTAINERS_REGISTRIES_CONF", at.ferry.path("registries.conf"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    let name = "registry.corp.invalid/team/app:v1";
    for _ in ["cold", "warm"] {
        let pull = ["pull", "--signature-policy", &policy, "--platform", "linux/amd64", name];
        let output = podman(&pull).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let output = podman(&["image", "rm", "--force", name]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
