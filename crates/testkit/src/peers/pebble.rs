use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::proxies::free_address;
use super::{LIMIT, Running, missing};
use crate::authority::Authority;

/// Debian's build of the ACME server for tests.
const PEBBLE: &str = "/usr/bin/pebble";

/// The DNS that it asks, from the same package.
const CHALLTESTSRV: &str = "/usr/bin/pebble-challtestsrv";

/// How a [`Pebble`] behaves.
#[derive(Debug, Clone, Default)]
pub struct PebbleOptions {
    /// Where it looks for the proof of `http-01`.
    pub http_port: u16,
    /// Where it looks for the proof of `tls-alpn-01`.
    pub tls_port: u16,
    /// How many seconds its certificates are good; as long as it likes if 0.
    pub validity: u64,
    /// It wants an account with this key identifier and HMAC key (base64url).
    pub external: Option<(String, String)>,
}

/// A running ACME server with a DNS of its own, in which there is nothing yet. Both end when dropped.
#[derive(Debug)]
pub struct Pebble {
    _processes: [Running; 2],
    server: SocketAddr,
    management: SocketAddr,
    names: SocketAddr,
    dir: TempDir,
}

impl Pebble {
    /// Starts one and waits until it answers. It refuses every fifth nonce, as servers may.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] naming the Debian package if it is not installed; otherwise what it logged.
    pub async fn start(options: &PebbleOptions) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let [server, management, names, dns] =
            [free_address()?, free_address()?, free_address()?, free_address()?];
        let authority = Authority::new()?;
        let own = authority.certify(&["127.0.0.1"])?;
        let file = |name: &str| dir.path().join(name);
        fs::write(file("ca.pem"), authority.certificate())?;
        fs::write(file("tls.crt"), own.certificate)?;
        fs::write(file("tls.key"), own.key)?;
        let mut config = serde_json::json!({
            "listenAddress": server, "managementListenAddress": management,
            "certificate": file("tls.crt"), "privateKey": file("tls.key"),
            "httpPort": options.http_port, "tlsPort": options.tls_port,
            "externalAccountBindingRequired": options.external.is_some(),
        });
        if let Some((id, key)) = &options.external {
            config["externalAccountMACKeys"] = serde_json::json!({ id: key });
        }
        if options.validity > 0 {
            config["certificateValidityPeriod"] = options.validity.into();
        }
        fs::write(file("config.json"), serde_json::json!({ "pebble": config }).to_string())?;
        let run = |command: &mut Command| -> io::Result<Running> {
            let log = File::options().create(true).append(true).open(file("log"))?;
            let command = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            command.spawn().map(Running).map_err(|e| missing(e, PEBBLE, "pebble"))
        };
        let resolver = run(Command::new(CHALLTESTSRV)
            .args(["-dns01", &dns.to_string(), "-management", &names.to_string()])
            .args([
                "-http01",
                "",
                "-https01",
                "",
                "-tlsalpn01",
                "",
                "-defaultIPv4",
                "",
                "-defaultIPv6",
                "",
            ]))?;
        let pebble = run(Command::new(PEBBLE)
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .arg("-config")
            .arg(file("config.json"))
            .args(["-dnsserver", &dns.to_string()]))?;
        let pebble = Self { _processes: [resolver, pebble], server, management, names, dir };
        pebble.wait_until_ready().await?;
        Ok(pebble)
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.server)
    }

    /// The root of its own certificate, a PEM file.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The URL of the root of the certificates that it gives, a PEM file.
    pub fn root(&self) -> String {
        format!("https://{}/roots/0", self.management)
    }

    /// Where its DNS is told what to say, over plain HTTP.
    pub fn names(&self) -> SocketAddr {
        self.names
    }

    /// Lets a host be found, on this machine.
    ///
    /// # Errors
    /// If its DNS does not answer.
    pub async fn know(&self, host: &str) -> io::Result<()> {
        let body = format!(r#"{{"host": "{host}.", "addresses": ["127.0.0.1"]}}"#);
        let mut stream = TcpStream::connect(self.names).await?;
        let length = body.len();
        let head =
            format!("POST /add-a HTTP/1.0\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n", self.names);
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.contains(" 200 ") { Ok(()) } else { Err(io::Error::other(answer)) }
    }

    /// So many certificates were asked for since it runs, and so many of the requests were taken.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn orders(&self) -> io::Result<usize> {
        Ok(self.log()?.matches("Added order ").count())
    }

    fn log(&self) -> io::Result<String> {
        fs::read_to_string(self.dir.path().join("log"))
    }

    async fn wait_until_ready(&self) -> io::Result<()> {
        let started = Instant::now();
        for address in [self.server, self.management, self.names] {
            while TcpStream::connect(address).await.is_err() {
                if started.elapsed() > LIMIT {
                    return Err(io::Error::other(format!("pebble does not start:\n{}", self.log()?)));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}
