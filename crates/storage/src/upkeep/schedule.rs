use std::time::{Duration, SystemTime};

use ferry_store::Result;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::CollectOptions;
use crate::storage::Storage;

/// How often files that the catalog does not know are looked for; before that at the start.
const ORPHANS: Duration = Duration::from_secs(24 * 60 * 60);

impl Storage {
    /// Keeps the storage in order until `stop` is cancelled: gives up old uploads, collects, evicts what
    /// was not used for [`crate::StorageOptions::unused_older_than`], and evicts down to
    /// [`crate::StorageOptions::size_limit`], at once and then `every` so often after the last time was done.
    ///
    /// What fails is logged and tried again the next time. At the end the last uses that are still in memory are written
    /// down; whoever does not wait for that loses an hour of them.
    pub async fn upkeep(&self, stop: CancellationToken, every: Duration) {
        let mut looked = None;
        loop {
            self.round(&stop, &mut looked).await;
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(every) => {}
            }
        }
        if let Err(error) = self.inner.record_uses().await {
            warn!(%error, "the last uses are forgotten");
        }
    }

    /// Each of them on its own: that one fails is no reason to leave out the others.
    async fn round(&self, stop: &CancellationToken, looked: &mut Option<SystemTime>) {
        match self.expire_uploads().await {
            Ok(expired) if expired.uploads > 0 => {
                info!(uploads = expired.uploads, bytes = expired.bytes, "gave up old uploads");
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "old uploads stay for now"),
        }
        if let Err(error) = self.collect_in_round(stop, looked).await {
            warn!(%error, "not everything that is unneeded was removed");
        }
        if let Some(age) = self.inner.options.unused_older_than {
            match self.evict_unused(age, stop).await {
                Ok(evicted) if evicted.manifests > 0 => info!(
                    manifests = evicted.manifests,
                    blobs = evicted.blobs,
                    bytes = evicted.bytes,
                    "removed what was not used for long",
                ),
                Ok(_) => {}
                Err(error) => warn!(%error, "not everything that was not used for long was removed"),
            }
        }
        if let Some(limit) = self.inner.options.size_limit
            && let Err(error) = self.evict_in_round(limit, stop).await
        {
            warn!(%error, "not everything above the limit was removed");
        }
    }

    async fn collect_in_round(
        &self,
        stop: &CancellationToken,
        looked: &mut Option<SystemTime>,
    ) -> Result<()> {
        let now = self.inner.clock.now();
        let orphans =
            looked.is_none_or(|looked| now.duration_since(looked).is_ok_and(|since| since >= ORPHANS));
        let untagged_older_than = self.inner.options.untagged_older_than;
        let options = CollectOptions { grace: None, untagged_older_than, orphans };
        let collected = self.collect(&options, stop).await?;
        if orphans && !collected.stopped {
            *looked = Some(now);
        }
        if collected.manifests + collected.links + collected.blobs > 0 {
            info!(
                manifests = collected.manifests,
                links = collected.links,
                blobs = collected.blobs,
                bytes = collected.bytes,
                orphans = collected.orphans,
                "removed what nothing needs",
            );
        }
        Ok(())
    }

    async fn evict_in_round(&self, limit: u64, stop: &CancellationToken) -> Result<()> {
        let evicted = self.evict_to(limit, stop).await?;
        if evicted.manifests + evicted.blobs > 0 {
            info!(
                manifests = evicted.manifests,
                blobs = evicted.blobs,
                bytes = evicted.bytes,
                left = evicted.left,
                "removed what was not used for longest",
            );
        }
        if evicted.left > limit && !stop.is_cancelled() {
            warn!(
                left = evicted.left,
                limit, "the storage is above its limit, and the rest is in use or hosted"
            );
        } else {
            debug!(left = evicted.left, limit, "the storage keeps to its limit");
        }
        Ok(())
    }
}
