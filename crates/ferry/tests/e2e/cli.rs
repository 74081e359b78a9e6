//! What ferry says, and its exit codes.

use std::process::Stdio;

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage, SetSpec, image_set};
use ferry_testkit::link::{Link, LinkOptions};

use crate::harness::{Ferry, Ran, push, signal};

/// A run as a person sees it, with what changes from run to run replaced.
fn session(arguments: &[&str], ran: &Ran, replace: &[(&str, &str)]) -> String {
    let mut text =
        format!("$ ferry {}\n{}{}exit {}\n", arguments.join(" "), ran.out, ran.err, ran.code.unwrap());
    for (from, to) in replace {
        text = text.replace(from, to);
    }
    text
}

/// What can be typed wrongly. Words in capitals are known only when the test runs.
const MISTAKES: &[&[&str]] = &[
    &[],
    &["cpoy"],
    &["copy", "alpine"],
    &["copy", "Alpine", "localhost:1/a"],
    &["copy", "docker://alpine", "localhost:1/a"],
    &["copy", "alpine", "DIGEST"],
    &["copy", "alpine", "oci:"],
    &["copy", "--from-file", "bad.txt"],
    &["copy", "--from-file", "clash.txt"],
    &["copy", "--from-file", "absent.txt"],
    &["copy", "oci:absent", "localhost:1/a"],
    &["copy", "HERE", "oci:not-a-layout"],
    &["copy", "HERE", "oci:new"],
    &["copy", "localhost:1/a", "HERE"],
    &["serve", "--storage", "other", "--listen", "0.0.0.0:5000"],
    &["serve", "--storage", "other", "--listen", "5000"],
    &["serve", "--storage", "other", "--listen", "TAKEN"],
    &["serve", "--storage", "taken", "--listen", "127.0.0.1:0"],
    &["serve", "--storage", "bad.txt", "--listen", "127.0.0.1:0"],
    &["serve", "--storage", "other", "--listen", "192.0.2.1:5000", "--open"],
    &["--config", "secret.yaml", "serve", "--storage", "other", "--listen", "127.0.0.1:0"],
    &["--config", "size.yaml", "serve", "--storage", "other"],
    &["serve"],
    &["--config", "absent.yaml", "config", "check"],
    &["--config", "wrong.yaml", "config", "check"],
    &["--config", "open.yaml", "config", "check"],
    &["--config", "tls.yaml", "copy", "alpine", "localhost:1/a"],
    &["config", "check"],
    &["config", "show"],
    &["login", "not a host"],
    &["login", "localhost:1"],
    &["login", "--username", "a:b", "localhost:1"],
    &["login", "--username", "me", "localhost:1"],
    &["logout", "https://localhost:1/"],
    &["copy", "--form-file", "list"],
    &["copy", "--progress", "bars", "alpine", "localhost:1/a"],
    &["copy", "--output", "yaml", "alpine", "localhost:1/a"],
    &["copy", "--commands", "docker,kubectl", "alpine", "localhost:1/a"],
    &["copy", "--jobs", "0", "alpine", "localhost:1/a"],
    &["copy", "--budget", "45", "alpine", "localhost:1/a"],
    &["copy", "--limit-rate", "fast", "alpine", "localhost:1/a"],
    &["copy", "--spool-limit", "10", "alpine", "localhost:1/a"],
    &["copy", "--profile", "huawei", "alpine", "localhost:1/a"],
    &["copy", "--mirror", "docker.io", "alpine", "localhost:1/a"],
    &["copy", "alpine", "localhost:1/a", "localhost:1/b"],
    &["copy", "alpine:", "localhost:1/a"],
    &["copy", "https://quay.io/a/b", "localhost:1/a"],
    &["copy", "registry.invalid/a:1", "oci:new"],
    &["tags", "localhost:1/a:v1"],
    &["completions", "tcsh"],
    &["schema", "inspect"],
];

