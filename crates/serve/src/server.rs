//! Runs a handler on listeners.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::caller::Peer;
use crate::direct::direct;
use crate::gauge::Gauge;
use crate::limits::{Place, Places};
use crate::service::Handler;
use crate::stall::StallLimit;
use crate::tls::{Met, NotEncrypted, Tls};

/// After a failure to accept, usually for lack of file descriptors, it is tried again after so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest head of a request, in bytes; a longer one is answered with 431. No more than this and one piece of a body is
/// held for a client that takes its answer slowly, too.
const HEAD: usize = 32 * 1024;

/// What one server grants its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// So many connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// So many from one address; further ones are closed. Behind a proxy all come from its address.
    pub connections_per_address: Option<NonZeroUsize>,
    /// So long a connection may take to send the head of its next request.
    pub header_read: Duration,
    /// So long a client may take to shake hands.
    pub handshake: Duration,
    /// So long a client may take no byte of an answer that is ready.
    pub write_stall: Duration,
    /// Counts the connections that are open.
    pub open: Gauge,
    /// So long requests in flight may still run once the server is told to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: None,
            header_read: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            write_stall: Duration::from_secs(60),
            open: Gauge::default(),
            grace: Duration::from_secs(30),
        }
    }
}

/// Where clients come in.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Clients speak plain HTTP.
    pub fn plain(socket: TcpListener) -> Self {
        Self { socket, tls: None }
    }

    /// Clients speak TLS.
    pub fn encrypted(socket: TcpListener, tls: Arc<Tls>) -> Self {
        Self { socket, tls: Some(tls) }
    }

    /// Whether clients speak TLS.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Where it is.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Answers requests that come as plain HTTP; see [`serve_all`].
pub async fn serve<H: Handler>(listener: TcpListener, handler: H, limits: Limits, stop: CancellationToken) {
    serve_all(vec![Listener::plain(listener)], handler, limits, stop).await;
}

/// Answers requests on all listeners, within the same limits, until `stop` is cancelled; then accepts no more, lets
/// requests in flight end for the time of [`Limits::grace`], and closes what is left. A connection that fails or panics
/// takes no other with it.
pub async fn serve_all<H: Handler>(
    listeners: Vec<Listener>,
    handler: H,
    limits: Limits,
    stop: CancellationToken,
) {
    // Each listener holds a permit for the connection that it waits for.
    let permits = limits.connections + listeners.len().saturating_sub(1);
    let permits = Arc::new(Semaphore::new(permits));
    let places = Arc::new(Places::new(limits.connections_per_address));
    let running = listeners.into_iter().map(|Listener { socket, tls }| {
        let (handler, limits, stop) = (handler.clone(), limits.clone(), stop.clone());
        let doors = Doors { socket, permits: Arc::clone(&permits), places: Arc::clone(&places) };
        run(doors, Room { tls, handler, limits, stop })
    });
    join_all(running).await;
}

async fn run<H: Handler>(doors: Doors, room: Room<H>) {
    let mut connections = JoinSet::new();
    while let Some(Some((stream, address, place))) = room.stop.run_until_cancelled(doors.accept()).await {
        // Small answers must not wait for the acknowledgement of the one before; without it they only come later.
        let _ = stream.set_nodelay(true);
        let running = room.clone().meet(stream, address);
        let counted = room.limits.open.enter();
        connections.spawn(async move {
            running.await;
            drop((place, counted));
        });
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
    }
    drop(doors);
    let rest = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(room.limits.grace, rest).await.is_err() {
        tracing::warn!(left = connections.len(), "requests in flight are cut off");
        connections.shutdown().await;
    }
}

/// Where connections of a listener come in, as long as there is room for them.
struct Doors {
    socket: TcpListener,
    permits: Arc<Semaphore>,
    places: Arc<Places>,
}

impl Doors {
    /// The next connection, once there is room for one; `None` never comes as long as the semaphore is open.
    async fn accept(&self) -> Option<(TcpStream, SocketAddr, (OwnedSemaphorePermit, Place))> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => match self.places.take(address.ip()) {
                    Some(place) => return Some((stream, address, (permit, place))),
                    None => tracing::debug!(%address, "has too many connections already"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// What the connections of a listener share.
#[derive(Clone)]
struct Room<H> {
    tls: Option<Arc<Tls>>,
    handler: H,
    limits: Limits,
    stop: CancellationToken,
}

impl<H: Handler> Room<H> {
    async fn meet(self, stream: TcpStream, address: SocketAddr) {
        let Some(tls) = self.tls.clone() else {
            let (stream, handler) = direct(stream, self.handler);
            let stream = StallLimit::new(stream, self.limits.write_stall);
            let peer = Peer { address, secure: false };
            return connection(stream, handler, peer, self.limits.header_read, self.stop).await;
        };
        let shaking =
            tokio::time::timeout(self.limits.handshake, tls.accept(stream, self.limits.write_stall));
        let (header_read, peer) = (self.limits.header_read, Peer { address, secure: true });
        match self.stop.run_until_cancelled(shaking).await {
            Some(Ok(Ok(Met::Client(stream)))) => {
                connection(*stream, self.handler, peer, header_read, self.stop).await;
            }
            Some(Ok(Ok(Met::Plain(stream)))) => {
                let peer = Peer { secure: false, ..peer };
                connection(stream, NotEncrypted, peer, header_read, self.stop).await;
            }
            Some(Ok(Ok(Met::Authority))) => tracing::debug!(%address, "an authority has seen its proof"),
            Some(Ok(Err(error))) => tracing::debug!(%address, %error, "handshake failed"),
            Some(Err(_)) => tracing::debug!(%address, "handshake took too long"),
            None => {}
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin, H: Handler>(
    stream: S,
    handler: H,
    peer: Peer,
    header_read: Duration,
    stop: CancellationToken,
) {
    let service = service_fn(|mut request: Request<Incoming>| {
        let handler = handler.clone();
        request.extensions_mut().insert(peer);
        async move { Ok::<_, Infallible>(handler.handle(request).await) }
    });
    let running = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_read)
        .max_buf_size(HEAD)
        // Bytes that are copied cannot be known again; see `direct`.
        .writev(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut running = std::pin::pin!(running);
    let ended = tokio::select! {
        ended = running.as_mut() => ended,
        () = stop.cancelled() => {
            running.as_mut().graceful_shutdown();
            running.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection panicked");
    }
}
