//! What one client may take: how fast, how often, and how much in a day.
//!
//! [`ClientLimits`] says it, a [`Limiter`] counts. Requests are counted in front of everything that costs ([`crate::Front`]), what is
//! pulled once it is known what a request is about. Every table of clients is bounded (`table`).

mod client;
mod connections;
mod daily;
mod kept;
mod limiter;
mod measured;
mod pace;
mod requests;
mod table;

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::Failure;

pub(crate) use connections::{Place, Places};
pub use kept::QuotaFile;
pub(crate) use limiter::Admitted;
pub use limiter::Limiter;
pub(crate) use pace::Pace;

/// What clients may take. Nothing is limited by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// How fast blobs are sent and taken.
    pub speed: SpeedLimits,
    /// How often one address may ask.
    pub requests: Option<RequestLimit>,
    /// What one address may pull in a day.
    pub daily_per_address: Quota,
    /// What one user may pull in a day; if there is any limit here, it holds for who has logged in, in place of that of the
    /// address.
    pub daily_per_user: Quota,
}

impl ClientLimits {
    /// Whether it matters which way blobs go to clients, and how fast: what they fetch elsewhere is not seen here.
    pub fn measure_blobs(&self) -> bool {
        let quotas = [self.daily_per_address, self.daily_per_user];
        self.speed != SpeedLimits::default() || quotas.iter().any(|quota| quota.bytes.is_some())
    }
}

/// How fast blobs are sent and, apart from that, taken; in bytes a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpeedLimits {
    /// All blobs of one address together.
    pub per_address: Option<u64>,
    /// Every single answer or push.
    pub per_blob: Option<u64>,
    /// Everything together.
    pub total: Option<u64>,
}

/// How often one address may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimit {
    /// So many requests a minute in the long run.
    pub per_minute: NonZeroU32,
    /// So many at once by who has not asked for a while.
    pub burst: NonZeroU32,
}

/// What may be pulled from midnight to midnight (UTC).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of blobs.
    pub bytes: Option<u64>,
    /// Manifests; an image of several platforms is two, its index and the one that is chosen.
    pub manifests: Option<u64>,
}

impl Quota {
    /// Whether it limits anything.
    fn is_some(self) -> bool {
        self.bytes.is_some() || self.manifests.is_some()
    }
}

/// A client has taken what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) of: Limit,
    /// So long it has to wait.
    pub(crate) after: Duration,
}

/// What a client can have used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Requests in a minute.
    Requests(NonZeroU32),
    /// Bytes in a day.
    Bytes(u64),
    /// Manifests in a day.
    Manifests(u64),
}

impl Excess {
    /// Whole seconds to wait, at least one, for `Retry-After`.
    pub(crate) fn seconds(&self) -> u64 {
        let rounded_up = self.after + Duration::from_nanos(999_999_999);
        rounded_up.as_secs().max(1)
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            Limit::Requests(most) => {
                write!(f, "too many requests: {most} a minute are allowed here")?;
            }
            Limit::Bytes(most) => write!(f, "the daily quota of {most} bytes is used up")?,
            Limit::Manifests(most) => write!(f, "the daily quota of {most} manifests is used up")?,
        }
        write!(f, "; try again in {} seconds", self.seconds())
    }
}

impl From<Excess> for Failure {
    fn from(excess: Excess) -> Self {
        Self::Excess(excess)
    }
}
