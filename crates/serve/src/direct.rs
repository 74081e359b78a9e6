//! Files that go to a client without passing through our memory.
//!
//! hyper writes the bytes that a body yields, and knows no files. Where the system can send a file by itself (sendfile(2)), which is
//! over plain TCP, a body therefore yields *stand-ins*: bytes of one place in memory, as many as the piece of the file has, while the
//! piece itself waits in the [`Outbox`] of the connection. [`Direct`], which hyper writes to, knows stand-ins by their place and has
//! the piece sent instead. Whatever lies between may delay and split stand-ins, as any bytes, and may neither copy nor drop them
//! without ending the connection.
//!
//! That rule is not only believed: every stand-in has a place of its own, and the connection ends before a byte of anything else
//! is sent if it is not that of the piece whose turn it is.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use ferry_store::{ByteStream, Error, FileSlice};
use futures_util::stream;
use http::{Request, Response};
use hyper::body::Incoming;
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::body::ResponseBody;
use crate::service::Handler;

/// So much of a file is sent at once; what is in memory is looked at in these portions.
const PIECE: u64 = 1024 * 1024;

/// Pages are read ahead in groups; looking at one of each is enough.
const PROBE: u64 = 128 * 1024;

/// So many pieces of a connection may wait, each with a place of its own. hyper takes a second piece only when the first is short,
/// so that there are never more than a few.
const PLACES: usize = 32;

/// Never read nor written, so that no memory is taken.
static STAND_INS: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; PLACES * PIECE as usize]));

fn is_stand_in(bytes: &[u8]) -> bool {
    STAND_INS.as_ptr_range().contains(&bytes.as_ptr())
}

/// Where stand-ins lie among all.
fn offset(bytes: &[u8]) -> usize {
    (bytes.as_ptr() as usize).wrapping_sub(STAND_INS.as_ptr() as usize)
}

/// What came is not what was put: something has copied or dropped stand-ins. What belongs to which answer cannot be known any more.
fn confused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "stand-ins of files have been copied or lost")
}

/// The pieces of files that a connection is to send in place of the stand-ins that are on their way to it. Stands in the extensions
/// of the requests of connections that can.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Piece>,
    /// The place of the next one.
    place: usize,
}

/// A piece of a file that is to be sent.
struct Piece {
    file: Arc<File>,
    /// What is left of it.
    range: Range<u64>,
    /// Where the stand-in for what is left lies.
    stand_in: usize,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic elsewhere cannot leave the list half-written, so the poison is of no account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stand-in for a piece of at most [`PIECE`] bytes, which is to be yielded before the next one is put.
    ///
    /// # Errors
    /// If far too many wait: then their stand-ins do not arrive.
    fn put(&self, FileSlice { file, range }: FileSlice) -> io::Result<Bytes> {
        let length = (range.end - range.start) as usize;
        let mut waiting = self.lock();
        if waiting.pieces.len() == PLACES {
            return Err(confused());
        }
        let stand_in = waiting.place * PIECE as usize;
        waiting.place = (waiting.place + 1) % PLACES;
        waiting.pieces.push_back(Piece { file, range, stand_in });
        Ok(STAND_INS.slice(stand_in..stand_in + length))
    }

    /// Sends what a stand-in stands for, or a part of it.
    fn send(&self, stream: &TcpStream, stand_in: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lock();
        let piece = waiting.pieces.front_mut().ok_or_else(confused)?;
        let left = (piece.range.end - piece.range.start) as usize;
        if offset(stand_in) != piece.stand_in || stand_in.len() > left {
            return Err(confused());
        }
        let sent = rustix::fs::sendfile(stream, &*piece.file, Some(&mut piece.range.start), stand_in.len())?;
        piece.stand_in += sent;
        if piece.range.is_empty() {
            waiting.pieces.pop_front();
        }
        // The file has become shorter: the client has to see that bytes are missing.
        if sent == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(sent) }
    }

    fn is_empty(&self) -> bool {
        self.lock().pieces.is_empty()
    }

    /// The bytes of a file as stand-ins. Each piece is in memory before it is sent, for sending does not wait in a thread
    /// that may.
    pub(crate) fn stream(self, slice: FileSlice) -> ByteStream {
        Box::pin(stream::try_unfold((self, slice), |(outbox, FileSlice { file, range })| async move {
            let end = range.end.min(range.start.saturating_add(PIECE));
            let (piece, rest) = (range.start..end, end..range.end);
            if piece.is_empty() {
                return Ok(None);
            }
            if !is_in_memory(&file, &piece) {
                let (file, piece) = (Arc::clone(&file), piece.clone());
                let read = tokio::task::spawn_blocking(move || bring_to_memory(&file, piece)).await;
                read.map_err(io::Error::other).flatten().map_err(|e| Error::io("read file", "blob", e))?;
            }
            let stand_in = outbox.put(FileSlice { file: Arc::clone(&file), range: piece });
            let stand_in = stand_in.map_err(|e| Error::io("send file", "blob", e))?;
            Ok(Some((stand_in, (outbox, FileSlice { file, range: rest }))))
        }))
    }
}

/// Whether reading the piece would not wait for a disk, as far as some of its bytes tell. Where a file system cannot say so it
/// is taken to be slow.
fn is_in_memory(file: &File, piece: &Range<u64>) -> bool {
    let there = |at| preadv2(file, &mut [IoSliceMut::new(&mut [0])], at, ReadWriteFlags::NOWAIT).is_ok();
    (piece.start..piece.end).step_by(PROBE as usize).chain([piece.end - 1]).all(there)
}

fn bring_to_memory(file: &File, piece: Range<u64>) -> io::Result<()> {
    let (mut buffer, mut at) = ([0; 16 * 1024], piece.start);
    while at < piece.end {
        let wanted = buffer.len().min((piece.end - at) as usize);
        file.read_exact_at(&mut buffer[..wanted], at)?;
        at += wanted as u64;
    }
    Ok(())
}

/// A connection that sends files in place of stand-ins.
pub(crate) struct Direct {
    stream: TcpStream,
    outbox: Outbox,
}

/// Lets answers to the requests of a connection be sent as files.
pub(crate) fn direct<H: Handler>(stream: TcpStream, handler: H) -> (Direct, Sending<H>) {
    let outbox = Outbox::default();
    (Direct { stream, outbox: outbox.clone() }, Sending { handler, outbox })
}

impl Direct {
    fn poll_send(&self, context: &mut Context<'_>, stand_in: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || self.outbox.send(&self.stream, stand_in));
            match sent {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl AsyncRead for Direct {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if is_stand_in(bytes) {
            return self.poll_send(context, bytes);
        }
        // hyper writes so when it copies all that it is given into one buffer, which `server` tells it not to do.
        if !self.outbox.is_empty() {
            return Poll::Ready(Err(confused()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    /// Writes the bytes in front of the first stand-in, or sends what that stands for if it comes first.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = parts.iter().position(|part| is_stand_in(part)).unwrap_or(parts.len());
        let before = &parts[..first];
        match parts.get(first) {
            Some(part) if before.iter().all(|part| part.is_empty()) => self.poll_send(context, part),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, before),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A handler whose answers may be sent as files.
#[derive(Clone)]
pub(crate) struct Sending<H> {
    handler: H,
    outbox: Outbox,
}

impl<H: Handler> Handler for Sending<H> {
    async fn handle(&self, mut request: Request<Incoming>) -> Response<ResponseBody> {
        request.extensions_mut().insert(self.outbox.clone());
        self.handler.handle(request).await
    }
}

#[cfg(test)]
mod tests;
