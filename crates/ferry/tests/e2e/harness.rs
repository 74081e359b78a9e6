use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use ferry_oci::{Name, Reference, Registry};
use ferry_registry::{Anonymous, Client, ClientOptions};
use ferry_store::{Repository, RepositoryMut, Scope, Store};
use ferry_testkit::images::{Inventory, NamedImage, verify};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A user of ferry with a home of their own.
pub struct Ferry {
    pub home: TempDir,
}

/// What a run of ferry left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The run ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl Ferry {
    pub fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferry"));
        command.args(arguments).env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Writes a list for `--from-file`: every image from `source` to the same name under `prefix` at `target`.
    pub fn list(&self, images: &[NamedImage], source: &str, target: &str, prefix: &str) -> PathBuf {
        let line = |named: &NamedImage| {
            let NamedImage { repository, tag, .. } = named;
            format!("{source}/{repository}:{tag} {target}/{prefix}{repository}:{tag}\n")
        };
        let path = self.path(&format!("list-{}.txt", prefix.trim_end_matches('/')));
        std::fs::write(&path, images.iter().map(line).collect::<String>()).unwrap();
        path
    }

    /// Starts `ferry serve` on `directory`, on a free port or a given one.
    pub async fn serve(&self, directory: &Path, port: u16) -> Served {
        let listen = format!("127.0.0.1:{port}");
        let directory = directory.to_str().unwrap();
        self.serve_with(&["serve", "--listen", &listen, "--storage", directory]).await
    }

    /// Starts `ferry serve` as `arguments` say.
    pub async fn serve_with(&self, arguments: &[&str]) -> Served {
        self.serve_saying(arguments, Stdio::inherit()).await
    }

    /// The same, with `errors` as its standard error.
    pub async fn serve_saying(&self, arguments: &[&str], errors: Stdio) -> Served {
        let mut child = self.command(arguments).stderr(errors).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("ferry serve says where it listens");
        let address = line.rsplit_once("http://").unwrap().1.parse().unwrap();
        Served { child, address }
    }
}

/// A running `ferry serve`.
pub struct Served {
    child: Child,
    pub address: SocketAddr,
}

impl Served {
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Ends it without warning.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Has it read its configuration again, some time from now.
    pub async fn hang_up(&self) {
        signal(&self.child, "HUP").await;
    }

    /// Asks it to end, and waits.
    pub async fn stop(mut self) -> Option<i32> {
        signal(&self.child, "TERM").await;
        self.child.wait().await.unwrap().code()
    }
}

/// Sends a signal to a child.
pub async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("it still runs").to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().await.unwrap().success());
}

/// A registry as a store, read and written by ferry's own client.
pub fn remote(host: &str) -> Arc<dyn Store> {
    static TLS: std::sync::Once = std::sync::Once::new();
    TLS.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    let client = Client::new(ClientOptions::default(), Arc::new(Anonymous)).unwrap();
    client.registry(&host.parse::<Registry>().unwrap()).unwrap()
}

pub fn reader(host: &str, name: &str) -> Arc<dyn Repository> {
    remote(host).repository(&Scope::Hosted, &name.parse().unwrap())
}

pub fn writer(store: &dyn Store, name: &Name) -> Arc<dyn RepositoryMut> {
    store.writable(&Scope::Hosted, name).unwrap()
}

/// Pushes a set of images into a registry.
pub async fn push(images: &[NamedImage], host: &str) {
    let store = remote(host);
    for named in images {
        named.image.push_to(&*writer(&*store, &named.repository), Some(&named.tag)).await.unwrap();
    }
}

/// Computes every digest of the images under `prefix` anew and compares the roots.
pub async fn check(images: &[NamedImage], host: &str, prefix: &str) -> Inventory {
    let mut all = Inventory::default();
    for named in images {
        let repository = reader(host, &format!("{prefix}{}", named.repository));
        let root = repository.resolve(&Reference::Tag(named.tag.clone())).await.unwrap();
        assert_eq!(root.descriptor.digest, named.image.root.digest(), "{}:{}", named.repository, named.tag);
        all.merge(verify(&*repository, &Reference::Tag(named.tag.clone())).await.unwrap());
    }
    all
}
