//! The upload of one blob (distribution-spec, "Pushing blobs"): one `PUT` if its digest and size were promised, else a
//! streamed `PATCH` and a `PUT` that closes it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{Error, Kind, Result, Upload, UploadToken};
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Body;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use url::Url;

use crate::budget::Permit;
use crate::error::{Failure, Tried, What};
use crate::host::{MAX_RECEIPT, Streaming};
use crate::mount::location;
use crate::read::{RemoteRepository, announced};
use crate::request::{Answer, Request};
use crate::retry::Retry;

/// Pieces that wait to be sent; more would only hide a slow peer from whoever writes.
const WAITING: usize = 4;
/// How many times the idle time-out a registry may take to answer once it has all the bytes: it may hash or copy them.
const PATIENCE: u32 = 10;
/// How long an upload that is given up may hold up whoever gave it up.
const FAREWELL: Duration = Duration::from_secs(5);

/// The upload of one blob.
///
/// The bytes that would complete a promised blob wait for `commit`, so that an upload that is dropped or aborted is
/// never complete at the registry.
pub(crate) struct RemoteUpload {
    repository: RemoteRepository,
    what: What,
    location: Url,
    promise: Option<(Digest, u64)>,
    accepted: u64,
    last: Option<Bytes>,
    state: State,
    /// Kept until the upload ends.
    _place: Permit,
}

enum State {
    /// Nothing was sent.
    Open,
    /// The request is on its way.
    Sending { feed: mpsc::Sender<Part>, answer: JoinHandle<Tried<Answer>> },
    /// The registry answered before it had everything, or fell silent.
    Over,
}

/// A piece of a body. A body that ends without `End` breaks the request off.
enum Part {
    Bytes(Bytes),
    End,
}

fn body(parts: mpsc::Receiver<Part>) -> Body {
    Body::wrap_stream(stream::try_unfold(parts, |mut parts| async move {
        match parts.recv().await {
            Some(Part::Bytes(bytes)) => Ok(Some((bytes, parts))),
            Some(Part::End) => Ok(None),
            None => Err(io::Error::other("the upload was given up")),
        }
    }))
}

impl RemoteUpload {
    pub(crate) fn new(
        repository: RemoteRepository,
        what: What,
        location: Url,
        promise: Option<(Digest, u64)>,
        place: Permit,
    ) -> Self {
        let state = State::Open;
        Self { repository, what, location, promise, accepted: 0, last: None, state, _place: place }
    }

    fn idle(&self) -> Duration {
        self.repository.host.shared.transport.idle()
    }

    /// Begins the request; its body is fed by [`Self::feed`].
    fn start(&mut self) {
        let (feed, parts) = mpsc::channel(WAITING);
        let octets = HeaderValue::from_static("application/octet-stream");
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, octets)]);
        let (method, url) = match &self.promise {
            Some((digest, size)) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(*size));
                (Method::PUT, closing(&self.location, digest))
            }
            None => (Method::PATCH, self.location.clone()),
        };
        let (host, access) = (self.repository.host.clone(), self.repository.access());
        let sending = Streaming { what: self.what.clone(), method, url, headers, access };
        let answer = tokio::spawn(async move { host.stream(sending, body(parts)).await });
        self.state = State::Sending { feed, answer };
    }

    /// Hands bytes to the request as fast as the rate allows.
    async fn feed(&mut self, mut bytes: Bytes) -> Result<()> {
        let shared = Arc::clone(&self.repository.host.shared);
        while !bytes.is_empty() {
            let portion = bytes.split_to(bytes.len().min(shared.up.portion()));
            shared.up.take(portion.len()).await;
            self.hand_over(portion).await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self, bytes: Bytes) -> Result<()> {
        if matches!(self.state, State::Open) {
            self.start();
        }
        let idle = self.idle();
        let State::Sending { feed, answer } = &mut self.state else {
            return Err(self.what.error(Kind::Unavailable, "the upload is over"));
        };
        let fed = tokio::select! {
            biased;
            answered = &mut *answer => Err(answered),
            fed = timeout(idle, feed.send(Part::Bytes(bytes))) => match fed {
                Ok(Ok(())) => Ok(Ok(())),
                // The body is gone because the request is over: its answer says why.
                Ok(Err(_)) => Err(answer.await),
                Err(_) => Ok(Err(())),
            },
        };
        let error = match fed {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(())) => self.what.error(Kind::Stalled, "the registry takes no more bytes"),
            Err(answered) => match self.outcome(answered) {
                Ok(_) => self.what.error(Kind::Unavailable, "the registry answered before it had all bytes"),
                Err(error) => error,
            },
        };
        self.state = State::Over;
        Err(error)
    }

    /// Ends the body and waits for the answer.
    async fn finish(&mut self) -> Result<Answer> {
        let limit = self.idle() * PATIENCE;
        let State::Sending { feed, mut answer } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(self.what.error(Kind::Unavailable, "the upload is over"));
        };
        // A registry that has all bytes may answer before it is told that there are no more.
        let end = async {
            let _ = feed.send(Part::End).await;
            std::future::pending::<()>().await;
        };
        let answered = async {
            tokio::select! {
                answered = &mut answer => Some(answered),
                () = end => None,
            }
        };
        match timeout(limit, answered).await {
            Ok(Some(answered)) => self.outcome(answered),
            Ok(None) | Err(_) => Err(self.what.error(Kind::Stalled, "no answer after all bytes were sent")),
        }
    }

    fn outcome(&self, answered: std::result::Result<Tried<Answer>, JoinError>) -> Result<Answer> {
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(self.judged(failure)),
            Err(stopped) => {
                Err(self.what.error(Kind::Unavailable, "the upload was stopped").caused_by(stopped))
            }
        }
    }

    /// A registry that does not know the upload any more takes a new one.
    fn judged(&self, failure: Failure) -> Error {
        if failure.is(StatusCode::NOT_FOUND) {
            return self.what.error(Kind::Unavailable, failure.error.detail());
        }
        failure.into()
    }

    /// Closes an upload whose bytes have all been sent.
    async fn close(&self, digest: &Digest) -> Result<Answer> {
        let url = closing(&self.location, digest);
        let request = Request::new(self.what.clone(), Method::PUT, url, self.repository.access());
        let closed = self.repository.host.call(&request.retry(Retry::Never), MAX_RECEIPT).await;
        closed.map_err(|failure| self.judged(failure))
    }

    /// Breaks off what is being sent and tells the registry, whose answer changes nothing.
    async fn give_up(&mut self) {
        if let State::Sending { feed, answer } = std::mem::replace(&mut self.state, State::Over) {
            drop(feed);
            answer.abort();
        }
        let (what, access) = (self.what.clone(), self.repository.access());
        let request = Request::new(what, Method::DELETE, self.location.clone(), access).retry(Retry::Never);
        let _ = timeout(FAREWELL, self.repository.host.call(&request, MAX_RECEIPT)).await;
    }

    async fn mismatch(&mut self, detail: String) -> Error {
        self.give_up().await;
        self.what.error(Kind::DigestMismatch, detail)
    }
}

