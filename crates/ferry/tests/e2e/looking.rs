//! `ferry inspect`, `ferry tags`, `ferry delete`.

use std::process::Stdio;

use bytes::Bytes;
use ferry_oci::{Manifest, Tag, media_type};
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use tokio::io::AsyncWriteExt;

use crate::harness::{Ferry, push, remote, writer};

/// Pushes a two-platform image with a referrer, and the same under a second tag.
async fn prepare(host: &str) -> NamedImage {
    let image = ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::of_files(&[("etc/motd", b"hello")])])
        .platform("linux/arm64", [Layer::of_files(&[("etc/motd", b"hello too")])])
        .build();
    let named = NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image };
    push(&[named], host).await;
    let image = ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::of_files(&[("etc/motd", b"hello")])])
        .platform("linux/arm64", [Layer::of_files(&[("etc/motd", b"hello too")])])
        .build();
    let repository = writer(&*remote(host), &"team/app".parse().unwrap());
    repository.put_manifest(&image.root, Some(&"v2".parse::<Tag>().unwrap())).await.unwrap();
    let (config, _) = image.blobs.iter().next().unwrap();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","artifactType":"application/vnd.example.sbom","config":{{"mediaType":"{}","digest":"{config}","size":{}}},"layers":[],"subject":{{"mediaType":"{}","digest":"{}","size":{}}}}}"#,
        media_type::OCI_EMPTY,
        image.blobs[config].len(),
        media_type::OCI_INDEX,
        image.root.digest(),
        image.root.bytes().len(),
        kind = media_type::OCI_MANIFEST,
    );
    repository.put_manifest(&Manifest::parse(None, Bytes::from(text)).unwrap(), None).await.unwrap();
    NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_looked_at_and_taken_away() {
    let ferry = Ferry::new();
    let served = ferry.serve(&ferry.path("a"), 0).await;
    let host = served.host();
    let named = prepare(&host).await;
    let (v1, repository) = (format!("{host}/team/app:v1"), format!("{host}/team/app"));
    let by_digest = format!("{repository}@{}", named.image.root.digest());
    ferry.run(&["copy", &v1, "oci:layout"]).await.ok();
    let mut sessions = Vec::new();
    for arguments in [
        &["inspect", &v1][..],
        &["inspect", &v1, "--output", "json"],
        &["inspect", "--no-referrers", "oci:layout"],
        &["inspect", &format!("{repository}:absent")],
        &["tags", &repository],
        &["tags", &repository, "--output", "json"],
        &["tags", "oci:layout"],
        &["tags", &v1],
        &["tags", &format!("{host}/nothing")],
        &["delete", &repository],
        &["delete", &v1],
        &["delete", &v1, "--yes"],
        &["delete", &v1, "--yes"],
        &["tags", &repository],
        &["delete", &by_digest, "--yes", "--output", "json"],
        &["tags", &repository],
        &["delete", "oci:layout:v1", "--yes"],
        &["delete", "oci:absent:v1", "--yes"],
    ] {
        let ran = ferry.run(arguments).await;
        let text =
            format!("$ ferry {}\n{}{}exit {}\n", arguments.join(" "), ran.out, ran.err, ran.code.unwrap());
        sessions.push(text.replace(&host, "HOST"));
    }
    let home = ferry.home.path().to_str().unwrap();
    insta::assert_snapshot!("looking", sessions.join("\n").replace(home, "HOME"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_be_asked_in_a_pipe() {
    let ferry = Ferry::new();
    let served = ferry.serve(&ferry.path("a"), 0).await;
    let host = served.host();
    prepare(&host).await;
    let image = format!("{host}/team/app:v1");
    let mut child = ferry.command(&["delete", &image]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"y\n").await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    ferry.run(&["inspect", &image]).await.ok();
}
