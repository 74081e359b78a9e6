//! The part of the templates that installs, with `curl`, from what `scripts/release-build` packs.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{Template, Workspace, root};
use crate::harness::Ran;

/// A mirror of releases: the files of a directory, over HTTP.
struct Mirror {
    files: Workspace,
    url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(stream: TcpStream, directory: PathBuf) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let mut line = first.clone();
    while line.trim() != "" {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (status, body) =
        fs::read(directory.join(path)).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

impl Mirror {
    /// A release of a program that stands in for ferry.
    async fn start() -> Self {
        let files = Workspace::new();
        let program = files.program("ferry", "#!/bin/sh\necho installed \"$@\"\n");
        let script = root().join("scripts/release-build");
        let out = files.path(&format!("v{}", env!("CARGO_PKG_VERSION")));
        let arguments = [script.to_str().unwrap(), TARGET, out.to_str().unwrap(), program.to_str().unwrap()];
        files.run_by(&arguments, &[("SOURCE_DATE_EPOCH", "0")]).await.ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let directory = files.0.path().to_owned();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = answer(stream, directory.clone()).await;
            }
        });
        Self { files, url, server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path(&format!("v{}/{name}", env!("CARGO_PKG_VERSION")))
    }

    fn archive(&self) -> PathBuf {
        self.file(&format!("ferry-{}-{TARGET}.tar.gz", env!("CARGO_PKG_VERSION")))
    }

    /// What SHA256SUMS says.
    fn checksum(&self) -> String {
        let sums = fs::read_to_string(self.file("SHA256SUMS")).unwrap();
        sums.split_once(' ').unwrap().0.to_owned()
    }

    /// Installs by the lines of a template; the checksum is the one that the user wrote down, if any.
    async fn install(&self, workspace: &Workspace, script: &str, checksum: &str) -> Ran {
        let variables = [
            ("FERRY_VERSION", env!("CARGO_PKG_VERSION")),
            ("FERRY_DOWNLOAD", self.url.as_str()),
            ("FERRY_SHA256", checksum),
        ];
        workspace.run(script, &variables).await
    }
}

#[cfg(target_arch = "x86_64")]
const TARGET: &str = "x86_64-unknown-linux-musl";
#[cfg(target_arch = "aarch64")]
const TARGET: &str = "aarch64-unknown-linux-musl";

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_installed() {
    let mirror = Mirror::start().await;
    for template in Template::all() {
        for checksum in [String::new(), mirror.checksum()] {
            let workspace = Workspace::new();
            let ran = mirror.install(&workspace, &template.script("install"), &checksum).await.ok();
            assert_eq!(ran.out, "installed --version\n", "{}", template.path);
            assert!(workspace.path(".ferry-bin/ferry").is_file(), "{}", template.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_script_for_people_installs_in_any_shell() {
    let mirror = Mirror::start().await;
    let workspace = Workspace::new();
    let script = root().join("scripts/install.sh");
    let variables = [("FERRY_DOWNLOAD", mirror.url.as_str())];
    let ran = workspace.run_by(&["sh", script.to_str().unwrap()], &variables).await.ok();
    assert!(workspace.path(".local/bin/ferry").is_file(), "{ran:?}");
    assert!(ran.out.contains("to PATH"), "{ran:?}");
    let variables = [variables[0], ("FERRY_SHA256", "0000")];
    let refused = Workspace::new();
    let ran = refused.run_by(&["sh", script.to_str().unwrap()], &variables).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(!refused.path(".local").exists(), "{ran:?}");
}

/// Nothing may be there after a refused installation.
async fn refused(mirror: &Mirror, checksum: &str, reason: &str) {
    for template in Template::all() {
        let workspace = Workspace::new();
        let ran = mirror.install(&workspace, &template.script("install"), checksum).await;
        assert!(ran.code.is_some_and(|code| code != 0), "{}: {ran:?}", template.path);
        assert!(ran.err.contains(reason), "{}: {ran:?}", template.path);
        assert!(!workspace.path(".ferry-bin").exists(), "{}: {ran:?}", template.path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_release_is_refused() {
    let mirror = Mirror::start().await;
    let checksum = mirror.checksum();
    refused(&mirror, &checksum.replace(|c: char| c != '0', "0"), "is not what was released").await;
    fs::OpenOptions::new().append(true).open(mirror.archive()).unwrap().write_all(b"!").unwrap();
    refused(&mirror, "", "is not what was released").await;
    refused(&mirror, &checksum, "is not what was released").await;
    fs::write(mirror.file("SHA256SUMS"), format!("{checksum}  something-else.tar.gz\n")).unwrap();
    refused(&mirror, "", "not in SHA256SUMS").await;
    fs::remove_file(mirror.archive()).unwrap();
    refused(&mirror, "", "404").await;
}
