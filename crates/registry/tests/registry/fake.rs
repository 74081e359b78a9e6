//! A server that answers as it is told, and remembers what it was asked.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ferry_oci::Registry;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// What came of the body; `None` if it broke off or was not read.
    pub body: Option<Bytes>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The address that the client connected to.
    pub fn host(&self) -> &str {
        self.header("host").unwrap()
    }

    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What to answer.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    end: End,
    early: bool,
    keep_length: bool,
}

/// How an answer ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Whole,
    Cut,
    Silence,
    NeverBegun,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            end: End::Whole,
            early: false,
            keep_length: true,
        }
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Announces more bytes than come before the connection breaks.
    pub fn cut(mut self) -> Self {
        self.end = End::Cut;
        self
    }

    /// Announces more bytes than ever come.
    pub fn silent(mut self) -> Self {
        self.end = End::Silence;
        self
    }

    /// Does not answer at all.
    pub fn never() -> Self {
        let mut reply = Self::new(200);
        reply.end = End::NeverBegun;
        reply
    }

    /// Answers without reading the request's body.
    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    /// Sends the body without saying how long it is.
    pub fn chunked(mut self) -> Self {
        self.keep_length = false;
        self
    }

    fn into_response(self, head: bool) -> Response<BoxBody<Bytes, io::Error>> {
        let mut response = Response::builder().status(self.status);
        let announced = self.headers.iter().any(|(name, _)| name == "content-length");
        if self.keep_length && !announced {
            let missing = if self.end == End::Whole { 0 } else { 1000 };
            response = response.header("content-length", self.body.len() + missing);
        }
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let first = stream::iter([Ok(Frame::data(self.body))]);
        let body = match self.end {
            _ if head => BoxBody::new(StreamBody::new(stream::empty())),
            End::Whole => BoxBody::new(StreamBody::new(first)),
            End::Cut => {
                let broken = stream::once(async {
                    tokio::task::yield_now().await;
                    Err(io::Error::other("cut"))
                });
                BoxBody::new(StreamBody::new(first.chain(broken)))
            }
            End::Silence | End::NeverBegun => BoxBody::new(StreamBody::new(first.chain(stream::pending()))),
        };
        response.body(body).unwrap()
    }
}

pub struct Fake {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    /// Answers with what `answer` makes of the head of each request.
    pub async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", answer).await
    }

    /// The same at an address of its own.
    pub async fn start_on(at: &str, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                let service =
                    service_fn(move |request| respond(Arc::clone(&answer), Arc::clone(&log), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, seen, server }
    }

    pub fn registry(&self) -> Registry {
        self.address.to_string().parse().unwrap()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and target of every request.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    /// How many requests had `part` in their line.
    pub fn count(&self, part: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(part)).count()
    }
}

async fn respond(
    answer: Arc<impl Fn(&Seen) -> Reply>,
    log: Arc<Mutex<Vec<Seen>>>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, io::Error>>, Infallible> {
    let (head, body) = request.into_parts();
    let target = head.uri.to_string();
    let seen = Seen { method: head.method, target, headers: head.headers, body: None };
    let reply = answer(&seen);
    let place = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    if reply.end == End::NeverBegun {
        std::future::pending::<()>().await;
    }
    if !reply.early {
        let body = body.collect().await.ok().map(|body| body.to_bytes());
        log.lock().unwrap()[place].body = body;
    }
    Ok(reply.into_response(seen.method == Method::HEAD))
}
