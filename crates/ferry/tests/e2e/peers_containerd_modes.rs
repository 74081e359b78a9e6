//! Every way in which containerd can be told of a mirror: cold, and warm without the upstream.

use ferry_testkit::peers::Engine;

use crate::mirror_clients::*;
use crate::vanity::{Vanity, refused};

/// What `ctr` printed; `Err` is what it said when it failed.
async fn ctr(engine: &Engine, script: &str) -> Result<String, String> {
    let output = engine.shell(script).await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    if output.status.success() { Ok(out) } else { Err(format!("{script}\n{out}\n{err}")) }
}

/// Writes `hosts.toml` for a registry, and says with which options it is read.
fn hosts(scene: &Scene, registry: &str, toml: &str) -> String {
    let directory = scene.ferry.path("certs").join(registry);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("hosts.toml"), toml).unwrap();
    format!("--hosts-dir {}", scene.ferry.path("certs").display())
}

/// The options and the name for `ctr images pull`.
fn mode(scene: &Scene, mode: usize) -> (String, String) {
    let (host, corp) = (scene.mirror.host(), scene.alias(ALIASES[1]));
    let block = |url: &str, more: &str| {
        format!("[host.\"http://{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n{more}")
    };
    let app = format!("{REGISTRY}/{REPOSITORY}:{TAG}");
    let override_path = "  override_path = true\n";
    match mode {
        // For all registries, with ns=; and one registry whose mirror has a path; and one at an alias host.
        0 => (hosts(scene, "_default", &block(&host, "")), app),
        1 => (hosts(scene, "_default", &block(&host, "")), format!("docker.io/library/{OFFICIAL}:{TAG}")),
        2 => (hosts(scene, REGISTRY, &block(&format!("{host}/v2/{REGISTRY}"), override_path)), app),
        3 => (hosts(scene, REGISTRY, &block(&corp, "")), app),
        _ => ("--plain-http".to_owned(), format!("{host}/{app}")),
    }
}

/// Pulls all platforms, and sees that everything of them is there.
async fn pull(
    engine: &Engine,
    variables: &str,
    options: &str,
    name: &str,
    image: &ferry_testkit::images::Image,
) {
    let script = format!("{variables} ctr images pull --all-platforms {options} {name}");
    ctr(engine, &script).await.unwrap();
    let listed = ctr(engine, &format!("ctr images ls name=={name}")).await.unwrap();
    assert!(listed.contains(&image.root.digest().to_string()), "{listed}");
    let content = ctr(engine, "ctr content ls -q").await.unwrap();
    let manifests = image.manifests.iter().map(|manifest| manifest.digest());
    for digest in manifests.chain(image.blobs.keys().copied()) {
        assert!(content.contains(&digest.to_string()), "{name}: {digest} is missing in {content}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_all_platforms_in_every_mode() {
    let proxy = names().await;
    for number in 0..5 {
        let mut scene = Scene::new().await;
        let (options, name) = mode(&scene, number);
        let variables = format!("http_proxy=http://{0} https_proxy=http://{0}", proxy.addr());
        for store in ["cold", "warm"] {
            // A new one has an empty store.
            let engine = Engine::containerd().await.unwrap();
            pull(&engine, &variables, &options, &name, scene.image(&name)).await;
            match store {
                "cold" => scene.fetched_once(&name, &PLATFORMS),
                _ => scene.nothing_was_asked(&name),
            }
            scene.end_upstream();
        }
    }
    let asked = proxy.requests().unwrap();
    assert!(asked.iter().any(|asked| asked.contains(ALIASES[1])), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_what_a_vanity_registry_points_at() {
    let mut vanity = Vanity::new().await;
    let name = vanity.name();
    for store in ["cold", "warm"] {
        let engine = Engine::containerd().await.unwrap();
        pull(&engine, "", "--plain-http", &name, &vanity.image).await;
        vanity.check(store);
        vanity.end_upstream();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_is_told_of_a_vanity_registry_that_points_inside() {
    let engine = Engine::containerd().await.unwrap();
    refused(async |name| ctr(&engine, &format!("ctr images pull --plain-http {name}")).await.unwrap_err())
        .await;
}
