//! The upload of one blob (distribution-spec, "Pushing blobs"): a small one whose digest and size were promised by one
//! `PUT`; a large one, or one of which nothing is known, by `PATCH`es that can be gone on with and a `PUT` that closes
//! them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Digest, Hasher};
use ferry_store::{Error, Kind, Result, Upload, UploadToken};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::task::JoinError;
use tokio::time::timeout;
use url::Url;

use crate::budget::Permit;
use crate::error::{Failure, Tried, What};
use crate::habit::Habit;
use crate::host::{MAX_RECEIPT, Streaming};
use crate::mount::location;
use crate::outgoing::{Fed, Outgoing};
use crate::read::{RemoteRepository, announced};
use crate::request::{Answer, Request};
use crate::retry::Retry;
use crate::session::Session;
use crate::ways::{Deed, Way};

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
    session: Session,
    way: Way,
    /// Requests with bytes, those before it was gone on with counted as one.
    requests: u64,
    proof: Option<Hasher>,
    /// Bytes that were taken from whoever writes, the last ones included.
    accepted: u64,
    last: Option<Bytes>,
    state: State,
    /// Kept until the upload ends.
    _place: Permit,
}

enum State {
    /// No request is on its way.
    Open,
    /// One is, whose bytes end at the offset if that is known beforehand.
    Sending { outgoing: Outgoing, end: Option<u64> },
    /// The registry answered before it had everything, or fell silent.
    Over,
    /// The same, and it does not know the upload any more.
    Gone,
}

impl RemoteUpload {
    /// Goes on with `session`, of which the registry has what is confirmed.
    pub(crate) fn new(repository: RemoteRepository, what: What, session: Session, place: Permit) -> Self {
        let ways = &repository.host.ways;
        let way = ways.way(session.promise.map(|(_, size)| size));
        let (proof, accepted) = (ways.proof(way, session.promise), session.confirmed);
        let (requests, last, state) = (u64::from(accepted > 0), None, State::Open);
        Self { repository, what, session, way, requests, proof, accepted, last, state, _place: place }
    }

    fn idle(&self) -> Duration {
        self.repository.host.transport.idle()
    }

    fn size(&self) -> Option<u64> {
        self.session.promise.map(|(_, size)| size)
    }

