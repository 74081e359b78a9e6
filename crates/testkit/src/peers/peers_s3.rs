use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{LIMIT, Running};

/// Where `scripts/test` puts the S3 server; elsewhere it is looked for in `PATH`.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools/bin/versitygw");

/// The bucket that an [`S3Server`] has.
pub const BUCKET: &str = "images";

/// The id of its access key.
pub const KEY: &str = "ferry";

/// Its access key.
pub const SECRET: &str = "not-a-secret-at-all";

/// A running versitygw, an S3 server that keeps objects in files. Killed when dropped, its content is gone then.
#[derive(Debug)]
pub struct S3Server {
    process: Running,
    address: SocketAddr,
    dir: TempDir,
}

impl S3Server {
    /// Starts one with an empty bucket and waits until it answers.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] saying how to get it if it is not installed; otherwise what it logged.
    pub async fn start() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("root").join(BUCKET))?;
        fs::create_dir_all(dir.path().join("meta"))?;
        // It does not tell which port it was given, so one that is free just now has to do.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = Command::new(program())
            .args(["--quiet", "--port", &address.to_string(), "posix", "--sidecar"])
            .args([dir.path().join("meta"), dir.path().join("root")])
            .env_clear()
            .envs([("ROOT_ACCESS_KEY", KEY), ("ROOT_SECRET_KEY", SECRET)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("log"))?)
            .spawn()
            .map_err(missing)?;
        let mut server = Self { process: Running(process), address, dir };
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The bucket's objects as files, below which every object has the path of its name.
    pub fn bucket(&self) -> PathBuf {
        self.dir.path().join("root").join(BUCKET)
    }

    /// The names of all objects, sorted.
    ///
    /// # Errors
    /// Whatever reading directories yields.
    pub fn objects(&self) -> io::Result<Vec<String>> {
        let (root, mut found) = (self.bucket(), Vec::new());
        collect(&root, &root, &mut found)?;
        found.sort_unstable();
        Ok(found)
    }

    async fn wait_until_ready(&mut self) -> io::Result<()> {
        let started = Instant::now();
        while answers(self.address).await.is_err() {
            if self.process.0.try_wait()?.is_some() || started.elapsed() > LIMIT {
                let log = fs::read_to_string(self.dir.path().join("log"))?;
                return Err(io::Error::other(format!("versitygw does not start:\n{log}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

fn program() -> PathBuf {
    let installed = Path::new(INSTALLED);
    if installed.is_file() { installed.to_owned() } else { "versitygw".into() }
}

fn missing(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let text = "versitygw is missing; scripts/test installs it where Go is installed";
            io::Error::new(io::ErrorKind::NotFound, text)
        }
        _ => error,
    }
}

/// Parts of objects that are being uploaded are in a directory of the server's own.
fn collect(root: &Path, directory: &Path, found: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(root, &entry.path(), found)?;
        } else if let Ok(name) = entry.path().strip_prefix(root) {
            found.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// Any HTTP answer will do.
async fn answers(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut start = [0; 7];
    stream.read_exact(&mut start).await?;
    if &start == b"HTTP/1." { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stranger_is_refused() {
        let server = S3Server::start().await.unwrap();
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        stream.write_all(b"GET /images/none HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(server.objects().unwrap().is_empty());
    }
}
