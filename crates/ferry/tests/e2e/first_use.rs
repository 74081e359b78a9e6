//! What a new user tries, and what is to be learnt from the answers.

use std::fs::OpenOptions;
use std::time::Duration;

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::harness::{Ferry, Served, push};

/// A registry with an image for two platforms under two names.
async fn registry(ferry: &Ferry) -> Served {
    let served = ferry.serve(&ferry.path("from"), 0).await;
    let image = |seed| {
        ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [Layer::random(seed, 1000)])
            .platform("linux/arm64", [Layer::random(seed + 1, 1000)])
            .build()
    };
    let images = [("team/app", 1), ("team/db", 5)].map(|(repository, seed)| NamedImage {
        repository: repository.parse().unwrap(),
        tag: "v1".parse().unwrap(),
        image: image(seed),
    });
    push(&images, &served.host()).await;
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_an_archive_can_be_listed_and_keeps_its_name() {
    let ferry = Ferry::new();
    let served = registry(&ferry).await;
    let (app, db) = (format!("{}/team/app:v1", served.host()), format!("{}/team/db:v1", served.host()));
    ferry.run(&["copy", "--to", "oci-archive:both.tar", &app, &db]).await.ok();
    let listed = ferry.run(&["tags", "oci-archive:both.tar"]).await.ok().out;
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, [&app, &db]);
    let json = ferry.run(&["tags", "oci-archive:both.tar", "--output", "json"]).await.ok();
    let json: Value = serde_json::from_str(&json.out).unwrap();
    let names: Vec<&str> =
        json["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| app.starts_with(name) || db.starts_with(name)), "{names:?}");
    assert!(json["tags"][0]["digest"].as_str().unwrap().starts_with("sha256:"));

    ferry.run(&["copy", &app, "oci-archive:one.tar"]).await.ok();
    ferry.run(&["copy", "oci-archive:one.tar", "oci-archive:again.tar"]).await.ok();
    assert_eq!(ferry.run(&["tags", "oci-archive:again.tar"]).await.ok().out, format!("{app}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_in_an_archive_is_no_mistake_in_a_name() {
    let ferry = Ferry::new();
    let served = registry(&ferry).await;
    let (app, to) = (format!("{}/team/app:v1", served.host()), ferry.serve(&ferry.path("to"), 0).await);
    ferry.run(&["copy", &app, "oci-archive:first.tar"]).await.ok();
    ferry.run(&["copy", "--except", "first.tar", &app, "oci-archive:second.tar"]).await.ok();
    let ran = ferry.run(&["copy", "--to", &to.host(), "oci-archive:second.tar"]).await;
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.out.contains("import first.tar first"), "{}", ran.out);
    assert_eq!(ran.err, "", "the error says all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_is_called_the_same_in_names_and_in_files() {
    let ferry = Ferry::new();
    let served = registry(&ferry).await;
    let app = format!("{}/team/app:v1", served.host());
    std::fs::write(ferry.path("pod.yaml"), format!("image: {app}\n")).unwrap();
    let naming = ["--naming", "{basename}-{platform}", "--platform", "arm64", "--to", "localhost:1/m"];
    let rewritten = ferry.run(&[&["rewrite"][..], &naming, &["pod.yaml"]].concat()).await.ok();
    assert_eq!(rewritten.out, "image: localhost:1/m/app-linux-arm64:v1\n");
    let copied = ferry.run(&[&["copy"][..], &naming, &[&app]].concat()).await;
    assert!(copied.out.contains("-> localhost:1/m/app-linux-arm64:v1 "), "{}", copied.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_whose_tags_cannot_be_listed_is_no_wrong_usage() {
    let ferry = Ferry::new();
    let served = registry(&ferry).await;
    let absent = format!("{}/absent", served.host());
    let ran = ferry.run(&["copy", "--all-tags", "--to", "localhost:1/m", &absent]).await;
    assert_eq!((ran.code, ran.out.as_str()), (Some(4), ""), "{ran:?}");
    assert!(ran.err.contains("hint: check the name"), "{}", ran.err);

    let all = ["copy", "--all-tags", "--to", "localhost:1/m"];
    for (image, says) in [
        ("quay.io/a/b:v1", "leave out the tag of quay.io/a/b:v1"),
        ("quay.io/a/b$c:v1", "leave out the tag of the target of quay.io/a/b"),
    ] {
        let ran = ferry.run(&[&all[..], &[image]].concat()).await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains(says), "{}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_not_written_whole_is_told() {
    let ferry = Ferry::new();
    std::fs::write(ferry.path("pod.yaml"), "image: quay.io/a/b:v1\n").unwrap();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut rewrite = ferry.command(&["rewrite", "--to", "localhost:1/m", "pod.yaml"]);
    let output = rewrite.stdout(full()).spawn().unwrap().wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("cannot write to standard output: No space left"), "{said}");

    let served = registry(&ferry).await;
    let app = format!("{}/team/app:v1", served.host());
    let mut copy = ferry.command(&["copy", &app, "oci:there"]);
    let output = copy.stdout(full()).spawn().unwrap().wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "the image is there: {said}");
    assert!(said.contains("cannot write to standard output"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn help_comes_in_groups() {
    let ferry = Ferry::new();
    for flag in ["-h", "--help"] {
        let help = ferry.run(&["copy", flag]).await.ok().out;
        let groups: Vec<&str> =
            help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
        assert_eq!(
            groups,
            [
                "Arguments:",
                "Which images, and where to:",
                "What of them:",
                "Time, room and speed:",
                "What is shown:",
                "Options of all commands:"
            ]
        );
        let (_, always) = help.split_once("Options of all commands:").unwrap();
        for flag in ["--verbose", "--config", "--color", "--help"] {
            assert!(always.contains(flag), "{always}");
        }
    }
    for verb in [
        "rewrite",
        "serve",
        "inspect",
        "tags",
        "delete",
        "login",
        "logout",
        "storage",
        "config",
        "warm",
        "cache",
        "user",
        "client-config",
        "resolve",
    ] {
        let help = ferry.run(&[verb, "--help"]).await.ok().out;
        let (own, always) = help.split_once("Options of all commands:").unwrap();
        assert!(!own.contains("--verbose") && always.contains("-h, --help"), "{help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_cannot_get_its_name_is_a_failure() {
    let ferry = Ferry::new();
    let served = registry(&ferry).await;
    let app = format!("{}/team/app:v1", served.host());
    // Slow enough that there is time to get in the way.
    let mut copy = ferry.command(&["copy", "--limit-rate", "1kB", &app, "oci-archive:taken.tar"]);
    let copy = copy.spawn().unwrap();
    while !ferry.path(".taken.tar.ferry-part").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::create_dir_all(ferry.path("taken.tar/something")).unwrap();
    let output = copy.wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("taken.tar"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_becomes_one_for_docker_although_no_image_is_new() {
    let ferry = Ferry::new();
    let served = registry(&ferry).await;
    let app = format!("{}/team/app:v1", served.host());
    let (oci, docker) = (["copy", &app, "oci-archive:app.tar"], ["copy", &app, "docker-archive:app.tar"]);
    let read = || std::fs::read(ferry.path("app.tar")).unwrap();
    let for_docker = |archive: &[u8]| archive.windows(13).any(|name| name == b"manifest.json");
    ferry.run(&oci).await.ok();
    let before = read();
    assert!(ferry.run(&oci).await.ok().out.contains("1 unchanged"));
    assert!(read() == before && !for_docker(&before), "it has everything, so it is as it was");
    assert!(ferry.run(&docker).await.ok().out.contains("1 unchanged"));
    let after = read();
    assert!(for_docker(&after));
    ferry.run(&docker).await.ok();
    assert!(read() == after);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_has_started_tells_what_to_do_next() {
    let ferry = Ferry::new();
    let started = async |name: &str, serve: &str| {
        let serve = format!("serve:\n  storage: {name}\n  listen: 0.0.0.0:0\n  open: true\n{serve}");
        std::fs::write(ferry.path(&format!("{name}.yaml")), serve).unwrap();
        let mut child = ferry.command(&["--config", &format!("{name}.yaml"), "serve"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        while said.iter().all(|line: &String| !line.contains("docker pull")) {
            said.push(lines.next_line().await.unwrap().unwrap());
        }
        child.kill().await.unwrap();
        let port = said[0].rsplit_once(':').unwrap().1.to_owned();
        said.iter().map(|line| line.replace(&port, "PORT")).collect::<Vec<_>>()
    };

    let said = started("usual", "  mirror: {}\n").await;
    assert_eq!(said[0], "ferry: serving usual at http://0.0.0.0:PORT");
    assert!(said[1].starts_with("ferry: mirroring cr.l5d.io, docker.elastic.co, docker.io, "), "{said:?}");
    assert_eq!(said[2], "ferry: how to use it is told at http://127.0.0.1:PORT/");
    assert_eq!(said[3], "ferry: for example: docker pull 127.0.0.1:PORT/docker.io/library/busybox:latest");

    let own =
        "  page: {enabled: false}\n  mirror: {domain: cr.example.cn, upstreams: [\"registry.corp:5000\"]}\n";
    let said = started("own", own).await;
    let example = "ferry: for example: docker pull 127.0.0.1:PORT/registry.corp-5000/REPOSITORY:TAG";
    assert_eq!(said[1..], ["ferry: mirroring registry.corp:5000", example]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_to_log_in_is_told_where_to() {
    let ferry = Ferry::new();
    let config = |otherwise: &str| {
        format!("serve:\n  mirror: {{}}\n  access: {{mode: token, users: users, otherwise: {otherwise}}}\n")
    };
    let told = async |otherwise: &str| {
        std::fs::write(ferry.path("ferry.yaml"), config(otherwise)).unwrap();
        let typed =
            ["--config", "ferry.yaml", "client-config", "podman", "--mirror", "https://cr.example.cn"];
        ferry.run(&typed).await.ok().out
    };
    let command = "podman login cr.example.cn";
    assert!(told("users").await.contains(command), "also where the file of users cannot be read");
    std::fs::write(ferry.path("users"), "").unwrap();
    assert!(told("users").await.contains(command));
    assert!(!told("allow").await.contains(command), "strangers may pull");
}
