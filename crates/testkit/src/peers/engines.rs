use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{LIMIT, Running, missing};

/// Debian's dockerd; other packages put theirs elsewhere.
const DOCKERD: &str = "/usr/sbin/dockerd";

/// Debian's containerd, which comes with dockerd.
const CONTAINERD: &str = "/usr/bin/containerd";

/// Where `docker`, `ctr`, `podman` and a shell are.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A container engine with all that it keeps in a directory of its own: whoever starts it has to be root. It is asked
/// to end when it is dropped, and its images are gone then.
#[derive(Debug)]
pub struct Engine {
    process: Running,
    /// What tells its clients where it is.
    variables: Vec<(&'static str, String)>,
    dir: TempDir,
}

impl Engine {
    /// Starts `dockerd` without a network of its own, and waits until it answers.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] naming the Debian package if it is not installed; otherwise what it logged.
    pub async fn dockerd() -> io::Result<Self> {
        Self::dockerd_with("{}").await
    }

    /// As [`Engine::dockerd`], with this as its `daemon.json`.
    ///
    /// # Errors
    /// As [`Engine::dockerd`].
    pub async fn dockerd_with(daemon_json: &str) -> io::Result<Self> {
        Self::dockerd_in(daemon_json, &[]).await
    }

    /// As [`Engine::dockerd_with`], with a proxy for what is not on this machine; `trusting` is the PEM file of the only
    /// authorities that count.
    ///
    /// # Errors
    /// As [`Engine::dockerd`].
    pub async fn dockerd_behind(
        proxy: SocketAddr,
        daemon_json: &str,
        trusting: Option<&Path>,
    ) -> io::Result<Self> {
        let proxy = format!("http://{proxy}");
        let mut variables = vec![("HTTP_PROXY", OsStr::new(&proxy)), ("HTTPS_PROXY", OsStr::new(&proxy))];
        variables.extend(trusting.map(|file| ("SSL_CERT_FILE", file.as_os_str())));
        Self::dockerd_in(daemon_json, &variables).await
    }

    async fn dockerd_in(daemon_json: &str, variables: &[(&str, &OsStr)]) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().display().to_string();
        // Settings of the machine do not count.
        fs::write(dir.path().join("daemon.json"), daemon_json)?;
        let mut command = Command::new(DOCKERD);
        command.arg(format!("--config-file={path}/daemon.json"));
        command.arg(format!("--data-root={path}/data")).arg(format!("--exec-root={path}/exec"));
        command.arg(format!("--pidfile={path}/pid")).arg(format!("--host=unix://{path}/socket"));
        command.args(["--storage-driver=vfs", "--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.env_clear().envs(variables.iter().copied());
        let variables = vec![("DOCKER_HOST", format!("unix://{path}/socket"))];
        Self::start(command, dir, variables, "docker info").await
    }

    /// Starts `containerd` without what Kubernetes needs of it, and waits until it answers.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] naming the Debian package if it is not installed; otherwise what it logged.
    pub async fn containerd() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().display().to_string();
        let config = format!(
            "version = 2\nroot = '{path}/root'\nstate = '{path}/state'\n\
             disabled_plugins = ['io.containerd.grpc.v1.cri']\n[grpc]\naddress = '{path}/socket'\n"
        );
        fs::write(dir.path().join("config.toml"), config)?;
        let mut command = Command::new(CONTAINERD);
        command.env_clear().arg(format!("--config={path}/config.toml"));
        let variables = vec![
            ("CONTAINERD_ADDRESS", format!("{path}/socket")),
            // It needs nothing of the kernel.
            ("CONTAINERD_SNAPSHOTTER", "native".to_owned()),
        ];
        Self::start(command, dir, variables, "ctr version").await
    }

    async fn start(
        mut command: Command,
        dir: TempDir,
        variables: Vec<(&'static str, String)>,
        question: &str,
    ) -> io::Result<Self> {
        let log = File::create(dir.path().join("log"))?;
        command.env("PATH", PATH).env("HOME", dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let program = command.get_program().to_string_lossy().into_owned();
        let process = command.spawn().map_err(|e| missing(e, &program, "docker.io"))?;
        let mut engine = Self { process: Running(process), variables, dir };
        let started = Instant::now();
        while !engine.shell(question).await?.status.success() {
            if engine.process.0.try_wait()?.is_some() || started.elapsed() > LIMIT {
                let log = fs::read_to_string(engine.dir.path().join("log"))?;
                return Err(io::Error::other(format!("{program} does not start:\n{log}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(engine)
    }

    /// What a shell does whose `docker` or `ctr` speaks to this engine.
    ///
    /// # Errors
    /// That there is no shell. That it failed is in the output's status.
    pub async fn shell(&self, script: &str) -> io::Result<Output> {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-ec", script]).env_clear().env("PATH", PATH).env("HOME", self.dir.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).kill_on_drop(true).output().await
    }
}

impl Drop for Engine {
    /// Killed at once, dockerd would leave its containerd behind.
    fn drop(&mut self) {
        let pid = self.process.0.id().to_string();
        let asked = Instant::now();
        let told = Command::new("kill").args(["-s", "TERM", &pid]).status();
        while told.is_ok() && asked.elapsed() < LIMIT && matches!(self.process.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
