//! The body of a request that is made while it is sent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::Body;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::desk::Desk;
use crate::error::Tried;
use crate::host::Streaming;
use crate::request::Answer;

/// Pieces that wait to be sent; more would only hide a slow peer from whoever writes.
const WAITING: usize = 4;

type Answered = Result<Tried<Answer>, JoinError>;

/// A request on its way. Dropped before its end, it is broken off.
pub(crate) struct Outgoing {
    parts: mpsc::Sender<Part>,
    answer: JoinHandle<Tried<Answer>>,
    /// The answer, if it came while bytes were offered.
    early: Option<Answered>,
    ended: Arc<AtomicBool>,
}

/// What became of bytes that were to go into the body.
pub(crate) enum Fed {
    /// They are on their way.
    Taken,
    /// The body had ended because nothing came for a while; they are not part of it.
    Ended,
    /// The request is over, and this is its answer.
    Answered(Answered),
}

/// A piece of a body. A body that ends without `End` breaks the request off.
enum Part {
    Bytes(Bytes),
    End,
}

impl Outgoing {
    /// Sends a request. With a `pause` its body ends by itself if nothing comes for so long.
    pub(crate) fn start(desk: Desk, sending: Streaming, pause: Option<Duration>) -> Self {
        let (parts, receiver) = mpsc::channel(WAITING);
        let ended = Arc::new(AtomicBool::new(false));
        let body = body(receiver, pause, Arc::clone(&ended));
        let answer = tokio::spawn(async move { desk.stream(sending, body).await });
        Self { parts, answer, early: None, ended }
    }

    /// Appends bytes to the body.
    pub(crate) async fn feed(&mut self, bytes: Bytes) -> Fed {
        if self.early.is_some() {
            return Fed::Ended;
        }
        let answered = tokio::select! {
            biased;
            answered = &mut self.answer => answered,
            fed = self.parts.send(Part::Bytes(bytes)) => match fed {
                Ok(()) => return Fed::Taken,
                Err(_) if self.ended.load(Ordering::Acquire) => return Fed::Ended,
                // The body is gone because the request is over: its answer says why.
                Err(_) => (&mut self.answer).await,
            },
        };
        if self.ended.load(Ordering::Acquire) {
            self.early = Some(answered);
            return Fed::Ended;
        }
        Fed::Answered(answered)
    }

    /// Ends the body, unless it has ended, and waits for the answer.
    pub(crate) async fn finish(mut self) -> Answered {
        if let Some(answered) = self.early {
            return answered;
        }
        // A registry that has all bytes may answer before it is told that there are no more.
        tokio::select! {
            biased;
            answered = &mut self.answer => return answered,
            _ = self.parts.send(Part::End) => {}
        }
        self.answer.await
    }
}

fn body(parts: mpsc::Receiver<Part>, pause: Option<Duration>, ended: Arc<AtomicBool>) -> Body {
    Body::wrap_stream(stream::try_unfold((parts, ended), move |(mut parts, ended)| async move {
        let next = match pause {
            Some(pause) if !ended.load(Ordering::Acquire) => match timeout(pause, parts.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    // What was taken until now still belongs to this body.
                    ended.store(true, Ordering::Release);
                    parts.close();
                    parts.recv().await
                }
            },
            _ => parts.recv().await,
        };
        match next {
            Some(Part::Bytes(bytes)) => Ok(Some((bytes, (parts, ended)))),
            Some(Part::End) => Ok(None),
            None if ended.load(Ordering::Acquire) => Ok(None),
            None => Err(io::Error::other("the upload was given up")),
        }
    }))
}
