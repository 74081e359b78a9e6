use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ferry_oci::Registry;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{LIMIT, Running, missing};

/// Debian's build of the distribution registry.
const DOCKER_REGISTRY: &str = "/usr/bin/docker-registry";

/// Debian's skopeo.
const SKOPEO: &str = "/usr/bin/skopeo";

/// The user that [`RegistryOptions::login`] lets in.
pub const USER: &str = "ferry";

/// The password of [`USER`].
pub const PASSWORD: &str = "secret";

/// `ferry:secret` in the only form that the registry reads: bcrypt, here with the least cost.
const HTPASSWD: &str = "ferry:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

/// What a [`DockerRegistry`] is to do beyond the plain.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Ask for the basic credentials [`USER`] and [`PASSWORD`].
    pub login: bool,
    /// Speak TLS with this certificate and key, both PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Let in only who shows a certificate that this PEM file certifies.
    pub clients: Option<PathBuf>,
    /// Ask for tokens.
    pub tokens: Option<TokenAuth>,
}

/// Whose tokens a [`DockerRegistry`] takes.
#[derive(Debug, Clone)]
pub struct TokenAuth {
    /// Where clients get them.
    pub realm: String,
    /// For whom they have to be, and who has to give them.
    pub service: String,
    /// What they are verified with: a PEM file.
    pub certificate: PathBuf,
}

/// A running `docker-registry` 2.8 that allows deletion. Killed when dropped, its content is gone then.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Running,
    address: SocketAddr,
    dir: TempDir,
}

impl DockerRegistry {
    /// Starts a plain one and waits until it answers.
    ///
    /// # Errors
    /// See [`DockerRegistry::start_with`].
    pub async fn start() -> io::Result<Self> {
        Self::start_with(&RegistryOptions::default()).await
    }

