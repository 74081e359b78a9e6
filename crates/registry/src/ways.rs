//! How a registry was found to take blobs, where that is not what its name says.
//!
//! The first attempt is the cheapest: one `PUT` for a small blob, for a large one whatever can be gone on with. What a
//! registry objects to is not tried there again, so that its ways cost one blob an attempt, once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use ferry_oci::{Digest, Hasher};
use ferry_store::Kind;
use http::{HeaderMap, StatusCode};

use crate::error::Failure;
use crate::habit::{ECR_PART, Habit};
use crate::request::text;

/// The least length of a chunk (distribution-spec, "Pushing a blob in chunks").
const LEAST: &str = "oci-chunk-min-length";
/// A connection that breaks under less than so much says nothing about how much a registry takes at once.
const MUCH: u64 = 1 << 20;
/// Adding up so little costs nothing to speak of.
const LITTLE: u64 = 64 << 10;

/// What was learnt of a registry.
#[derive(Debug)]
pub(crate) struct Ways {
    named: Habit,
    resumable_from: u64,
    /// Blobs of so many bytes are not taken in one `PUT`.
    whole_below: AtomicU64,
    /// Some were.
    whole_works: AtomicBool,
    /// One was said not to fit its digest, and it is not known whose fault that was.
    doubt: AtomicBool,
    /// What came in more than one request did not come out right.
    in_one_request: AtomicBool,
    /// It does not say how much it has.
    own_count: AtomicBool,
    least_chunk: AtomicU64,
}

/// How one blob is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) habit: Habit,
    /// There may be no second `PATCH`.
    pub(crate) single: bool,
}

/// What an upload had done when a registry objected.
pub(crate) struct Deed {
    pub(crate) way: Way,
    pub(crate) promise: Option<(Digest, u64)>,
    /// It was not the first request with bytes.
    pub(crate) continued: bool,
    /// What all bytes that were sent amount to, if that was looked at.
    pub(crate) sent: Option<Digest>,
}

impl Ways {
    pub(crate) fn new(named: Habit, whole_below: u64, resumable_from: u64) -> Self {
        Self {
            named,
            resumable_from,
            whole_below: AtomicU64::new(whole_below),
            whole_works: AtomicBool::default(),
            doubt: AtomicBool::default(),
            in_one_request: AtomicBool::default(),
            own_count: AtomicBool::default(),
            least_chunk: AtomicU64::default(),
        }
    }

    /// How a blob of this size is sent, or one of which nothing is known.
    pub(crate) fn way(&self, size: Option<u64>) -> Way {
        let single = self.in_one_request.load(Relaxed);
        let stream = Way { habit: Habit::Stream, single };
        let Some(size) = size else { return stream };
        let wanted = match self.named {
            _ if size < self.resumable_from || single => Habit::Whole,
            Habit::Stream if self.own_count.load(Relaxed) => Habit::Chunks(ECR_PART),
            named => named,
        };
        match wanted {
            Habit::Whole if size >= self.whole_below.load(Relaxed) => stream,
            Habit::Chunks(length) => {
                Way { habit: Habit::Chunks(length.max(self.least_chunk.load(Relaxed))), single: false }
            }
            habit => Way { habit, single: false },
        }
    }

    /// Adds up what is sent, as long as it is not known whether one `PUT` will do: a registry that ignores its bytes says
    /// that they do not fit their digest. Adding up much costs time, so that is done only where there is doubt.
    pub(crate) fn proof(&self, way: Way, promise: Option<(Digest, u64)>) -> Option<Hasher> {
        let unknown = way.habit == Habit::Whole && !self.whole_works.load(Relaxed);
        let (digest, _) =
            promise.filter(|(_, size)| unknown && (*size <= LITTLE || self.doubt.load(Relaxed)))?;
        Some(Hasher::new(digest.algorithm()))
    }

    /// A blob was taken.
    pub(crate) fn worked(&self, way: Way) {
        if way.habit == Habit::Whole {
            self.whole_works.store(true, Relaxed);
        }
    }

    /// Reads what a registry wants of chunks.
    pub(crate) fn note_least(&self, headers: &HeaderMap) {
        if let Some(least) = text(headers, LEAST).and_then(|least| least.parse().ok()) {
            self.least_chunk.fetch_max(least, Relaxed);
        }
    }

    /// Compares what a registry says that it has with what it has confirmed. False if it is less.
    pub(crate) fn believes(&self, told: u64, confirmed: u64) -> bool {
        let honest = told >= confirmed;
        if !honest {
            self.own_count.store(true, Relaxed);
        }
        honest
    }

    /// Learns from a failure. Returns whether another way is left.
    pub(crate) fn objected(&self, deed: &Deed, failure: &Failure) -> bool {
        match (deed.way.habit, deed.promise) {
            (Habit::Whole, Some(_)) if self.is_open_question(deed, failure) => {
                self.doubt.store(true, Relaxed);
                return true;
            }
            (Habit::Whole, Some((digest, size))) => {
                if let Some(below) = self.too_much(deed.sent == Some(digest), size, failure) {
                    self.whole_below.fetch_min(below, Relaxed);
                }
            }
            (habit, _) if is_objection(failure) => {
                let moved_on = failure.is(StatusCode::RANGE_NOT_SATISFIABLE);
                let lost = failure.error.kind() == Kind::DigestMismatch;
                let refused =
                    if deed.continued { !moved_on } else { !lost && (!moved_on || habit != Habit::Stream) };
                self.in_one_request.fetch_or(refused, Relaxed);
            }
            _ => {}
        }
        self.way(deed.promise.map(|(_, size)| size)) != deed.way
    }

    /// Whether it cannot be told whose fault it was that the bytes did not fit. The next time they are added up.
    fn is_open_question(&self, deed: &Deed, failure: &Failure) -> bool {
        let unproved = deed.sent.is_none() && !self.whole_works.load(Relaxed);
        failure.error.kind() == Kind::DigestMismatch && unproved
    }

    /// From which size on a registry that failed like this is not sent a blob in one `PUT`.
    fn too_much(&self, intact: bool, size: u64, failure: &Failure) -> Option<u64> {
        let unanswered = failure.status.is_none() && failure.error.kind() == Kind::Unavailable;
        if failure.is(StatusCode::PAYLOAD_TOO_LARGE)
            || unanswered && size >= MUCH && self.named != Habit::Whole
        {
            return Some(size);
        }
        let ignored = failure.error.kind() != Kind::DigestMismatch || intact;
        let refused = is_objection(failure) || failure.is(StatusCode::NOT_FOUND);
        (refused && ignored && !self.whole_works.load(Relaxed)).then_some(0)
    }
}

/// Whether a registry has something against the request itself.
fn is_objection(failure: &Failure) -> bool {
    failure.status.is_some_and(|status| status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED)
        && matches!(failure.error.kind(), Kind::Invalid | Kind::DigestMismatch | Kind::Unavailable)
        && !failure.is(StatusCode::REQUEST_TIMEOUT)
}
