//! Bodies of answers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use ferry_store::{Blob, BlobBody, ByteStream};
use futures_util::StreamExt;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

use crate::direct::Outbox;
use crate::pieces;

/// Whatever ends a body early.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer. An error within it ends the connection, so that the client sees that bytes are missing.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// No body.
pub(crate) fn empty() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is in memory.
pub fn full(content: impl Into<Bytes>) -> ResponseBody {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The bytes of a blob, to be sent as a file if it is one and the connection can.
pub(crate) fn of_blob(blob: Blob, outbox: Option<&Outbox>) -> ResponseBody {
    let left = blob.range.end - blob.range.start;
    let stream = match blob.body {
        BlobBody::File(slice) => match outbox {
            Some(outbox) => outbox.clone().stream(slice),
            None => pieces::read(slice),
        },
        _ => blob.into_stream(),
    };
    Sized { stream, left }.boxed_unsync()
}

/// A stream of known length; one that turns out longer or shorter is an error.
struct Sized {
    stream: ByteStream,
    left: u64,
}

impl Body for Sized {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(next) = ready!(self.stream.poll_next_unpin(context)) else {
            return Poll::Ready(match self.left {
                0 => None,
                missing => Some(Err(format!("{missing} bytes of the blob are missing").into())),
            });
        };
        Poll::Ready(Some(next.map_err(BoxError::from).and_then(|bytes| {
            let left = self.left.checked_sub(bytes.len() as u64);
            self.left = left.ok_or("the blob is longer than its size")?;
            Ok(Frame::data(bytes))
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use ferry_store::FileSlice;
    use futures_util::stream;

    use super::*;

    fn of_file(content: &[u8], range: std::ops::Range<u64>, size: u64) -> ResponseBody {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let body = BlobBody::File(FileSlice { file: Arc::new(file), range: range.clone() });
        of_blob(Blob { size, range, skipped: 0, fetched: false, body }, None)
    }

    #[tokio::test]
    async fn a_file_comes_in_growing_pieces() {
        let content: Vec<u8> = (0..1_000_000u32).map(|i| i as u8).collect();
        let mut body = of_file(&content, 3..1_000_000, 1_000_000);
        assert_eq!(body.size_hint().exact(), Some(999_997));
        let mut read = Vec::new();
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            pieces.push(data.len());
            read.extend_from_slice(&data);
        }
        assert_eq!(read, content[3..]);
        assert_eq!(pieces[..3], [32 << 10, 256 << 10, 256 << 10]);
    }

    #[tokio::test]
    async fn a_file_that_is_cut_short_is_an_error() {
        assert!(of_file(b"abc", 0..5, 5).collect().await.is_err());
    }

    #[tokio::test]
    async fn a_stream_of_another_length_is_an_error() {
        for length in [2, 4] {
            let stream: ByteStream = Box::pin(stream::iter([Ok(Bytes::from_static(b"abc"))]));
            let blob = Blob {
                size: length,
                range: 0..length,
                skipped: 0,
                fetched: false,
                body: BlobBody::Stream(stream),
            };
            assert!(of_blob(blob, None).collect().await.is_err());
        }
    }
}