    /// Starts one and waits until it answers.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] naming the Debian package if it is not installed; otherwise what it logged.
    pub async fn start_with(options: &RegistryOptions) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("config.yml");
        fs::write(dir.path().join("htpasswd"), HTPASSWD)?;
        fs::write(&config, configuration(&dir, options))?;
        let process = Command::new(DOCKER_REGISTRY)
            .arg("serve")
            .arg(&config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log"))?)
            .spawn()
            .map_err(|e| missing(e, DOCKER_REGISTRY, "docker-registry"))?;
        let mut registry =
            Self { process: Running(process), address: SocketAddr::from(([127, 0, 0, 1], 0)), dir };
        registry.wait_until_ready().await?;
        Ok(registry)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as references write it.
    pub fn host(&self) -> Registry {
        match self.address.to_string().parse() {
            Ok(host) => host,
            Err(e) => unreachable!("an address and port are a registry: {e}"),
        }
    }

    /// Removes all its content behind its back; it goes on running, empty.
    ///
    /// # Errors
    /// Whatever removing files yields.
    pub fn wipe(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.dir.path().join("data/docker")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The port is the system's choice, so it has to be read from the log.
    async fn wait_until_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        loop {
            let log = fs::read_to_string(self.dir.path().join("log"))?;
            if let Some(address) = listening_address(&log) {
                self.address = address;
                if answers(address).await.is_ok() {
                    return Ok(());
                }
            }
            if self.process.0.try_wait()?.is_some() || started.elapsed() > LIMIT {
                return Err(io::Error::other(format!("docker-registry does not start:\n{log}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn configuration(dir: &TempDir, options: &RegistryOptions) -> String {
    let dir = dir.path().display();
    let mut text = format!(
        "version: 0.1\n\
         log: {{level: info, accesslog: {{disabled: true}}}}\n\
         storage:\n  filesystem: {{rootdirectory: {dir}/data}}\n  delete: {{enabled: true}}\n  \
         maintenance: {{uploadpurging: {{enabled: false}}}}\n\
         http:\n  addr: 127.0.0.1:0\n  secret: not-a-secret\n"
    );
    if let Some((certificate, key)) = &options.tls {
        let clients = options.clients.as_ref();
        let clients = clients.map_or(String::new(), |bundle| format!(", clientcas: [{}]", bundle.display()));
        let (certificate, key) = (certificate.display(), key.display());
        text += &format!("  tls: {{certificate: {certificate}, key: {key}{clients}}}\n");
    }
    if options.login {
        text += &format!("auth:\n  htpasswd: {{realm: test, path: {dir}/htpasswd}}\n");
    }
    if let Some(TokenAuth { realm, service, certificate }) = &options.tokens {
        let bundle = certificate.display();
        text += &format!(
            "auth:\n  token: {{realm: \"{realm}\", service: {service}, issuer: {service}, rootcertbundle: {bundle}}}\n"
        );
    }
    text
}

fn listening_address(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on ")?;
    // Without the end of the address the line is still being written.
    rest.split_once(['"', ','])?.0.parse().ok()
}

/// Any HTTP answer will do: with a login it is 401, and a TLS server says 400 to plain text.
async fn answers(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").await?;
    let mut start = [0; 7];
    stream.read_exact(&mut start).await?;
    if &start == b"HTTP/1." { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Runs `skopeo` with a home of its own, so that no credentials or settings of the machine count, and without a
/// signature policy.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] naming the Debian package if it is not installed. That it failed is in the output's
/// status.
pub async fn skopeo<I, S>(args: I) -> io::Result<Output>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let home = tempfile::tempdir()?;
    let variables = ["HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "TMPDIR"]
        .map(|name| (OsString::from(name), home.path().as_os_str().to_owned()));
    tokio::process::Command::new(SKOPEO)
        .arg("--insecure-policy")
        .args(args)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| missing(e, SKOPEO, "skopeo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_registry_asks_for_the_password_and_lets_it_in() {
        let registry =
            DockerRegistry::start_with(&RegistryOptions { login: true, ..RegistryOptions::default() })
                .await
                .unwrap();
        let image = format!("docker://{}/none:none", registry.host());
        for (credentials, expected) in [
            (format!("{USER}:wrong"), "authentication required"),
            (format!("{USER}:{PASSWORD}"), "manifest unknown"),
        ] {
            let args = ["inspect", "--tls-verify=false", "--creds", &credentials, &image];
            let output = skopeo(args).await.unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && errors.contains(expected), "{credentials}: {errors}");
        }
    }

    #[tokio::test]
    async fn a_wiped_registry_runs_on_without_content() {
        let registry = DockerRegistry::start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let layout = format!("oci:{}:t", dir.path().display());
        write_layout(dir.path());
        let image = format!("docker://{}/a/b:t", registry.host());
        let pushed = skopeo(["copy", "--dest-tls-verify=false", &layout, &image]).await.unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        let inspect = ["inspect", "--raw", "--tls-verify=false", &image];
        assert!(skopeo(inspect).await.unwrap().status.success());
        registry.wipe().unwrap();
        registry.wipe().unwrap();
        let gone = skopeo(inspect).await.unwrap();
        assert!(String::from_utf8_lossy(&gone.stderr).contains("manifest unknown"));
    }

    /// A generated image as skopeo takes it: what the builders make is an image to others too.
    fn write_layout(dir: &std::path::Path) {
        use crate::images::{ImageBuilder, Layer, MediaTypes};
        let image = ImageBuilder::new(MediaTypes::Oci)
            .platform("linux/amd64", [Layer::random(1, 1000), Layer::of_files(&[("a", b"b")])])
            .build_single();
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        for (digest, bytes) in &image.blobs {
            fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        }
        let root = &image.root;
        fs::write(dir.join("blobs/sha256").join(root.digest().hex()), root.bytes()).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": root.media_type(), "digest": root.digest(), "size": root.bytes().len(),
            "annotations": {"org.opencontainers.image.ref.name": "t"}}]});
        fs::write(dir.join("index.json"), index.to_string()).unwrap();
    }

    #[test]
    fn the_port_is_found_in_the_log() {
        let line =
            "level=info msg=\"redis not configured\"\nlevel=info msg=\"listening on 127.0.0.1:46137\" x=y\n";
        assert_eq!(listening_address(line).unwrap().port(), 46137);
        let tls = "msg=\"listening on 127.0.0.1:46137, tls\"";
        assert_eq!(listening_address(tls).unwrap().port(), 46137);
        assert!(
            listening_address("msg=\"listening on 127.0.0.1:461").is_none(),
            "not yet written to its end"
        );
    }
}
