//! Traces of `ferry serve`, as a collector gets them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod collector;
#[expect(dead_code, reason = "it is shared with tests that need more of it")]
#[path = "../e2e/harness.rs"]
mod harness;
mod spans;
mod troubles;

use std::process::Stdio;
use std::time::Duration;

use ferry_testkit::images::{ImageBuilder, Layer, MediaTypes, NamedImage};
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use harness::{Ferry, signal};

/// A `ferry serve` with an environment.
pub(crate) struct Traced {
    child: Child,
    address: String,
    said: std::path::PathBuf,
}

impl Traced {
    /// Starts a server, and waits until it serves.
    pub(crate) async fn start(
        ferry: &Ferry,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let said = ferry.path(&format!("{name}.errors"));
        let errors = std::fs::File::create(&said).unwrap();
        let serve = [arguments, &["serve", "--listen", "127.0.0.1:0", "--storage", name]].concat();
        let mut command = ferry.command(&serve);
        command.envs(environment.iter().copied()).stderr(Stdio::from(errors));
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it says where it listens");
        let address = line.rsplit_once("http://").unwrap().1.to_owned();
        Self { child, address, said }
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        http().get(format!("http://{}{path}", self.address))
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    /// Asks it to end; returns what it has said on standard error.
    pub(crate) async fn stop(mut self) -> String {
        signal(&self.child, "TERM").await;
        let ended = tokio::time::timeout(Duration::from_secs(120), self.child.wait());
        let code = ended.await.expect("it ends").unwrap().code();
        assert_eq!(code, Some(0), "{}", self.said());
        self.said()
    }
}

pub(crate) fn http() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The whole answer to a request that is granted.
pub(crate) async fn granted(request: RequestBuilder) -> Vec<u8> {
    let answer: Response = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.bytes().await.unwrap().to_vec()
}

pub(crate) fn image() -> NamedImage {
    let image =
        ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, 70_000)]).build_single();
    NamedImage { repository: "a/b".parse().unwrap(), tag: "v1".parse().unwrap(), image }
}

/// Waits for what another process is about to do.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not come to pass that {what}");
}
