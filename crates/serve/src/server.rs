//! Runs a handler on a listener.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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
use crate::service::Handler;
use crate::stall::StallLimit;

/// After a failure to accept, usually for lack of file descriptors, it is tried again after so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest head of a request, in bytes; a longer one is answered with 431. No more than this and one piece of a body is
/// held for a client that takes its answer slowly, too.
const HEAD: usize = 64 * 1024;

/// What one server grants its clients.
#[derive(Debug, Clone)]
pub struct Limits {
    /// So many connections at once; further ones wait to be accepted.
    pub connections: usize,
    /// So long a connection may take to send the head of its next request.
    pub header_read: Duration,
    /// So long a client may take no byte of an answer that is ready.
    pub write_stall: Duration,
    /// So long requests in flight may still run once the server is told to stop.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_read: Duration::from_secs(30),
            write_stall: Duration::from_secs(60),
            grace: Duration::from_secs(30),
        }
    }
}

/// Answers requests on `listener` until `stop` is cancelled; then accepts no more, lets requests in flight end for the
/// time of [`Limits::grace`], and closes what is left. A connection that fails or panics takes no other with it.
pub async fn serve<H: Handler>(listener: TcpListener, handler: H, limits: Limits, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    while let Some(Some((stream, address, permit))) =
        stop.run_until_cancelled(accept(&listener, &permits)).await
    {
        // Small answers must not wait for the acknowledgement of the one before; without it they only come later.
        let _ = stream.set_nodelay(true);
        let (stream, handler) = direct(stream, handler.clone());
        let stream = StallLimit::new(stream, limits.write_stall);
        let peer = Peer { address, secure: false };
        let running = connection(stream, handler, peer, limits.header_read, stop.clone());
        connections.spawn(async move {
            running.await;
            drop(permit);
        });
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
    }
    drop(listener);
    let rest = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if tokio::time::timeout(limits.grace, rest).await.is_err() {
        tracing::warn!(left = connections.len(), "requests in flight are cut off");
        connections.shutdown().await;
    }
}

/// The next connection, once there is room for one; `None` never comes as long as the semaphore is open.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return Some((stream, address, permit)),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
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
