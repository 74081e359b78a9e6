//! Every way to name an image at a mirror, with skopeo and podman: cold, and warm without the upstream.

use crate::mirror_clients::*;

/// What skopeo is asked for: by prefix, by an alias host, and by nothing but the repository.
fn names_at(scene: &Scene) -> [String; 5] {
    let (host, [docker, corp]) = (scene.mirror.host(), ALIASES.map(|host| scene.alias(host)));
    [
        format!("{host}/{REGISTRY}/{REPOSITORY}:{TAG}"),
        format!("{host}/docker.io/{OFFICIAL}:{TAG}"),
        format!("{corp}/{REPOSITORY}:{TAG}"),
        format!("{docker}/{OFFICIAL}:{TAG}"),
        format!("{host}/{OFFICIAL}:{TAG}"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_all_platforms_in_every_mode() {
    let proxy = names().await;
    for mode in 0..5 {
        let mut scene = Scene::new().await;
        let name = names_at(&scene)[mode].clone();
        for layout in ["cold", "warm"] {
            let script = format!(
                "skopeo --insecure-policy copy --all --preserve-digests --src-tls-verify=false docker://{name} oci:{layout}:x"
            );
            scene.shell(&script, &proxy).await;
            layout_holds(&scene.ferry.path(layout), scene.image(&name));
            match layout {
                "cold" => scene.fetched_once(&name, &PLATFORMS),
                _ => scene.nothing_was_asked(&name),
            }
            scene.end_upstream();
        }
    }
    let asked = proxy.requests().unwrap();
    assert!(ALIASES.iter().all(|alias| asked.iter().any(|asked| asked.contains(alias))), "{asked:?}");
}

/// The registries as they are called without a mirror, and the mirrors that podman knows for them.
fn registries_conf(scene: &Scene) -> String {
    let (host, corp) = (scene.mirror.host(), scene.alias(ALIASES[1]));
    let block = |registry: &str, mirror: String| {
        format!(
            "[[registry]]\nlocation = \"{registry}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n"
        )
    };
    let blocks = [
        block(REGISTRY, format!("{host}/{REGISTRY}")),
        block("docker.io", host.clone()),
        block("other.corp.invalid", corp),
    ];
    blocks.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_pulls_every_platform_in_every_mode() {
    let proxy = names().await;
    for mode in 0..5 {
        let mut scene = Scene::new().await;
        std::fs::write(scene.ferry.path("registries.conf"), registries_conf(&scene)).unwrap();
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        std::fs::write(scene.ferry.path("policy.json"), policy).unwrap();
        let (name, insecure) = match mode {
            0 => (format!("{REGISTRY}/{REPOSITORY}:{TAG}"), ""),
            1 => (format!("docker.io/library/{OFFICIAL}:{TAG}"), ""),
            2 => (format!("other.corp.invalid/{REPOSITORY}:{TAG}"), ""),
            3 => (format!("{}/docker.io/{OFFICIAL}:{TAG}", scene.mirror.host()), "--tls-verify=false"),
            _ => (format!("{}/{OFFICIAL}:{TAG}", scene.alias(ALIASES[0])), "--tls-verify=false"),
        };
        for store in ["cold", "warm"] {
            let podman =
                format!("podman --storage-driver vfs --root $HOME/{store} --runroot $HOME/{store}-run");
            for platform in PLATFORMS {
                let pull = format!(
                    "{podman} pull --quiet {insecure} --signature-policy policy.json --platform {platform} {name}"
                );
                let id = scene.shell(&pull, &proxy).await;
                assert_eq!(id.trim(), id_of(scene.image(&name), platform).hex(), "{name} {platform}");
            }
            match store {
                "cold" => scene.fetched_once(&name, &PLATFORMS),
                _ => scene.nothing_was_asked(&name),
            }
            scene.end_upstream();
        }
    }
}
