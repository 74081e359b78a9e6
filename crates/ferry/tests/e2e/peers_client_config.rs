//! What `ferry client-config` and `ferry resolve` print is used by those that it is printed for: Debian's podman, containerd
//! and dockerd.

use std::path::Path;
use std::process::Stdio;

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use ferry_testkit::peers::Engine;
use tokio::process::Command;

use crate::harness::{Ferry, Served, push};

/// A mirror of Docker Hub and another registry which has seen an image, and whose upstream is gone: only it can answer.
struct Scene {
    ferry: Ferry,
    mirror: Served,
}

/// A registry that nobody can reach.
const REGISTRY: &str = "registry.corp.invalid";

impl Scene {
    async fn new() -> Self {
        let ferry = Ferry::new();
        let upstream = ferry.serve(&ferry.path("upstream"), 0).await;
        let layer = Layer::of_files(&[("etc/motd", b"hello")]);
        let image = ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [layer]).build();
        let named = NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image };
        push(&[named], &upstream.host()).await;
        let host = upstream.host();
        let config = format!(
            "registries:\n  docker.io: {{mirrors: [\"{host}\"]}}\n  {REGISTRY}: {{mirrors: [\"{host}\"]}}\n\
             serve: {{mirror: {{upstreams: [docker.io, {REGISTRY}]}}}}\n"
        );
        std::fs::write(ferry.path("ferry.yaml"), config).unwrap();
        let arguments = ["--config", "ferry.yaml", "serve", "--listen", "127.0.0.1:0", "--storage", "cache"];
        let mirror = ferry.serve_with(&arguments).await;
        for registry in ["docker.io", REGISTRY] {
            let source = format!("{}/{registry}/team/app:v1", mirror.host());
            ferry.run(&["copy", &source, &format!("oci:warm-{registry}")]).await.ok();
        }
        upstream.kill().await;
        Self { ferry, mirror }
    }

    /// The configuration for a client.
    async fn config(&self, client: &str, more: &[&str]) -> String {
        let url = format!("http://{}", self.mirror.host());
        let arguments =
            [&["--config", "ferry.yaml", "client-config", client, "--mirror", &url], more].concat();
        self.ferry.run(&arguments).await.ok().out
    }

    /// The commands with which a tool pulls an image in a mode.
    async fn command(&self, tool: &str, image: &str, mode: &str) -> String {
        let url = format!("http://{}", self.mirror.host());
        let arguments = ["--config", "ferry.yaml", "resolve", image, "--mirror", &url, "--mode", mode];
        let out = self.ferry.run(&arguments).await.ok().out;
        let line = out.lines().map(str::trim).find(|line| line.starts_with(&format!("{tool} ")));
        line.unwrap_or_else(|| panic!("no command for {tool} in {out}")).to_owned()
    }
}

async fn with(engine: &Engine, script: &str) -> String {
    let output = engine.shell(script).await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{script}\n{out}\n{err}");
    out
}

fn podman(home: &Path, conf: &Path, script: &str) -> Command {
    std::fs::write(home.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
    let at = |name: &str| home.join(name).display().to_string();
    let options = format!("--storage-driver vfs --root {} --runroot {}", at("root"), at("run"));
    let (policy, tag) =
        (format!("pull --signature-policy {}", at("policy.json")), format!("podman {options} tag"));
    let script =
        script.replace("podman tag", &tag).replace("podman pull", &format!("podman {options} {policy}"));
    let mut command = Command::new("sh");
    command
        .args(["-ec", &format!("{script}; podman {options} images")])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command.env("CONTAINERS_REGISTRIES_CONF", conf);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_takes_what_is_printed() {
    let scene = Scene::new().await;
    let (conf, none) = (scene.ferry.path("registries.conf"), scene.ferry.path("empty.conf"));
    std::fs::write(&conf, scene.config("podman", &[]).await).unwrap();
    std::fs::write(&none, "").unwrap();
    let image = format!("{REGISTRY}/team/app:v1");
    let by_prefix = scene.command("podman", &image, "prefix").await;
    for (conf, script) in [(&conf, format!("podman pull {image}")), (&none, by_prefix)] {
        let output = podman(scene.ferry.home.path(), conf, &script).output().await.unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        let images = String::from_utf8(output.stdout).unwrap();
        assert!(images.contains(&format!("{REGISTRY}/team/app")), "{images}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_takes_what_is_printed() {
    let scene = Scene::new().await;
    let engine = Engine::containerd().await.unwrap();
    let image = format!("{REGISTRY}/team/app:v1");
    let pull = scene.command("ctr", &image, "namespace").await;
    for (directory, more) in [("_default", &[][..]), (REGISTRY, &["--upstream", REGISTRY])] {
        let certs = scene.ferry.path(&format!("certs-{directory}"));
        std::fs::create_dir_all(certs.join(directory)).unwrap();
        std::fs::write(certs.join(directory).join("hosts.toml"), scene.config("containerd", more).await)
            .unwrap();
        let script = pull.replace("/etc/containerd/certs.d", &certs.display().to_string());
        with(&engine, &script).await;
        with(&engine, &format!("ctr -n k8s.io images rm --sync {image}")).await;
    }
    let by_prefix = scene.command("ctr", &image, "prefix").await;
    with(&engine, &by_prefix).await;
    assert!(with(&engine, "ctr -n k8s.io images ls -q").await.lines().any(|line| line == image));
}

#[tokio::test(flavor = "multi_thread")]
async fn dockerd_takes_what_is_printed() {
    let scene = Scene::new().await;
    let engine = Engine::dockerd_with(&scene.config("docker", &[]).await).await.unwrap();
    with(&engine, &scene.command("docker", "team/app:v1", "transparent").await).await;
    with(&engine, &scene.command("docker", &format!("{REGISTRY}/team/app:v1"), "prefix").await).await;
    let images = with(&engine, "docker images --format '{{.Repository}}:{{.Tag}}'").await;
    for name in ["team/app:v1", &format!("{REGISTRY}/team/app:v1")] {
        assert!(images.lines().any(|line| line == name), "{images}");
    }
}