    /// Begins a request at the present offset; its body is fed by [`Self::feed`].
    fn start(&mut self, from: u64) {
        let octets = HeaderValue::from_static("application/octet-stream");
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, octets)]);
        let mut url = self.session.location.clone();
        let mut method = Method::PATCH;
        let mut end = None;
        match (self.way.habit, self.session.promise) {
            (Habit::Whole, Some((digest, size))) => {
                (method, url, end) = (Method::PUT, closing(&url, &digest), Some(size));
            }
            (Habit::Chunks(length), Some((_, size))) => {
                let last = from.saturating_add(length).min(size);
                let range = format!("{from}-{}", last.saturating_sub(1));
                headers.extend(HeaderValue::try_from(range).ok().map(|range| (CONTENT_RANGE, range)));
                end = Some(last);
            }
            _ => {}
        }
        if let Some(end) = end {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(end - from));
        }
        let sending =
            Streaming { what: self.what.clone(), method, url, headers, access: self.repository.access() };
        // Of a length that was not announced a request may end early, so that none is held open by a slow source.
        let pause = self.repository.host.shared.options.upload_pause;
        let pause = (end.is_none() && !self.way.single).then_some(pause);
        let outgoing = Outgoing::start(self.repository.host.clone(), sending, pause);
        self.requests += 1;
        self.state = State::Sending { outgoing, end };
    }

    /// Hands bytes that begin at `from` to the registry as fast as the rate allows.
    async fn feed(&mut self, mut from: u64, mut bytes: Bytes) -> Result<()> {
        let shared = Arc::clone(&self.repository.host.shared);
        while !bytes.is_empty() {
            if matches!(self.state, State::Open) {
                self.start(from);
            }
            let room = match &self.state {
                State::Sending { end: Some(end), .. } => usize::try_from(end - from).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let length = bytes.len().min(shared.up.portion()).min(room);
            shared.up.take(length).await;
            if self.hand_over(bytes.slice(..length), from).await? {
                bytes = bytes.slice(length..);
                from += length as u64;
                if room == length && matches!(self.way.habit, Habit::Chunks(_)) {
                    self.confirm(from).await?;
                }
            }
        }
        Ok(())
    }

    /// Puts bytes into the body under way. False if that body had ended: it is confirmed now, and they belong into the
    /// next one.
    async fn hand_over(&mut self, bytes: Bytes, from: u64) -> Result<bool> {
        let idle = self.idle();
        let State::Sending { outgoing, .. } = &mut self.state else {
            return Err(self.what.error(Kind::Unavailable, "the upload is over"));
        };
        let answered = match timeout(idle, outgoing.feed(bytes)).await {
            Ok(Fed::Taken) => return Ok(true),
            Ok(Fed::Ended) => {
                self.confirm(from).await?;
                return Ok(false);
            }
            Ok(Fed::Answered(answered)) => answered,
            Err(_) => {
                self.state = State::Over;
                return Err(self.what.error(Kind::Stalled, "the registry takes no more bytes"));
            }
        };
        self.state = State::Over;
        Err(match self.outcome(answered) {
            Ok(_) => self.what.error(Kind::Unavailable, "the registry answered before it had all bytes"),
            Err(error) => error,
        })
    }

    /// Ends the request under way, whose bytes go up to `offset`: the registry has them once it has answered.
    async fn confirm(&mut self, offset: u64) -> Result<()> {
        if matches!(self.state, State::Sending { .. }) {
            let answer = self.finish().await?;
            self.session.location = location(&self.what, &answer)?;
            let told = Session { confirmed: offset, ..self.session.clone() }.told(&answer.headers);
            self.repository.host.ways.believes(told, offset);
            self.session.confirmed = offset;
            self.state = State::Open;
        }
        Ok(())
    }

    /// Ends the body and waits for the answer.
    async fn finish(&mut self) -> Result<Answer> {
        let limit = self.idle() * PATIENCE;
        let State::Sending { outgoing, .. } = std::mem::replace(&mut self.state, State::Over) else {
            return Err(self.what.error(Kind::Unavailable, "the upload is over"));
        };
        match timeout(limit, outgoing.finish()).await {
            Ok(answered) => self.outcome(answered),
            Err(_) => Err(self.what.error(Kind::Stalled, "no answer after all bytes were sent")),
        }
    }

    fn outcome(&mut self, answered: std::result::Result<Tried<Answer>, JoinError>) -> Result<Answer> {
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(self.judged(failure)),
            Err(stopped) => {
                Err(self.what.error(Kind::Unavailable, "the upload was stopped").caused_by(stopped))
            }
        }
    }

    /// A registry that does not know the upload any more, or is not where we are, takes a new one; so does one that
    /// objected to how it came, if there is another way.
    fn judged(&mut self, failure: Failure) -> Error {
        let (promise, continued) = (self.session.promise, self.requests > 1);
        let sent = self.proof.take().map(Hasher::finish);
        let deed = Deed { way: self.way, promise, continued, sent };
        if self.repository.host.ways.objected(&deed, &failure)
            || failure.is(StatusCode::NOT_FOUND)
            || failure.is(StatusCode::RANGE_NOT_SATISFIABLE)
        {
            self.state = State::Gone;
            return self.what.error(Kind::Unavailable, failure.error.detail());
        }
        failure.into()
    }

    /// Closes an upload whose bytes have all been sent.
    async fn close(&mut self, digest: &Digest) -> Result<Answer> {
        let url = closing(&self.session.location, digest);
        let request = Request::new(self.what.clone(), Method::PUT, url, self.repository.access());
        let closed = self.repository.host.call(&request.retry(Retry::Never), MAX_RECEIPT).await;
        closed.map_err(|failure| self.judged(failure))
    }

    /// Breaks off what is being sent and tells the registry, whose answer changes nothing.
    async fn give_up(&mut self) {
        self.state = State::Gone;
        let (what, access) = (self.what.clone(), self.repository.access());
        let location = self.session.location.clone();
        let request = Request::new(what, Method::DELETE, location, access).retry(Retry::Never);
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
        let resumable =
            self.way.habit != Habit::Whole && !self.way.single && !matches!(self.state, State::Gone);
        let host = &self.repository.host;
        resumable.then(|| self.session.token(&host.registry, &self.repository.name))
    }

    /// Ends the request under way, because only its answer confirms anything.
    async fn durable_offset(&mut self) -> Result<u64> {
        if self.way.habit == Habit::Stream {
            let sent = self.accepted - self.last.as_ref().map_or(0, |last| last.len() as u64);
            self.confirm(sent).await?;
            return Ok(self.session.confirmed);
        }
        Ok(if self.way.habit == Habit::Whole { self.accepted } else { self.session.confirmed })
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let from = self.accepted;
        let accepted = from + bytes.len() as u64;
        if let Some(proof) = &mut self.proof {
            proof.update(&bytes);
        }
        if let Some(size) = self.size() {
            if accepted > size {
                let error = self.mismatch(format!("more than the {size} bytes that were promised")).await;
                return Err(error);
            }
            if accepted == size {
                if matches!(self.state, State::Open) && self.way.habit == Habit::Whole {
                    self.start(from);
                }
                self.last = Some(bytes);
                self.accepted = accepted;
                return Ok(());
            }
        }
        self.feed(from, bytes).await?;
        self.accepted = accepted;
        Ok(())
    }

    async fn commit(mut self: Box<Self>, digest: &Digest) -> Result<()> {
        match self.session.promise {
            Some((promised, _)) if promised != *digest => {
                return Err(self.mismatch(format!("promised as {promised}, committed as {digest}")).await);
            }
            Some((_, size)) if self.accepted != size => {
                let accepted = self.accepted;
                return Err(self.mismatch(format!("{accepted} bytes instead of {size}")).await);
            }
            _ => {}
        }
        if let Some(last) = self.last.take() {
            self.feed(self.accepted - last.len() as u64, last).await?;
        }
        let answer = if self.way.habit == Habit::Whole {
            if matches!(self.state, State::Open) {
                self.start(0);
            }
            self.finish().await?
        } else {
            self.confirm(self.accepted).await?;
            self.close(digest).await?
        };
        self.repository.host.ways.worked(self.way);
        match announced(&answer.headers) {
            Some(claimed) if claimed.algorithm() == digest.algorithm() && claimed != *digest => {
                let detail = format!("the registry stored it as {claimed} instead of {digest}");
                Err(self.what.error(Kind::DigestMismatch, detail))
            }
            _ => Ok(()),
        }
    }

    async fn suspend(mut self: Box<Self>) -> Result<Option<UploadToken>> {
        match self.way.habit {
            Habit::Whole => self.give_up().await,
            Habit::Stream => drop(self.durable_offset().await?),
            // What was sent of a chunk does not count.
            Habit::Chunks(_) => self.state = State::Over,
        }
        Ok(self.token())
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