/// Files with mistakes in them.
fn write_files(ferry: &Ferry) {
    std::fs::create_dir(ferry.path("not-a-layout")).unwrap();
    std::fs::write(ferry.path("not-a-layout/notes.txt"), "mine").unwrap();
    std::fs::write(ferry.path("bad.txt"), "alpine localhost:1/a\nalpine\n").unwrap();
    std::fs::write(ferry.path("clash.txt"), "a:1 localhost:1/x\nb:1 localhost:1/x\n").unwrap();
    std::fs::write(ferry.path("wrong.yaml"), "registries:\n  quay.io:\n    acounts: []\n").unwrap();
    std::fs::write(ferry.path("open.yaml"), "serve:\n  listen: 0.0.0.0:5000\n").unwrap();
    std::fs::write(ferry.path("tls.yaml"), "registries: {quay.io: {tls: {ca: absent.pem}}}\n").unwrap();
    let secret = "registries: {quay.io: {accounts: [{username: me, password: {file: absent}}]}}\nserve: {mirror: {}}\n";
    std::fs::write(ferry.path("secret.yaml"), secret).unwrap();
    std::fs::write(ferry.path("size.yaml"), "serve:\n  size_limit: 200 gigs\n").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes() {
    let ferry = Ferry::new();
    let home = ferry.home.path().to_str().unwrap().to_owned();
    let served = ferry.serve(&ferry.path("taken"), 0).await;
    let taken = served.host();
    write_files(&ferry);
    let here = format!("{taken}/absent:v1");
    let digest = format!("localhost:1/a@sha256:{}", "0".repeat(64));
    let known = |word: &&'static str| match *word {
        "HERE" => here.as_str(),
        "DIGEST" => &digest,
        "TAKEN" => &taken,
        word => word,
    };
    let mut sessions = Vec::new();
    let pid = std::fs::read_to_string(ferry.path("taken/lock")).unwrap();
    let process = format!("process {} ", pid.trim());
    for arguments in MISTAKES {
        let arguments: Vec<&str> = arguments.iter().map(known).collect();
        let ran = ferry.run(&arguments).await;
        let session = session(
            &arguments,
            &ran,
            &[
                (&home, "HOME"),
                (&taken, "127.0.0.1:PORT"),
                (process.as_str(), "process PID "),
                // What is said where no name server answers.
                ("Temporary failure in name resolution", "Name or service not known"),
            ],
        );
        sessions.push(without_times(&session));
    }
    insta::assert_snapshot!("mistakes", sessions.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_to_read_to_the_end() {
    let ferry = Ferry::new();
    for arguments in [&["config", "schema"][..], &["config", "show"], &["config", "check"]] {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let output =
            ferry.command(arguments).stdout(write).spawn().unwrap().wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Images are reported as they are done: their lines are put in order, the summary stays last.
fn sorted(out: &str) -> String {
    let mut lines: Vec<&str> = out.lines().collect();
    if let Some((_, images)) = lines.split_last_mut() {
        images.sort_unstable();
    }
    lines.join("\n") + "\n"
}

/// Replaces `in 1.2 s` at the end of a summary.
fn without_times(text: &str) -> String {
    let line = |line: &str| match line.rsplit_once(" in ") {
        Some((before, after)) if after.ends_with(" s") => format!("{before} in TIME"),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_says_what_it_did() {
    let ferry = Ferry::new();
    let (first, second) = (ferry.serve(&ferry.path("a"), 0).await, ferry.serve(&ferry.path("b"), 0).await);
    let image = ImageBuilder::new(MediaTypes::Oci)
        .platform("linux/amd64", [Layer::of_files(&[("etc/motd", b"hello")])])
        .platform("linux/arm64", [Layer::of_files(&[("etc/motd", b"hello too")])])
        .build();
    let named = NamedImage { repository: "team/app".parse().unwrap(), tag: "v1".parse().unwrap(), image };
    push(&[named], &first.host()).await;
    let source = format!("{}/team/app:v1", first.host());
    let target = format!("{}/team/app", second.host());
    let missing = format!("{}/team/app:v2", first.host());
    std::fs::write(ferry.path("list"), format!("{source} {target}\n{missing} {target}\n")).unwrap();
    let (one, two) = (first.host(), second.host());
    let replace = [(one.as_str(), "SOURCE"), (two.as_str(), "TARGET")];
    let mut sessions = Vec::new();
    for arguments in [
        &["copy", &source, &target][..],
        &["copy", &source, &target],
        &["copy", "--recheck", &source, &target],
        &["copy", "--from-file", "list"],
        &["copy", &source, "oci:layout"],
        &["copy", "oci:layout", &format!("{}/again", second.host())],
    ] {
        let mut ran = ferry.run(arguments).await;
        ran.out = sorted(&ran.out);
        sessions.push(without_times(&session(arguments, &ran, &replace)));
    }
    insta::assert_snapshot!("copy", sessions.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_copy_says_what_is_left_and_the_next_goes_on() {
    let ferry = Ferry::new();
    let (source, target) = (ferry.serve(&ferry.path("a"), 0).await, ferry.serve(&ferry.path("b"), 0).await);
    let images = image_set(&SetSpec { images: 1, seed: 5, base_size: 12 << 20, own_size: 1000 });
    push(&images, &source.host()).await;
    let slow = LinkOptions { total_rate: Some(8_000_000), ..LinkOptions::default() };
    let link = Link::start(source.address, slow).await.unwrap();
    let list = ferry.list(&images, &link.host().to_string(), &target.host(), "");
    let arguments = ["copy", "--from-file", list.to_str().unwrap()];
    for name in ["INT", "TERM"] {
        link.reset_stats();
        let mut running = ferry.command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        while link.stats().bytes_down < 4_000_000 {
            assert!(running.try_wait().unwrap().is_none(), "it ends before it is stopped");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        signal(&running, name).await;
        let output = running.wait_with_output().await.unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{out}");
        assert!(out.starts_with("left ") && out.contains("1 image: 1 left"), "{out}");
    }
    link.set(LinkOptions::default());
    link.reset_stats();
    ferry.run(&arguments).await.ok();
    let whole: u64 = images[0].image.size();
    assert!(link.stats().bytes_down < whole - 6_000_000, "what two stopped runs staged is not fetched again");
}
