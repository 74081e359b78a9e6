//! The part of the templates that copies.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage, SetSpec, image_set};
use ferry_testkit::link::{Link, LinkOptions};
use futures_util::future::join_all;

use super::{Template, Workspace};
use crate::harness::{Ferry, Ran, check, push};

/// What each system is told of a run that stopped with work left: its exit code, and words in its log.
fn told(template: &Template) -> (i32, &'static str) {
    match template.path {
        "deploy/ci/azure-pipelines.yml" => (0, "##vso[task.complete result=SucceededWithIssues;]"),
        "deploy/ci/github-actions.yml" => (0, "::warning::Work left"),
        _ => (3, "Work left"),
    }
}

/// A fresh checkout, with ferry installed.
fn checkout() -> Workspace {
    let workspace = Workspace::new();
    fs::create_dir(workspace.path(".ferry-bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_ferry"), workspace.path(".ferry-bin/ferry")).unwrap();
    workspace
}

/// Runs the step that copies to `target`; `image` is what was typed.
async fn copy(workspace: &Workspace, template: &Template, target: &str, image: &str, budget: &str) -> Ran {
    let output = workspace.path("output");
    let variables = [
        ("FERRY_TARGET", target),
        ("FERRY_IMAGE", image),
        ("FERRY_BUDGET", budget),
        ("GITHUB_OUTPUT", output.to_str().unwrap()),
    ];
    workspace.run(&template.script("copy"), &variables).await
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_typed_images_are_copied() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    let images = image_set(&SetSpec::small(3, 11));
    push(&images, &from.host()).await;
    let sources: Vec<String> =
        images.iter().map(|named| format!("{}/{}:{}", from.host(), named.repository, named.tag)).collect();
    for (n, template) in Template::all().iter().enumerate() {
        let workspace = checkout();
        fs::write(workspace.path("images.txt"), format!("# all\n{}\n", sources.join("\n"))).unwrap();
        let target = format!("{}/list{n}", to.host());
        copy(&workspace, template, &target, "images.txt", "10m").await.ok();
        check(&images, &to.host(), &format!("list{n}/")).await;
        // A push sets no image.
        let again = copy(&workspace, template, &target, "", "10m").await.ok();
        assert!(again.out.contains("3 unchanged"), "{}: {again:?}", template.path);

        let typed = format!("{}/typed{n}", to.host());
        copy(&checkout(), template, &typed, &sources[1], "10m").await.ok();
        check(&images[1..2], &to.host(), &format!("typed{n}/")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_is_never_run() {
    for template in Template::all() {
        let workspace = checkout();
        for typed in [
            "alpine; touch pwned",
            "alpine && touch pwned",
            "$(touch pwned)",
            "`touch pwned`",
            "alpine\ntouch pwned",
            "\"; touch pwned; \"",
            "'; touch pwned; '",
            "alpine evil.example.com/theirs",
            "--from-file=images.txt",
            "--config=evil.yaml",
            "END\ntouch pwned",
        ] {
            let ran = copy(&workspace, &template, "127.0.0.1:1/team", typed, "10m").await;
            assert_eq!(ran.code, Some(2), "{}: {typed}: {ran:?}", template.path);
            assert!(ran.err.contains("ferry: "), "{}: {typed}: {ran:?}", template.path);
            assert!(!workspace.path("pwned").exists(), "{}: {typed} was run", template.path);
        }
    }
}

/// What the cache of a CI system does: packs a directory, and unpacks it in a fresh checkout.
async fn cached(from: &Workspace, to: &Workspace) {
    let archive = to.path("cache.tar");
    let archive = archive.to_str().unwrap();
    from.run_by(&["tar", "-cf", archive, ".ferry"], &[]).await.ok();
    to.run_by(&["tar", "-xf", archive], &[]).await.ok();
}

const SIZE: usize = 24 << 20;

/// Copies a layer that takes longer than the budget, each run in a fresh checkout with the cache of the one before.
async fn in_several_runs(template: &Template, source: &Link, target: &str) {
    let image = format!("{}/team/app:v1", source.host());
    let (code, words) = told(template);
    let mut workspace = checkout();
    let mut runs = 1;
    loop {
        let ran = copy(&workspace, template, target, &image, "3s").await;
        if !ran.out.contains(words) {
            ran.ok();
            break;
        }
        assert_eq!(ran.code, Some(code), "{}: {ran:?}", template.path);
        if template.path.contains("github") {
            assert_eq!(fs::read_to_string(workspace.path("output")).unwrap(), "left=true\n");
        }
        runs += 1;
        assert!(runs < 15, "{}: each run gets further", template.path);
        let next = checkout();
        cached(&workspace, &next).await;
        workspace = next;
    }
    assert!(runs > 1, "{}: one run was enough", template.path);
    let came = source.stats().bytes_down;
    assert!(came < SIZE as u64 + runs * 400_000, "{}: {came} bytes in {runs} runs", template.path);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_image_arrives_over_several_runs() {
    let ferry = Ferry::new();
    let (from, to) = (ferry.serve(&ferry.path("from"), 0).await, ferry.serve(&ferry.path("to"), 0).await);
    let image =
        ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(3, SIZE)]).build_single();
    let images = [NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image }];
    push(&images, &from.host()).await;
    let (address, target) = (from.address, to.host());
    let all = Template::all();
    join_all(all.iter().enumerate().map(|(n, template)| {
        let target = format!("{target}/ci{n}");
        async move {
            let options = LinkOptions { total_rate: Some(5_000_000), ..LinkOptions::default() };
            let link = Link::start(address, options).await.unwrap();
            in_several_runs(template, &link, &target).await;
        }
    }))
    .await;
    for n in 0..all.len() {
        check(&images, &to.host(), &format!("ci{n}/")).await;
    }
}

/// Runs the step of GitHub Actions that starts the next run, with a `gh` that notes what it was asked for.
async fn go_on(workspace: &Workspace, image: &str, round: &str) -> (Ran, Option<String>) {
    workspace.program("programs/gh", "#!/bin/sh\nprintf '%s\\n' \"$@\" > asked\n");
    let asked = workspace.path("asked");
    let _ = fs::remove_file(&asked);
    let all = Template::read("deploy/ci/github-actions.yml").scripts();
    let script = all.into_iter().find(|script| script.contains("gh workflow run")).unwrap();
    let variables = [("GITHUB_REF_NAME", "main"), ("FERRY_IMAGE", image), ("ROUND", round), ("ROUNDS", "10")];
    let ran = workspace.run(&script, &variables).await;
    (ran, fs::read_to_string(asked).ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn github_starts_the_next_run_a_limited_number_of_times() {
    let workspace = Workspace::new();
    let (ran, asked) = go_on(&workspace, "a; touch pwned", "1").await;
    ran.ok();
    let wanted = "workflow\nrun\nferry.yml\n--ref\nmain\n-f\nimage=a; touch pwned\n-f\nround=2\n";
    assert_eq!(asked.as_deref(), Some(wanted));
    for round in ["10", "11", "", "a[$(touch pwned)]", "1; touch pwned"] {
        let (ran, asked) = go_on(&workspace, "images.txt", round).await;
        assert_eq!((ran.code, asked), (Some(1), None), "{round}: {}", ran.err);
    }
    assert!(!Path::new(&workspace.path("pwned")).exists());
}
