use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::handler::Faulty;

/// What a fault can do to the connection under it.
pub(super) struct Wire {
    /// The connection ends with a reset.
    pub(super) reset: AtomicBool,
    /// So many bytes are still read before it is reset.
    pub(super) read_left: AtomicU64,
}

/// Serves connections for as long as it is polled. `ferry_serve::serve` keeps its sockets to itself, and a reset needs
/// one.
pub(super) async fn accept(listener: TcpListener, handler: Faulty) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, handler.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, handler: Faulty) {
    // Without it small answers only come later.
    let _ = stream.set_nodelay(true);
    let wire = Arc::new(Wire { reset: AtomicBool::new(false), read_left: AtomicU64::new(u64::MAX) });
    let service = service_fn(|request| {
        let (handler, wire) = (handler.clone(), Arc::clone(&wire));
        async move { handler.handle(request, wire).await }
    });
    let io = TokioIo::new(Io { stream, wire: Arc::clone(&wire) });
    // A connection that a fault ends is meant to fail.
    let _ = http1::Builder::new().serve_connection(io, service).await;
}

struct Io {
    stream: TcpStream,
    wire: Arc<Wire>,
}

impl Io {
    fn check(&self) -> io::Result<()> {
        if self.wire.reset.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if self.check().is_err() {
            // If it fails the connection is gone already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.wire.read_left.load(Ordering::SeqCst);
        if left == 0 {
            self.wire.reset.store(true, Ordering::SeqCst);
        }
        self.check()?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if left != u64::MAX {
            let read = (buffer.filled().len() - before) as u64;
            self.wire.read_left.store(left.saturating_sub(read), Ordering::SeqCst);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
