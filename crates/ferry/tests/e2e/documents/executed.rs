//! Commands in the documents are run as they stand there.
//!
//! `localhost:5001` is the registry that holds the images, `localhost:5000` the one that is filled: both are served by
//! `ferry serve` on free ports, whose numbers are put in place of these.

use std::path::Path;

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};

use super::{LANGUAGES, document};
use crate::harness::{Ferry, Served, push};

/// On the line before a block of commands that is run.
const EXECUTED: &str = "<!-- executed -->\n```sh\n";

/// Before a block that is written into a file, whose name follows.
const FILE: &str = "<!-- file: ";

/// A block that does something.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Commands(String),
    File { name: String, text: String },
}

/// The steps of a document, in their order.
fn steps(text: &str) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), text);
    let block = |rest: &str| rest.split_once("\n```\n").map(|(block, _)| format!("{block}\n")).unwrap();
    while let Some(at) = rest.find("<!-- ") {
        rest = &rest[at..];
        if let Some(commands) = rest.strip_prefix(EXECUTED) {
            steps.push(Step::Commands(block(commands)));
        } else if let Some(named) = rest.strip_prefix(FILE) {
            let (name, fenced) = named.split_once(" -->\n```").unwrap();
            let (_, text) = fenced.split_once('\n').unwrap();
            steps.push(Step::File { name: name.to_owned(), text: block(text) });
        }
        rest = &rest["<!-- ".len()..];
    }
    steps
}

/// What a shell does, without what it is told in comments.
fn without_comments(step: Step) -> Step {
    let code = |text: String| -> String {
        let lines = text.lines().map(|line| match line.find('#') {
            Some(0) => "",
            Some(at) if line[..at].ends_with(' ') => line[..at].trim_end(),
            _ => line,
        });
        lines.filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
    };
    match step {
        Step::Commands(text) => Step::Commands(code(text)),
        Step::File { name, text } => Step::File { name, text: code(text) },
    }
}

/// The images of the documents.
fn images() -> Vec<NamedImage> {
    let image = |seed: u64| {
        ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [Layer::random(seed, 4000)])
            .platform("linux/arm64", [Layer::random(seed + 1, 4000)])
            .build()
    };
    let named = [("team/app", "v1"), ("team/app", "v2"), ("pause", "3.10"), ("coredns/coredns", "v1.11.1")];
    (1..)
        .zip(named)
        .map(|(number, (repository, tag))| NamedImage {
            repository: repository.parse().unwrap(),
            tag: tag.parse().unwrap(),
            image: image(10 * number),
        })
        .collect()
}

struct Machine {
    ferry: Ferry,
    public: Served,
    mirror: Served,
}

impl Machine {
    async fn new() -> Self {
        let ferry = Ferry::new();
        let public = ferry.serve(&ferry.path("public"), 0).await;
        let mirror = ferry.serve(&ferry.path("mirror"), 0).await;
        push(&images(), &public.host()).await;
        std::fs::create_dir(ferry.path("work")).unwrap();
        Self { ferry, public, mirror }
    }

    /// A text with the ports of this machine.
    fn here(&self, text: &str) -> String {
        let ports = [("5001", "PUBLIC", &self.public), ("5000", "MIRROR", &self.mirror)];
        // In two steps, because a real port may begin like one of these.
        let text = ports.iter().fold(text.to_owned(), |text, (written, name, _)| {
            text.replace(&format!("localhost:{written}"), &format!("localhost:<{name}>"))
                .replace(&format!("localhost-{written}"), &format!("localhost-<{name}>"))
        });
        ports.iter().fold(text, |text, (_, name, served)| {
            text.replace(&format!("<{name}>"), &served.address.port().to_string())
        })
    }

    async fn run(&self, step: &Step, place: &str) {
        let work = self.ferry.path("work");
        match step {
            Step::File { name, text } => std::fs::write(work.join(name), self.here(text)).unwrap(),
            Step::Commands(text) => {
                let program = Path::new(env!("CARGO_BIN_EXE_ferry")).parent().unwrap();
                let path = format!("{}:/usr/local/bin:/usr/bin:/bin", program.display());
                let mut shell = tokio::process::Command::new("sh");
                shell.args(["-e", "-u", "-c", &self.here(text)]).current_dir(&work);
                shell.env_clear().env("HOME", self.ferry.home.path()).env("PATH", path).kill_on_drop(true);
                let output = shell.stdin(std::process::Stdio::null()).output().await.unwrap();
                let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
                assert_eq!(output.status.code(), Some(0), "{place}:\n{text}\n{out}{err}");
            }
        }
    }
}

async fn executed(name: &str, least: usize) {
    for language in LANGUAGES {
        let (machine, place) = (Machine::new().await, format!("{language}/{name}"));
        let steps = steps(&document(language, name));
        let commands = steps.iter().filter(|step| matches!(step, Step::Commands(_))).count();
        assert!(commands >= least, "{place}: {commands} blocks are marked");
        for step in &steps {
            machine.run(step, &place).await;
        }
    }
    let [english, chinese] = LANGUAGES.map(|language| {
        steps(&document(language, name)).into_iter().map(without_comments).collect::<Vec<_>>()
    });
    assert_eq!(english, chinese, "{name}: both languages show the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn copying_is_as_it_is_told() {
    executed("copy.md", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_as_it_is_told() {
    executed("archives.md", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rewriting_is_as_it_is_told() {
    executed("rewrite.md", 2).await;
}
