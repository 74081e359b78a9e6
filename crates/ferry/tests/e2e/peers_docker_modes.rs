//! Every way in which dockerd can be told of a mirror: cold, and warm without the upstream.

use ferry_testkit::peers::Engine;

use crate::mirror_clients::*;

async fn docker(engine: &Engine, script: &str) -> String {
    let output = engine.shell(script).await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{script}\n{out}\n{err}");
    out
}

/// What is pulled: by a word of Docker Hub, by its path there, by prefix, and at the alias hosts.
fn names_at(scene: &Scene) -> [String; 5] {
    let (host, [hub, corp]) = (scene.mirror.host(), ALIASES.map(|host| scene.alias(host)));
    [
        format!("{OFFICIAL}:{TAG}"),
        format!("{REPOSITORY}:{TAG}"),
        format!("{host}/{REGISTRY}/{REPOSITORY}:{TAG}"),
        format!("{hub}/{OFFICIAL}:{TAG}"),
        format!("{corp}/{REPOSITORY}:{TAG}"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_pulls_every_platform_in_every_mode() {
    let proxy = names().await;
    for mode in 0..5 {
        let mut scene = Scene::new().await;
        let (host, [hub, corp], name) =
            (scene.mirror.host(), ALIASES.map(|host| scene.alias(host)), names_at(&scene)[mode].clone());
        let daemon = serde_json::json!({
            "registry-mirrors": [format!("http://{host}")],
            "insecure-registries": [hub, corp],
        });
        for store in ["cold", "warm"] {
            // A new one has an empty store.
            let engine = Engine::dockerd_behind(proxy.addr(), &daemon.to_string(), None).await.unwrap();
            for platform in PLATFORMS {
                docker(&engine, &format!("docker pull --platform {platform} {name}")).await;
                let id = docker(&engine, &format!("docker inspect --format '{{{{.Id}}}}' {name}")).await;
                assert_eq!(id.trim(), id_of(scene.image(&name), platform).to_string(), "{name} {platform}");
                docker(&engine, &format!("docker rmi {name}")).await;
            }
            match store {
                "cold" => scene.fetched_once(&name, &PLATFORMS),
                _ => scene.nothing_was_asked(&name),
            }
            scene.end_upstream();
        }
    }
}
