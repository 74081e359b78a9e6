use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ferry_serve::{BoxError, ResponseBody};
use futures_util::{Stream, StreamExt, future, stream};
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, BodyStream, StreamBody};

use super::connection::Wire;
use super::handler::NoAnswer;
use super::rules::Fault;

pub(super) const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// So long before a connection breaks, so that what was sent before has left and is not lost with it.
const SETTLE: Duration = Duration::from_millis(20);

/// Makes the body of an answer suffer; its `Content-Length` stays as promised.
pub(super) fn spoil(
    response: Response<ResponseBody>,
    fault: &Fault,
    wire: Arc<Wire>,
) -> Result<Response<ResponseBody>, NoAnswer> {
    if matches!(fault, Fault::Truncate { after: 0 } | Fault::Reset { after: 0 }) {
        wire.reset.store(matches!(fault, Fault::Reset { .. }), Ordering::SeqCst);
        return Err(NoAnswer);
    }
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let body = match *fault {
        Fault::Truncate { after } => boxed(until(body, after).chain(breaking(None))),
        Fault::Reset { after } => boxed(until(body, after).chain(breaking(Some(wire)))),
        Fault::Stall { after } => boxed(until(body, after).chain(stream::pending())),
        Fault::Corrupt { at } => boxed(corrupt(body, at)),
        Fault::Trickle { chunk, pause } => boxed(trickle(body, chunk.max(1), pause)),
        _ => body,
    };
    Ok(Response::from_parts(parts, body))
}

type Chunk = Result<Bytes, BoxError>;

fn boxed(chunks: impl Stream<Item = Chunk> + Send + 'static) -> ResponseBody {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

fn chunks(body: ResponseBody) -> impl Stream<Item = Chunk> + Send {
    BodyStream::new(body)
        .filter_map(|frame| future::ready(frame.map(|frame| frame.into_data().ok()).transpose()))
}

/// The first `length` bytes.
fn until(body: ResponseBody, length: u64) -> impl Stream<Item = Chunk> + Send {
    chunks(body).scan(length, |left, chunk| {
        let cut = (*left > 0).then(|| {
            chunk.map(|mut bytes| {
                bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= bytes.len() as u64;
                bytes
            })
        });
        future::ready(cut)
    })
}

/// Ends the connection, with a reset if there is a wire.
fn breaking(wire: Option<Arc<Wire>>) -> impl Stream<Item = Chunk> + Send {
    stream::once(async move {
        tokio::time::sleep(SETTLE).await;
        if let Some(wire) = wire {
            wire.reset.store(true, Ordering::SeqCst);
        }
        Err(BoxError::from("the body breaks off"))
    })
}

fn corrupt(body: ResponseBody, at: u64) -> impl Stream<Item = Chunk> + Send {
    let mut passed = 0;
    chunks(body).map(move |chunk| {
        let bytes = chunk?;
        let here = usize::try_from(at.wrapping_sub(passed)).ok().filter(|here| *here < bytes.len());
        passed += bytes.len() as u64;
        let Some(here) = here else { return Ok(bytes) };
        let mut bytes = bytes.to_vec();
        bytes[here] ^= 1;
        Ok(Bytes::from(bytes))
    })
}

fn trickle(body: ResponseBody, size: usize, pause: Duration) -> impl Stream<Item = Chunk> + Send {
    chunks(body)
        .flat_map(move |chunk| {
            stream::iter(match chunk {
                Ok(bytes) => pieces(bytes, size).map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
        })
        .then(move |piece| async move {
            tokio::time::sleep(pause).await;
            piece
        })
}

fn pieces(mut bytes: Bytes, size: usize) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!bytes.is_empty()).then(|| bytes.split_to(size.min(bytes.len()))))
}
