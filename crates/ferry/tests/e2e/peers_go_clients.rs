//! crane, regctl and oras in every mode: cold, and warm without the upstream. `bench/peers/build.sh target/peers` builds
//! them where Go is installed.

use std::path::{Path, PathBuf};

use crate::mirror_clients::*;

/// Where `scripts/test` puts what it builds.
const BUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers");

fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = [PathBuf::from(BUILT)].into_iter().chain(std::env::split_paths(&path));
    let mut found = places.map(|directory| directory.join(program)).filter(|path| path.is_file());
    found.next().unwrap_or_else(|| {
        panic!("{program} is missing; bench/peers/build.sh target/peers builds it where Go is installed")
    })
}

/// What is pulled: by prefix, by nothing but the repository, and at the alias hosts.
fn names_at(scene: &Scene) -> [String; 4] {
    let (host, [hub, corp]) = (scene.mirror.host(), ALIASES.map(|host| scene.alias(host)));
    [
        format!("{host}/{REGISTRY}/{REPOSITORY}:{TAG}"),
        format!("{host}/{OFFICIAL}:{TAG}"),
        format!("{hub}/{OFFICIAL}:{TAG}"),
        format!("{corp}/{REPOSITORY}:{TAG}"),
    ]
}

/// `command` is what a shell is to run to pull a name into a layout.
async fn pulls(command: impl Fn(&str, &Path) -> String) {
    let proxy = names().await;
    for mode in 0..4 {
        let mut scene = Scene::new().await;
        let name = names_at(&scene)[mode].clone();
        for layout in ["cold", "warm"] {
            let path = scene.ferry.path(layout);
            scene.shell(&command(&name, &path), &proxy).await;
            layout_holds(&path, scene.image(&name));
            match layout {
                "cold" => scene.fetched_once(&name, &PLATFORMS),
                _ => scene.nothing_was_asked(&name),
            }
            scene.end_upstream();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_pulls_all_platforms_in_every_mode() {
    let crane = find("crane").display().to_string();
    pulls(|name, layout| format!("{crane} pull --format oci --insecure {name} {}", layout.display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn regctl_pulls_all_platforms_in_every_mode() {
    let regctl = find("regctl").display().to_string();
    pulls(|name, layout| {
        let host = name.split('/').next().unwrap();
        format!("{regctl} --host reg={host},tls=disabled image copy {name} ocidir://{}:x", layout.display())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oras_pulls_all_platforms_in_every_mode() {
    let oras = find("oras").display().to_string();
    pulls(|name, layout| {
        format!("{oras} cp --no-tty --from-plain-http {name} --to-oci-layout {}:x", layout.display())
    })
    .await;
}
