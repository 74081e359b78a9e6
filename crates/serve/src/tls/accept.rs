use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferry_store::{Error, Kind};
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::Certificates;
use crate::answer::{Headers, answer};
use crate::body::{ResponseBody, full};
use crate::challenges::{ACME_TLS, Challenges};
use crate::service::Handler;
use crate::stall::StallLimit;

/// The first byte of every handshake: the content type of its record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// How a listener speaks TLS.
pub struct Tls {
    usual: Arc<ServerConfig>,
    challenges: Arc<Challenges>,
}

/// Who was met at a listener that speaks TLS.
pub(crate) enum Met {
    /// A client.
    Client(Box<TlsStream<StallLimit>>),
    /// Somebody who does not speak TLS.
    Plain(StallLimit),
    /// An authority that has seen what it wanted.
    Authority,
}

impl Tls {
    /// TLS 1.2 and 1.3 with these certificates; authorities are shown what is in `challenges`.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new(certificates: Arc<Certificates>, challenges: Arc<Challenges>) -> ferry_store::Result<Self> {
        let failed = |e: rustls::Error| Error::new(Kind::Unavailable, "set up", "TLS", e.to_string());
        let mut usual = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        usual.alpn_protocols = vec![b"http/1.1".to_vec()];
        usual.ticketer = aws_lc_rs::Ticketer::new().map_err(failed)?;
        Ok(Self { usual: Arc::new(usual), challenges })
    }

    /// Shakes hands. It is the caller who limits the time.
    pub(crate) async fn accept(&self, stream: TcpStream, stall: Duration) -> io::Result<Met> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let stream = StallLimit::new(stream, stall);
        if first != [HANDSHAKE] {
            return Ok(Met::Plain(stream));
        }
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let hello = start.client_hello();
        // RFC 8737 section 3: this protocol and no other.
        let for_authority = hello
            .alpn()
            .is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none());
        if for_authority {
            let host = hello.server_name().unwrap_or_default().to_ascii_lowercase();
            let Some(proof) = self.challenges.handshake(&host) else {
                return Err(io::Error::other("an authority asks for a proof that nobody has put there"));
            };
            let mut stream = start.into_stream(proof).await?;
            stream.shutdown().await?;
            return Ok(Met::Authority);
        }
        Ok(Met::Client(Box::new(start.into_stream(Arc::clone(&self.usual)).await?)))
    }
}

/// Answers who speaks plain HTTP where TLS is spoken.
#[derive(Clone)]
pub(crate) struct NotEncrypted;

impl Handler for NotEncrypted {
    async fn handle(&self, _: Request<Incoming>) -> Response<ResponseBody> {
        const TEXT: &str =
            "This port speaks HTTPS, and the request came as plain HTTP: write https:// instead of http://\n";
        answer(StatusCode::BAD_REQUEST, full(TEXT)).with(CONTENT_TYPE, "text/plain").with(CONNECTION, "close")
    }
}
