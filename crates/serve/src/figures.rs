//! What a mirror shows of itself, to people and to machines.

use std::time::Duration;

use ferry_oci::{Digest, Name, Registry};

/// Everything that is shown of a mirror at one moment. All counts are since it was started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// The version of the program.
    pub version: String,
    /// How long it has been running.
    pub uptime: Duration,
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes of blobs and manifests that went to clients.
    pub bytes_served: u64,
    /// What is known of each upstream.
    pub upstreams: Vec<UpstreamFigures>,
    /// Blobs that are being fetched.
    pub transfers: Vec<Transfer>,
    /// What is kept, and how much may be.
    pub storage: StorageFigures,
}

/// What is known of an upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamFigures {
    /// Which.
    pub registry: Registry,
    /// Manifests and blobs that were answered without asking it.
    pub hits: u64,
    /// Those that had to wait for it.
    pub misses: u64,
    /// Tags among the hits that it did not confirm when it should have.
    pub stale: u64,
    /// Bytes that came from it.
    pub bytes_fetched: u64,
    /// How it answered last.
    pub health: Health,
    /// What is left of its quota, if it tells.
    pub quota: Option<QuotaFigures>,
}

/// How an upstream answered last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// It was not asked yet.
    #[default]
    Unknown,
    /// Well.
    Good,
    /// Not at all, with failures, or with a demand to wait; for so long.
    Failing {
        /// Since the first of the failures that nothing but failures followed.
        since: Duration,
    },
}

/// What a registry says of its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaFigures {
    /// Requests in a window.
    pub limit: u64,
    /// Those that are left.
    pub remaining: u64,
}

/// A blob that is being fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Where from.
    pub registry: Registry,
    /// The repository there.
    pub repository: Name,
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes, once it is known.
    pub size: Option<u64>,
    /// Bytes of it that are here.
    pub present: u64,
    /// Who reads it.
    pub readers: usize,
}

/// What is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StorageFigures {
    /// Bytes of content.
    pub bytes: u64,
    /// Blobs and manifests.
    pub objects: u64,
    /// The most bytes that there may be, if there is a limit.
    pub limit: Option<u64>,
    /// Bytes that are free where the content is, if that is known.
    pub free: Option<u64>,
}