/// The URL that ends an upload. What the registry put into its location stays as it is.
fn closing(location: &Url, digest: &Digest) -> Url {
    let mut url = location.clone();
    let query = match location.query() {
        Some(query) if !query.is_empty() => format!("{query}&digest={digest}"),
        _ => format!("digest={digest}"),
    };
    url.set_query(Some(&query));
    url.set_fragment(None);
    url
}

#[async_trait]
impl Upload for RemoteUpload {
    fn token(&self) -> Option<UploadToken> {
        None
    }

    async fn durable_offset(&mut self) -> Result<u64> {
        Ok(self.accepted)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let accepted = self.accepted + bytes.len() as u64;
        if let Some((_, size)) = self.promise {
            if accepted > size {
                let error = self.mismatch(format!("more than the {size} bytes that were promised")).await;
                return Err(error);
            }
            if accepted == size {
                if matches!(self.state, State::Open) {
                    self.start();
                }
                self.last = Some(bytes);
                self.accepted = accepted;
                return Ok(());
            }
        }
        self.feed(bytes).await?;
        self.accepted = accepted;
        Ok(())
    }

    async fn commit(mut self: Box<Self>, digest: &Digest) -> Result<()> {
        let answer = match self.promise {
            Some((promised, _)) if promised != *digest => {
                return Err(self.mismatch(format!("promised as {promised}, committed as {digest}")).await);
            }
            Some((_, size)) if self.accepted != size => {
                let accepted = self.accepted;
                return Err(self.mismatch(format!("{accepted} bytes instead of {size}")).await);
            }
            Some(_) => {
                match self.last.take() {
                    Some(last) => self.feed(last).await?,
                    None => self.start(),
                }
                self.finish().await?
            }
            None => {
                if matches!(self.state, State::Sending { .. }) {
                    let answer = self.finish().await?;
                    self.location = location(&self.what, &answer)?;
                }
                self.close(digest).await?
            }
        };
        match announced(&answer.headers) {
            Some(claimed) if claimed.algorithm() == digest.algorithm() && claimed != *digest => {
                let detail = format!("the registry stored it as {claimed} instead of {digest}");
                Err(self.what.error(Kind::DigestMismatch, detail))
            }
            _ => Ok(()),
        }
    }

    async fn suspend(mut self: Box<Self>) -> Result<Option<UploadToken>> {
        self.give_up().await;
        Ok(None)
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.give_up().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_is_kept_as_it_was() {
        let digest = Digest::sha256(b"x");
        for (location, expected) in [
            ("https://r/v2/a/blobs/uploads/1", "https://r/v2/a/blobs/uploads/1?".to_owned()),
            ("https://r/u?_state=a%2Fb+c==&x", "https://r/u?_state=a%2Fb+c==&x&".to_owned()),
        ] {
            let url = closing(&Url::parse(location).unwrap(), &digest);
            assert_eq!(url.as_str(), format!("{expected}digest={digest}"));
        }
    }
}
