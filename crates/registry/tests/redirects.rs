//! Where a registry sends the client, and what goes along.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ferry_oci::{Digest, Name, Registry};
use ferry_registry::{Client, ClientOptions, Credential, Credentials, Secret};
use ferry_store::{ByteRange, Error, Kind, Result, Scope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const CONTENT: &str = "content";

const CHALLENGE: &str = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"\r\nContent-Length: 0\r\n\
                         Connection: close\r\n\r\n";

/// Answers every request with the same text, after a challenge if it wants a login, and keeps the heads.
struct Canned {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    async fn start(answer: String) -> Self {
        Self::start_with(answer, false).await
    }

    async fn start_with(answer: String, login: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
                let answer = if login && !head.contains("\r\nauthorization: ") { CHALLENGE } else { &answer };
                kept.lock().unwrap().push(head);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn ok() -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{CONTENT}", CONTENT.len())
}

fn to(location: &str) -> String {
    format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

/// The login for every registry that asks.
struct Login;

#[async_trait]
impl Credentials for Login {
    async fn find(&self, _: &Registry, _: Option<&Name>) -> Result<Option<Credential>> {
        let password = Secret::new("hunter2".to_owned());
        Ok(Some(Credential::Password { username: "user".to_owned(), password }))
    }
}

async fn read(registry: &Canned) -> Result<String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options = ClientOptions {
        attempts: 1,
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        ..ClientOptions::default()
    };
    let client = Client::new(options, Arc::new(Login))?;
    let host: Registry = registry.address.to_string().parse().unwrap();
    let repository = client.registry(&host)?.repository(&Scope::Hosted, &"team/app".parse().unwrap());
    let blob = repository.blob(&Digest::sha256(CONTENT.as_bytes()), ByteRange::ALL).await?;
    Ok(String::from_utf8(blob.into_bytes().await?.to_vec()).unwrap())
}

fn refused(error: &Error) -> bool {
    error.detail().contains("not public") && !error.kind().is_transient()
}

#[tokio::test]
async fn credentials_stay_with_the_registry() {
    let other = Canned::start(ok()).await;
    let elsewhere = to(&format!("http://{}/elsewhere?signature=x", other.address));
    let registry = Canned::start_with(elsewhere, true).await;
    assert_eq!(read(&registry).await.unwrap(), CONTENT);
    assert!(
        registry.heads().last().unwrap().contains("\r\nauthorization: basic "),
        "the registry has the login"
    );
    let heads = other.heads();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].starts_with("get /elsewhere?signature=x "), "{heads:?}");
    assert!(!heads[0].contains("authorization"), "{heads:?}");
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused() {
    for location in [
        "http://10.0.0.1/x",
        "http://192.168.1.1/x",
        "http://169.254.169.254/latest/meta-data",
        "http://100.100.100.200/latest/meta-data",
        "http://[fd00:ec2::254]/latest",
        "http://[::ffff:10.0.0.1]/x",
        "http://0.0.0.0/x",
    ] {
        let registry = Canned::start(to(location)).await;
        let error = read(&registry).await.unwrap_err();
        assert!(refused(&error), "{location}: {error}");
        assert_eq!(registry.heads().len(), 1, "{location}");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let listener = Canned::start(to("/v2/again")).await;
    let error = read(&listener).await.unwrap_err();
    assert_ne!(error.kind(), Kind::Unavailable, "{error}");
    assert!(listener.heads().len() < 10);
}
