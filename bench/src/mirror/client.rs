//! A client that costs little: blocking sockets, large reads, nothing kept.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ferry_oci::{Digest, Hasher};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How much is read at once.
const READ: usize = 256 * 1024;
/// The head of an answer is smaller.
const MAX_HEAD: usize = 16 * 1024;

/// What all clients accept of manifests.
pub const ACCEPT: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

/// Where a client connects, and how.
#[derive(Clone)]
pub struct Place {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
    /// No answer may take longer between two reads.
    pub patience: Duration,
}

impl Place {
    /// Plain HTTP.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, patience: Duration::from_secs(600) }
    }
}

/// A connection that is kept.
pub struct Client {
    stream: Box<dyn Stream>,
    host: String,
    buffer: Vec<u8>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An answer whose head is there.
pub struct Answer<'a> {
    client: &'a mut Client,
    /// Bytes at the beginning of the buffer that belong to the body.
    here: usize,
    left: u64,
}

impl Client {
    pub fn connect(place: &Place) -> Result<Self> {
        let stream = TcpStream::connect(place.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(place.patience))?;
        let stream: Box<dyn Stream> = match &place.tls {
            None => Box::new(stream),
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, stream))
            }
        };
        Ok(Self { stream, host: place.address.to_string(), buffer: vec![0; READ] })
    }

    /// Asks for something; anything but 200 is an error.
    pub fn get(&mut self, path: &str) -> Result<Answer<'_>> {
        let host = &self.host;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {ACCEPT}\r\n\r\n");
        self.stream.write_all(request.as_bytes())?;
        let mut there = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[there..])?;
            ensure!(read > 0, "{path}: the connection was closed");
            there += read;
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&self.buffer[..there])?;
            let httparse::Status::Complete(head) = parsed else {
                ensure!(there < MAX_HEAD, "{path}: the head of the answer does not end");
                continue;
            };
            ensure!(response.code == Some(200), "{path}: status {:?}", response.code);
            let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
            let Some(length) = length else { bail!("{path}: no Content-Length") };
            let left = std::str::from_utf8(length.value)?.parse().context("Content-Length")?;
            self.buffer.copy_within(head..there, 0);
            return Ok(Answer { client: self, here: there - head, left });
        }
    }
}

impl Answer<'_> {
    /// The next bytes of the body; none at its end.
    pub fn next(&mut self) -> io::Result<&[u8]> {
        if self.here == 0 && self.left > 0 {
            let wanted = self.client.buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.here = self.client.stream.read(&mut self.client.buffer[..wanted])?;
            if self.here == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let here = std::mem::take(&mut self.here);
        self.left = self.left.checked_sub(here as u64).ok_or(io::ErrorKind::InvalidData)?;
        Ok(&self.client.buffer[..here])
    }

    /// Reads everything and forgets it.
    pub fn discard(mut self) -> io::Result<u64> {
        let mut length = 0;
        loop {
            match self.next()?.len() {
                0 => return Ok(length),
                read => length += read as u64,
            }
        }
    }

    /// Reads everything and compares its digest.
    pub fn verify(mut self, digest: &Digest) -> Result<()> {
        let mut hasher = Hasher::new(digest.algorithm());
        loop {
            match self.next()? {
                [] => break,
                bytes => hasher.update(bytes),
            }
        }
        let found = hasher.finish();
        ensure!(found == *digest, "{digest} came as {found}");
        Ok(())
    }
}

/// Seconds until the first byte of a body is there; the rest is read afterwards.
pub fn first_byte(client: &mut Client, path: &str) -> Result<f64> {
    let begun = Instant::now();
    let mut answer = client.get(path)?;
    answer.next()?;
    let seconds = begun.elapsed().as_secs_f64();
    answer.discard()?;
    Ok(seconds)
}
