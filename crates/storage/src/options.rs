use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::objects::S3Options;

/// How [`crate::Storage`] works. All ages are measured with `now`.
#[derive(Clone)]
pub struct StorageOptions {
    /// The clock. By default that of the system.
    pub now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// Instead of keeping them, [`crate::Storage::upkeep`] removes manifests that no tag leads to after this time; by default
    /// they stay. See [`crate::CollectOptions::untagged_older_than`].
    pub untagged_older_than: Option<Duration>,
    /// Bytes of content that [`crate::Storage::upkeep`] evicts down to; by default there is no limit.
    pub size_limit: Option<u64>,
    /// [`crate::Storage::upkeep`] evicts what was not used for so long, whatever room there is; by default it stays.
    pub unused_older_than: Option<Duration>,
    /// Whether eviction may take what was pushed here, and not only what was fetched from upstreams. By default it may not.
    pub evict_hosted: bool,
    /// An upload that nobody has written to for so long is given up; 24 hours by default. On a full disk ten minutes suffice.
    pub upload_expiry: Duration,
    /// What no manifest names stays for so long after it was placed or asked for last, since a push brings blobs before
    /// the manifest; 24 hours by default.
    pub grace: Duration,
    /// What was placed or used within this time is never evicted; one hour by default.
    pub in_use: Duration,
    /// How often the last use of a content is written down while it is in use; one hour by default. In between it is
    /// known from memory, so it is exact unless the process is killed, and then at most this much too early.
    pub use_resolution: Duration,
    /// The bucket that content is kept in; by default it is kept in files.
    pub bucket: Option<S3Options>,
}

const HOUR: Duration = Duration::from_secs(60 * 60);

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            now: Arc::new(SystemTime::now),
            untagged_older_than: None,
            size_limit: None,
            unused_older_than: None,
            evict_hosted: false,
            upload_expiry: 24 * HOUR,
            grace: 24 * HOUR,
            in_use: HOUR,
            use_resolution: HOUR,
            bucket: None,
        }
    }
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageOptions")
            .field("untagged_older_than", &self.untagged_older_than)
            .field("size_limit", &self.size_limit)
            .field("unused_older_than", &self.unused_older_than)
            .field("evict_hosted", &self.evict_hosted)
            .field("upload_expiry", &self.upload_expiry)
            .field("grace", &self.grace)
            .field("in_use", &self.in_use)
            .field("use_resolution", &self.use_resolution)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

/// The clock of a storage.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    pub(crate) fn of(options: &StorageOptions) -> Self {
        Self(Arc::clone(&options.now))
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Seconds since 1970.
    pub(crate) fn seconds(&self) -> i64 {
        to_seconds(self.now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// The time that lies `age` back, in seconds since 1970.
    pub(crate) fn before(&self, age: Duration) -> i64 {
        self.seconds().saturating_sub(to_seconds(age))
    }
}

/// A duration as the catalog counts it.
pub(crate) fn to_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A time of the catalog.
pub(crate) fn to_time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())
}
