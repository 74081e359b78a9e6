//! Registries and clients that nobody here wrote: Debian's docker-registry and skopeo.

use ferry_oci::Reference;
use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage, SetSpec, image_set, verify};
use ferry_testkit::peers::{self, DockerRegistry, RegistryOptions};

use crate::harness::{Ferry, check, push, reader};

/// What skopeo printed; it must have succeeded.
async fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = peers::skopeo(arguments).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// One index of four platforms for each family of media types, with a layer that both share.
fn four_platforms() -> Vec<NamedImage> {
    let of = |types, tag: &str| {
        let mut builder = ImageBuilder::new(types).shared([Layer::random(1, 300_000)]);
        for (seed, platform) in
            ["linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/s390x"].iter().enumerate()
        {
            builder = builder.platform(platform, [Layer::random(10 + seed as u64, 40_000)]);
        }
        if types == MediaTypes::Oci {
            builder = builder.attestations();
        }
        NamedImage {
            repository: "team/app".parse().unwrap(),
            tag: tag.parse().unwrap(),
            image: builder.build(),
        }
    };
    vec![of(MediaTypes::Oci, "oci"), of(MediaTypes::Docker, "docker")]
}

#[tokio::test(flavor = "multi_thread")]
async fn from_docker_registry_through_ferry_to_docker_registry() {
    let ferry = Ferry::new();
    let (first, last) = (DockerRegistry::start().await.unwrap(), DockerRegistry::start().await.unwrap());
    let middle = ferry.serve(&ferry.path("storage"), 0).await;
    let images = four_platforms();
    push(&images, &first.host().to_string()).await;
    let there = ferry.list(&images, &first.host().to_string(), &middle.host(), "there/");
    ferry.run(&["copy", "--from-file", there.to_str().unwrap()]).await.ok();
    let expected = check(&images, &middle.host(), "there/").await;
    let copies: Vec<NamedImage> = images
        .iter()
        .map(|named| NamedImage {
            repository: format!("there/{}", named.repository).parse().unwrap(),
            ..named.clone()
        })
        .collect();
    let back = ferry.list(&copies, &middle.host(), &last.host().to_string(), "back/");
    ferry.run(&["copy", "--from-file", back.to_str().unwrap()]).await.ok();
    assert_eq!(check(&copies, &last.host().to_string(), "back/").await, expected);
    assert_eq!(check(&images, &first.host().to_string(), "").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pushes_and_pulls() {
    let ferry = Ferry::new();
    let upstream = DockerRegistry::start().await.unwrap();
    let served = ferry.serve(&ferry.path("storage"), 0).await;
    let images = four_platforms();
    push(&images, &upstream.host().to_string()).await;
    for named in &images {
        let (source, target) = (upstream.host(), served.host());
        let (repository, tag) = (&named.repository, &named.tag);
        let layout = format!("oci:{}", ferry.path(&format!("pulled-{tag}")).display());
        let digest = named.image.root.digest();
        skopeo(&[
            "copy",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &format!("docker://{source}/{repository}:{tag}"),
            &format!("docker://{target}/pushed/{repository}:{tag}"),
        ])
        .await;
        let raw = skopeo(&[
            "inspect",
            "--raw",
            "--tls-verify=false",
            &format!("docker://{target}/pushed/{repository}:{tag}"),
        ])
        .await;
        assert_eq!(ferry_oci::Digest::sha256(&raw), digest);
        if named.tag.as_str() == "oci" {
            skopeo(&[
                "copy",
                "--all",
                "--preserve-digests",
                "--src-tls-verify=false",
                &format!("docker://{target}/pushed/{repository}:{tag}"),
                &layout,
            ])
            .await;
        }
    }
    check(&images, &served.host(), "pushed/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_layout_that_skopeo_reads() {
    let ferry = Ferry::new();
    let (first, last) = (DockerRegistry::start().await.unwrap(), DockerRegistry::start().await.unwrap());
    let images = &four_platforms()[..1];
    push(images, &first.host().to_string()).await;
    let source = format!("{}/team/app:oci", first.host());
    ferry.run(&["copy", &source, "oci:layout"]).await.ok();
    let target = format!("docker://{}/by-skopeo:oci", last.host());
    let layout = format!("oci:{}:oci", ferry.path("layout").display());
    skopeo(&["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &layout, &target]).await;
    ferry.run(&["copy", "oci:layout", &format!("{}/by-ferry", last.host())]).await.ok();
    let reference = Reference::Tag("oci".parse().unwrap());
    let [one, two] = ["by-skopeo", "by-ferry"].map(|name| reader(&last.host().to_string(), name));
    assert_eq!(verify(&*one, &reference).await.unwrap(), verify(&*two, &reference).await.unwrap());
}

/// What `docker login` leaves in the home directory is used, and only for its registry.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_credentials_of_docker_login() {
    let ferry = Ferry::new();
    let login = RegistryOptions { login: true, ..RegistryOptions::default() };
    let private = DockerRegistry::start_with(&login).await.unwrap();
    let open = DockerRegistry::start().await.unwrap();
    let image = &four_platforms()[..1];
    push(image, &open.host().to_string()).await;
    let source = format!("{}/team/app:oci", open.host());
    let target = format!("{}/team/app", private.host());
    let refused = ferry.run(&["copy", &source, &target]).await;
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.err.contains(&format!("ferry login {}", private.host())), "{refused:?}");
    // ferry:secret
    let config = format!(r#"{{"auths": {{"{}": {{"auth": "ZmVycnk6c2VjcmV0"}}}}}}"#, private.host());
    std::fs::create_dir(ferry.path(".docker")).unwrap();
    std::fs::write(ferry.path(".docker/config.json"), config).unwrap();
    ferry.run(&["copy", &source, &target]).await.ok();
    ferry.run(&["copy", &format!("{target}:oci"), "oci:back"]).await.ok();
    let said = ferry.run(&["-vvv", "copy", "--recheck", &source, &target]).await.ok();
    assert!(!said.err.contains("secret") && !said.err.contains("ZmVycnk6c2VjcmV0"), "no secret in the log");
}

/// The fastest rival loses 4 of 20 here.
#[tokio::test(flavor = "multi_thread")]
async fn many_images_that_share_blobs_arrive_at_once_in_an_empty_registry() {
    let ferry = Ferry::new();
    let (source, target) = (DockerRegistry::start().await.unwrap(), DockerRegistry::start().await.unwrap());
    let served = ferry.serve(&ferry.path("storage"), 0).await;
    let images = image_set(&SetSpec::small(20, 3));
    push(&images, &source.host().to_string()).await;
    for host in [target.host().to_string(), served.host()] {
        let list = ferry.list(&images, &source.host().to_string(), &host, "one/");
        ferry.run(&["copy", "--from-file", list.to_str().unwrap()]).await.ok();
        check(&images, &host, "one/").await;
        // Four at a time, none of which knows of the others.
        let parts = images.chunks(5).enumerate().map(|(part, images)| {
            let home = Ferry::new();
            let list = home.list(images, &source.host().to_string(), &host, &format!("four{part}/"));
            async move { home.run(&["copy", "--from-file", list.to_str().unwrap()]).await.ok() }
        });
        futures_util::future::join_all(parts).await;
        for (part, images) in images.chunks(5).enumerate() {
            check(images, &host, &format!("four{part}/")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_emptied_behind_ferrys_back_heals() {
    let ferry = Ferry::new();
    let source = DockerRegistry::start().await.unwrap();
    let target = DockerRegistry::start().await.unwrap();
    let images = image_set(&SetSpec::small(3, 4));
    push(&images, &source.host().to_string()).await;
    let list = ferry.list(&images, &source.host().to_string(), &target.host().to_string(), "");
    let arguments = ["copy", "--from-file", list.to_str().unwrap()];
    ferry.run(&arguments).await.ok();
    target.wipe().unwrap();
    ferry.run(&arguments).await.ok();
    check(&images, &target.host().to_string(), "").await;
}
