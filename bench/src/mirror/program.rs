//! The programs that stand in front of an upstream, and how each is started.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::process::{Usage, usage};

/// How long a server may take to answer its first request.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Ferry,
    /// Files, not a proxy.
    Nginx,
    NginxCache,
    DockerRegistry,
    Distribution,
}

impl Kind {
    pub const OPPONENTS: [Self; 4] =
        [Self::Nginx, Self::NginxCache, Self::DockerRegistry, Self::Distribution];
    /// Opponents that are pull-through registries.
    pub const PROXIES: [Self; 2] = [Self::DockerRegistry, Self::Distribution];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ferry => "ferry",
            Self::Nginx => "nginx",
            Self::NginxCache => "nginx proxy_cache",
            Self::DockerRegistry => "docker-registry",
            Self::Distribution => "distribution 3",
        })
    }
}

/// A program that was found.
#[derive(Debug, Clone)]
pub struct Program {
    pub kind: Kind,
    pub path: PathBuf,
}

/// How a server is to be.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// What stands behind it.
    pub upstream: Option<SocketAddr>,
    /// The files of [`Kind::Nginx`].
    pub files: Option<PathBuf>,
    /// Certificate and key: it speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Every tag is to be confirmed each time it is asked for, where that can be said.
    pub confirm: bool,
}

/// A running server; killed when dropped, its content is gone then.
pub struct Server {
    pub address: SocketAddr,
    process: Child,
    _directory: TempDir,
}

impl Server {
    /// What it has used.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.process.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Program {
    /// Where it is, if it is installed: by Debian, or as `peers/build.sh` makes it.
    pub fn find(kind: Kind, ferry: &Path, built: &Path) -> Option<Self> {
        let path = match kind {
            Kind::Ferry => ferry.to_owned(),
            Kind::Nginx | Kind::NginxCache => PathBuf::from("/usr/sbin/nginx"),
            Kind::DockerRegistry => PathBuf::from("/usr/bin/docker-registry"),
            Kind::Distribution => built.join("registry"),
        };
        path.exists().then_some(Self { kind, path })
    }

    /// Starts it and waits until it answers.
    pub fn start(&self, setup: &Setup) -> Result<Server> {
        let directory = tempfile::tempdir()?;
        // Free a moment ago; not all of these programs can say which port they took.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let arguments = self.configure(setup, directory.path(), address)?;
        let log = directory.path().join("log");
        let mut process = Command::new(&self.path)
            .args(arguments)
            .env_clear()
            .env("HOME", directory.path())
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| self.path.display().to_string())?;
        let begun = Instant::now();
        while !answers(address) {
            if process.try_wait()?.is_some() || begun.elapsed() > START_LIMIT {
                process.kill()?;
                process.wait()?;
                bail!("{} does not start:\n{}", self.kind, fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Server { address, process, _directory: directory })
    }

    /// Writes its configuration; the arguments that name it.
    fn configure(&self, setup: &Setup, directory: &Path, address: SocketAddr) -> Result<Vec<String>> {
        let (name, text) = match self.kind {
            Kind::Ferry => ("ferry.yaml", ferry(setup)?),
            Kind::Nginx => ("nginx.conf", nginx_files(setup, directory, address)?),
            Kind::NginxCache => ("nginx.conf", nginx_cache(setup, directory, address)?),
            Kind::DockerRegistry | Kind::Distribution => {
                ("config.yml", distribution(setup, directory, address)?)
            }
        };
        let path = directory.join(name);
        fs::write(&path, text)?;
        let path = path.display().to_string();
        let storage = directory.join("storage").display().to_string();
        Ok(match self.kind {
            Kind::Ferry => {
                let listen = address.to_string();
                ["serve", "--config", &path, "--storage", &storage, "--listen", &listen]
                    .map(Into::into)
                    .into()
            }
            Kind::Nginx | Kind::NginxCache => {
                // The prefix is where it writes before it has read the configuration.
                let prefix = directory.display().to_string();
                ["-p", &prefix, "-e", "stderr", "-c", &path].map(Into::into).into()
            }
            Kind::DockerRegistry | Kind::Distribution => ["serve", &path].map(Into::into).into(),
        })
    }
}

/// Any answer will do; a TLS server says something to plain text, too.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        stream.read_exact(&mut [0])
    };
    ask().is_ok()
}

fn upstream(setup: &Setup) -> Result<SocketAddr> {
    setup.upstream.context("there is no upstream")
}

fn ferry(setup: &Setup) -> Result<String> {
    let upstream = upstream(setup)?;
    let freshness = if setup.confirm { "    freshness: {moving: 0s, version_like: 0s}\n" } else { "" };
    let tls = setup.tls.as_ref().map(|(certificate, key)| {
        let (certificate, key) = (certificate.display(), key.display());
        format!("  tls:\n    certificates:\n      - {{certificate: \"{certificate}\", key: \"{key}\"}}\n")
    });
    Ok(format!(
        "serve:\n{}  mirror:\n    upstreams: [\"{upstream}\"]\n    default: \"{upstream}\"\n{freshness}",
        tls.unwrap_or_default()
    ))
}

fn nginx(setup: &Setup, directory: &Path, address: SocketAddr, (http, server): (&str, &str)) -> String {
    let at = directory.display();
    let (kind, tls) = match &setup.tls {
        None => ("", String::new()),
        Some((certificate, key)) => {
            let (certificate, key) = (certificate.display(), key.display());
            (
                " ssl",
                format!("ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;"),
            )
        }
    };
    format!(
        "user root; daemon off; worker_processes 2; pid {at}/pid; error_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n\
         client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
         uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n{http}\n\
         server {{ listen {address}{kind}; {tls} {server} }} }}\n"
    )
}

fn nginx_files(setup: &Setup, directory: &Path, address: SocketAddr) -> Result<String> {
    let root = setup.files.as_ref().context("there are no files")?.display().to_string();
    Ok(nginx(setup, directory, address, ("", &format!("root {root};"))))
}

fn nginx_cache(setup: &Setup, directory: &Path, address: SocketAddr) -> Result<String> {
    let (at, upstream) = (directory.display(), upstream(setup)?);
    let http = format!("proxy_cache_path {at}/cache keys_zone=cache:10m inactive=1d use_temp_path=off;");
    let server = format!(
        "location / {{ proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_cache cache; proxy_cache_valid 200 1h; proxy_cache_lock on; }}"
    );
    Ok(nginx(setup, directory, address, (&http, &server)))
}

fn distribution(setup: &Setup, directory: &Path, address: SocketAddr) -> Result<String> {
    let (at, upstream) = (directory.display(), upstream(setup)?);
    Ok(format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {at}/storage}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}\n\
         http: {{addr: \"{address}\", secret: not-a-secret}}\nproxy: {{remoteurl: \"http://{upstream}\"}}\n"
    ))
}
