//! Debian's skopeo, which nobody here wrote, pushes and pulls.

use std::path::Path;
use std::process::Stdio;

use ferry_oci::{Digest, media_type};
use serde_json::{Value, json};

use crate::client::Server;

/// A layout with an index of one image, whose layer is large enough to be streamed in many pieces.
fn write_layout(layout: &Path) -> Digest {
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |kind: &str, content: &[u8]| {
        let digest = Digest::sha256(content);
        std::fs::write(blobs.join(digest.hex()), content).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": content.len()})
    };
    let tar: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let diff = Digest::sha256(&tar);
    let layer = put("application/vnd.oci.image.layer.v1.tar", &tar);
    let platform = json!({"architecture": "amd64", "os": "linux"});
    let mut config = platform.clone();
    config["rootfs"] = json!({"type": "layers", "diff_ids": [diff]});
    let config = put(media_type::OCI_CONFIG, config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config,
        "layers": [layer]});
    let mut image = put(media_type::OCI_MANIFEST, manifest.to_string().as_bytes());
    image["platform"] = platform;
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [image]});
    let mut root = put(media_type::OCI_INDEX, index.to_string().as_bytes());
    let digest = root["digest"].as_str().unwrap().parse().unwrap();
    root["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    let top = json!({"schemaVersion": 2, "manifests": [root]});
    std::fs::write(layout.join("index.json"), top.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string()).unwrap();
    digest
}

async fn skopeo(home: &Path, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("/usr/bin/skopeo")
        .args(["--insecure-policy", "--tmpdir"])
        .arg(home)
        .args(arguments)
        .env("HOME", home)
        .env("XDG_RUNTIME_DIR", home)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("skopeo is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn skopeo_pushes_and_pulls() {
    let server = Server::start().await;
    let home = tempfile::tempdir().unwrap();
    let (from, back) = (home.path().join("from"), home.path().join("back"));
    let digest = write_layout(&from);
    let source = format!("oci:{}:v1", from.display());
    let remote = format!("docker://{}/team/app:v1", server.address);
    let copy = ["copy", "--all", "--preserve-digests"];
    let push = [&copy[..], &["--dest-tls-verify=false", &source, &remote]].concat();
    skopeo(home.path(), &push).await;
    assert_eq!(
        server.get("/v2/team/app/manifests/v1").await.header("docker-content-digest"),
        digest.to_string()
    );
    let other = format!("docker://{}/other:v1", server.address);
    let mount = [&copy[..], &["--src-tls-verify=false", "--dest-tls-verify=false", &remote, &other]].concat();
    skopeo(home.path(), &mount).await;
    let target = format!("oci:{}:v1", back.display());
    skopeo(home.path(), &[&copy[..], &["--src-tls-verify=false", &other, &target]].concat()).await;
    let top: Value = serde_json::from_slice(&std::fs::read(back.join("index.json")).unwrap()).unwrap();
    assert_eq!(top["manifests"][0]["digest"], digest.to_string());
    for blob in std::fs::read_dir(from.join("blobs/sha256")).unwrap() {
        let name = blob.unwrap().file_name();
        let content = std::fs::read(back.join("blobs/sha256").join(&name)).unwrap();
        assert_eq!(Digest::sha256(&content).hex(), name.to_str().unwrap());
    }
    let tags = skopeo(home.path(), &["list-tags", "--tls-verify=false", &remote.replace(":v1", "")]).await;
    assert_eq!(serde_json::from_str::<Value>(&tags).unwrap()["Tags"], json!(["v1"]));
    let gone = ["delete", "--tls-verify=false", &other];
    skopeo(home.path(), &gone).await;
    assert_eq!(server.get("/v2/other/manifests/v1").await.status, 404);
}
