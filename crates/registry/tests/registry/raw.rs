//! A server that writes bytes, whatever HTTP has to say about them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferry_oci::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What is written in answer to a request.
pub struct Script {
    first: Vec<u8>,
    again: Vec<u8>,
    times: usize,
    pause: Duration,
}

impl Script {
    /// These bytes, and then the end of the connection.
    pub fn new(first: impl Into<Vec<u8>>) -> Self {
        Self { first: first.into(), again: Vec::new(), times: 0, pause: Duration::ZERO }
    }

    /// Further bytes again and again, for as long as they are taken.
    pub fn endless(mut self, again: impl Into<Vec<u8>>) -> Self {
        (self.again, self.times) = (again.into(), usize::MAX);
        self
    }

    /// Waits before each of the further bytes.
    pub fn slowly(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
}

/// The head of an answer with a chunked body, and a chunk of it.
pub fn chunked(status: &str, chunk: &[u8]) -> (String, Vec<u8>) {
    let head = format!("HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
    (head, chunk)
}

pub struct Raw {
    pub address: SocketAddr,
    written: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Raw {
    /// Answers each request, of which it is given the head, on a connection of its own.
    pub async fn start(answer: impl Fn(&str) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let written = Arc::<AtomicUsize>::default();
        let (answer, count) = (Arc::new(answer), Arc::clone(&written));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                tokio::spawn(async move { converse(stream, &*answer, &count).await });
            }
        });
        Self { address, written, server }
    }

    pub fn registry(&self) -> Registry {
        self.address.to_string().parse().unwrap()
    }

    /// How many bytes were taken from it, or wait in the buffers of the connection.
    pub fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }
}

async fn converse(
    mut stream: TcpStream,
    answer: &(impl Fn(&str) -> Script + Sync),
    written: &AtomicUsize,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let script = answer(&String::from_utf8_lossy(&head));
    stream.write_all(&script.first).await.ok()?;
    written.fetch_add(script.first.len(), Ordering::SeqCst);
    for _ in 0..script.times {
        if !script.pause.is_zero() {
            tokio::time::sleep(script.pause).await;
        }
        stream.write_all(&script.again).await.ok()?;
        written.fetch_add(script.again.len(), Ordering::SeqCst);
    }
    stream.shutdown().await.ok()
}
