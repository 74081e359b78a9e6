use std::fs::{self, File, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{LIMIT, Running, missing};

/// Debian's squid.
const SQUID: &str = "/usr/sbin/squid";

/// Debian's microsocks.
const MICROSOCKS: &str = "/usr/bin/microsocks";

/// An HTTP proxy that lets everyone through and looks up some names as loopback.
#[derive(Debug)]
pub struct Squid {
    _process: Running,
    address: SocketAddr,
    dir: TempDir,
}

impl Squid {
    /// Starts one that knows `names` as names of this machine.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] naming the Debian package if it is not installed; otherwise what it logged.
    pub async fn start(names: &[&str]) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        // Started by root it goes on as another user, who writes the logs.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777))?;
        let address = free_address()?;
        let path = dir.path().display();
        fs::write(dir.path().join("hosts"), format!("127.0.0.1 {}\n", names.join(" ")))?;
        let text = format!(
            "http_port {address}\nhttp_access allow all\ncache deny all\nhosts_file {path}/hosts\n\
             access_log stdio:{path}/access.log\ncache_log {path}/cache.log\npid_filename {path}/pid\n\
             coredump_dir {path}\nshutdown_lifetime 0 seconds\nlogfile_rotate 0\nmax_filedescriptors 1024\n\
             pinger_enable off\nnetdb_filename none\n"
        );
        fs::write(dir.path().join("squid.conf"), text)?;
        let log = File::create(dir.path().join("output"))?;
        let process = Command::new(SQUID)
            .args(["-N", "-f"])
            .arg(dir.path().join("squid.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| missing(e, SQUID, "squid"))?;
        let mut process = Running(process);
        wait_until_ready(&mut process, address, &dir.path().join("output")).await?;
        Ok(Self { _process: process, address, dir })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The requests that it has done with so far, a line each: method and target. A tunnel is done with when it ends.
    ///
    /// # Errors
    /// Whatever reading its log yields.
    pub fn requests(&self) -> io::Result<Vec<String>> {
        let log = fs::read_to_string(self.dir.path().join("access.log")).or_else(|e| match e.kind() {
            io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(e),
        })?;
        let words = |line: &str| line.split_whitespace().skip(5).take(2).collect::<Vec<_>>().join(" ");
        // Whoever only looks whether it listens asks nothing.
        Ok(log.lines().map(words).filter(|request| !request.starts_with('-')).collect())
    }
}

/// A SOCKS5 proxy that wants a user and a password.
#[derive(Debug)]
pub struct Microsocks {
    _process: Running,
    address: SocketAddr,
    dir: TempDir,
}

impl Microsocks {
    /// Starts one that lets `user` with `password` through.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] naming the Debian package if it is not installed; otherwise what it logged.
    pub async fn start(user: &str, password: &str) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = free_address()?;
        let log = File::create(dir.path().join("log"))?;
        let process = Command::new(MICROSOCKS)
            .args(["-i", &address.ip().to_string(), "-p", &address.port().to_string()])
            .args(["-u", user, "-P", password])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|e| missing(e, MICROSOCKS, "microsocks"))?;
        let mut process = Running(process);
        wait_until_ready(&mut process, address, &dir.path().join("log")).await?;
        Ok(Self { _process: process, address, dir })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has made for others.
    ///
    /// # Errors
    /// Whatever reading its log yields.
    pub fn connections(&self) -> io::Result<usize> {
        let log = fs::read(self.dir.path().join("log"))?;
        Ok(String::from_utf8_lossy(&log).matches("connected to").count())
    }
}

/// A port that was free a moment ago: neither proxy tells which one it took.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

async fn wait_until_ready(
    process: &mut Running,
    address: SocketAddr,
    log: &std::path::Path,
) -> io::Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        if process.0.try_wait()?.is_some() || started.elapsed() > LIMIT {
            return Err(io::Error::other(format!("it does not start:\n{}", fs::read_to_string(log)?)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
