//! What is seen of every request once it is over.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::body::{BoxError, ResponseBody};
use crate::caller::{Caller, Served};
use crate::gauge::{Counted, Gauge};
use crate::mirror::CACHE_STATUS;
use crate::service::{Handler, shown};

/// So many characters of a user agent are kept.
const MOST_AGENT: usize = 200;

/// So many characters of a path are kept: no repository and reference is longer.
const MOST_PATH: usize = 1000;

/// A request that was answered, or whose client went away.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it came.
    pub began: SystemTime,
    /// Who asked.
    pub caller: Caller,
    /// The method.
    pub method: Method,
    /// The path, without what follows `/blobs/uploads/`, which lets whoever knows it write, and without the query.
    pub path: String,
    /// The status of the answer.
    pub status: StatusCode,
    /// How long the head of the answer took.
    pub waited: Duration,
    /// How long the whole answer took.
    pub took: Duration,
    /// Bytes of the body that were handed to the connection.
    pub bytes: u64,
    /// The whole body was.
    pub whole: bool,
    /// What it was about, if it was a request to the API that was understood.
    pub served: Option<Served>,
    /// Where the answer came from, if it is that of a mirror and says so.
    pub cache: Option<CacheState>,
    /// What the client calls itself; shortened.
    pub agent: Option<String>,
}

/// Where an answer of a mirror came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheState {
    /// The upstream was not asked.
    Hit,
    /// The upstream should have confirmed it and did not.
    Stale,
    /// The upstream was asked.
    Miss,
}

impl CacheState {
    /// As it is written in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
        }
    }

    fn of(headers: &HeaderMap) -> Option<Self> {
        let status = headers.get(CACHE_STATUS)?.to_str().ok()?;
        Some(match status {
            status if status.contains("detail=stale") => Self::Stale,
            status if status.contains("fwd=") => Self::Miss,
            _ => Self::Hit,
        })
    }
}

/// Is told of requests. Called where connections are served, so it must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A request is over.
    fn answered(&self, record: Record);
}

/// A handler whose requests are observed.
#[derive(Clone)]
pub struct Observed<H> {
    handler: H,
    observer: Arc<dyn Observer>,
    running: Gauge,
}

impl<H: Handler> Observed<H> {
    /// Tells `observer` of all requests that `handler` answers; `running` counts those that are not over.
    pub fn new(handler: H, observer: Arc<dyn Observer>, running: Gauge) -> Self {
        Self { handler, observer, running }
    }
}

impl<H: Handler> Handler for Observed<H> {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let (start, began, counted) = (Instant::now(), SystemTime::now(), self.running.enter());
        let asked_by = Caller::at(request.extensions());
        let method = request.method().clone();
        let path = cut(shown(request.uri().path()), MOST_PATH);
        let agent = request.headers().get(USER_AGENT);
        let agent = agent.map(|agent| cut(&String::from_utf8_lossy(agent.as_bytes()), MOST_AGENT));
        let response = self.handler.handle(request).await;
        let record = Record {
            began,
            caller: response.extensions().get().cloned().unwrap_or(asked_by),
            method,
            path,
            status: response.status(),
            waited: start.elapsed(),
            took: Duration::ZERO,
            bytes: 0,
            whole: false,
            served: response.extensions().get().cloned(),
            cache: CacheState::of(response.headers()),
            agent,
        };
        let observer = Arc::clone(&self.observer);
        let seen = Seen { record: Some(record), start, observer, _counted: counted };
        response.map(|body| Watched { body, seen }.boxed_unsync())
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Tells of the request when it is dropped: then the body has ended, or nobody wants it any more.
struct Seen {
    record: Option<Record>,
    start: Instant,
    observer: Arc<dyn Observer>,
    _counted: Counted,
}

impl Drop for Seen {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.took = self.start.elapsed();
            self.observer.answered(record);
        }
    }
}

/// The body of an answer, counted.
struct Watched {
    body: ResponseBody,
    seen: Seen,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(record), Some(Ok(frame))) = (&mut self.seen.record, &next) {
            record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        if next.is_none() {
            self.note_end();
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Watched {
    fn note_end(&mut self) {
        if let Some(record) = &mut self.seen.record {
            record.whole = true;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A body that says itself that it is over is not asked again, and that of an answer to HEAD is not asked at all.
        let over = self.body.is_end_stream();
        if over || self.seen.record.as_ref().is_some_and(|record| record.method == Method::HEAD) {
            self.note_end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::body::full;

    #[derive(Default)]
    struct Kept(Mutex<Vec<Record>>);

    impl Observer for Kept {
        fn answered(&self, record: Record) {
            self.0.lock().unwrap().push(record);
        }
    }

    fn watched(kept: &Arc<Kept>, method: Method, body: ResponseBody) -> Watched {
        let record = Record {
            began: SystemTime::UNIX_EPOCH,
            caller: Caller::at(&http::Extensions::new()),
            method,
            path: "/v2/".to_owned(),
            status: StatusCode::OK,
            waited: Duration::ZERO,
            took: Duration::ZERO,
            bytes: 0,
            whole: false,
            served: None,
            cache: None,
            agent: None,
        };
        let observer: Arc<dyn Observer> = kept.clone();
        let _counted = Gauge::default().enter();
        Watched { body, seen: Seen { record: Some(record), start: Instant::now(), observer, _counted } }
    }

    #[tokio::test]
    async fn a_record_is_told_once_when_the_body_is_over() {
        let kept = Arc::new(Kept::default());
        let mut body = watched(&kept, Method::GET, full("abc"));
        assert_eq!(body.size_hint().exact(), Some(3));
        body.frame().await.unwrap().unwrap();
        assert!(kept.0.lock().unwrap().is_empty(), "not yet");
        drop(body);
        drop(watched(&kept, Method::GET, full("abc")));
        drop(watched(&kept, Method::HEAD, full("abc")));
        let seen: Vec<_> = kept.0.lock().unwrap().iter().map(|record| (record.bytes, record.whole)).collect();
        assert_eq!(seen, [(3, true), (0, false), (0, true)]);
    }

    #[test]
    fn where_an_answer_came_from_is_read_from_its_head() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_STATUS, value.parse().unwrap());
            CacheState::of(&headers)
        };
        assert_eq!(of("ferry; hit"), Some(CacheState::Hit));
        assert_eq!(of("ferry; fwd=miss"), Some(CacheState::Miss));
        assert_eq!(of("ferry; hit; detail=stale"), Some(CacheState::Stale));
        assert_eq!(CacheState::of(&HeaderMap::new()), None);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("äöü", 2), "äö");
        assert_eq!(cut("a", 2), "a");
    }
}
