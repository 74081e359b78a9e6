//! A registry on a loopback port and the smallest client that can talk to it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferry_oci::{Digest, media_type};
use ferry_serve::{Handler, Limits, RegistryService, serve};
use ferry_store::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running server; it stops when dropped.
pub struct Server {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub task: Option<JoinHandle<()>>,
    _guard: DropGuard,
}

/// The answer to one request.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

impl Server {
    /// A server that waits as long as a real one.
    pub async fn start() -> Self {
        Self::with(Limits::default(), Duration::from_secs(60)).await
    }

    /// A server that gives up a request body after `idle`.
    pub async fn with(limits: Limits, idle: Duration) -> Self {
        let service = RegistryService::new(Arc::new(MemoryStore::new())).idle_after(idle);
        Self::of(service, limits).await
    }

    /// A server of that handler.
    pub async fn of(service: impl Handler, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(serve(listener, service, limits, stop.clone())));
        Self { address, stop: stop.clone(), task, _guard: stop.drop_guard() }
    }

    /// Sends one request on a connection of its own. `line` is method and target.
    pub async fn send(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut stream = self.begin(line, headers, body.len()).await;
        stream.write_all(body).await.unwrap();
        finish(stream).await
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.send(&format!("GET {target}"), &[], b"").await
    }

    /// Sends the head of a request only.
    pub async fn begin(&self, line: &str, headers: &[(&str, &str)], length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += "host: x\r\n";
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        stream
    }

    pub async fn push_blob(&self, name: &str, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        let line = format!("POST /v2/{name}/blobs/uploads/?digest={digest}");
        assert_eq!(self.send(&line, &[], content).await.status, 201);
        digest
    }

    /// Pushes an image without layers under `reference`, with a config blob that is pushed before.
    pub async fn push_image(&self, name: &str, reference: &str, extra: &str) -> (Digest, String) {
        let config = self.push_blob(name, b"{}").await;
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{config}","size":2}},"layers":[]{extra}}}"#,
            media_type::OCI_MANIFEST,
            media_type::OCI_EMPTY
        );
        let digest = Digest::sha256(manifest.as_bytes());
        let reference = if reference.is_empty() { digest.to_string() } else { reference.to_owned() };
        let reply = self.put_manifest(&format!("/v2/{name}/manifests/{reference}"), &manifest).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        (digest, manifest)
    }

    pub async fn put_manifest(&self, target: &str, manifest: &str) -> Reply {
        let kind = [("content-type", media_type::OCI_MANIFEST)];
        self.send(&format!("PUT {target}"), &kind, manifest.as_bytes()).await
    }
}

/// Reads to the end of the connection.
pub async fn finish(mut stream: TcpStream) -> Reply {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head") + 4;
    let head = std::str::from_utf8(&all[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap()[9..12].parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Reply { status, headers, body: all[end..].to_vec() }
}
