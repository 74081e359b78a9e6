//! Counts what the clients of `ferry serve` take.

use std::path::Path;
use std::sync::Arc;

use ferry_serve::{ClientLimits, Limiter, QuotaFile};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The file in the storage that says what was pulled today.
const FILE: &str = "quotas.json";

/// What counts for the limits of a server, if it has any; kept in its storage.
#[derive(Default)]
pub(crate) struct Limiting(Option<Counting>);

struct Counting {
    limits: ClientLimits,
    limiter: Arc<Limiter>,
    stop: CancellationToken,
    kept: JoinHandle<()>,
}

impl Limiting {
    /// Goes by these limits, and on from what was counted before.
    pub(crate) async fn go_by(&mut self, limits: Option<ClientLimits>, storage: &Path) {
        if self.0.as_ref().map(|counting| &counting.limits) == limits.as_ref() {
            return;
        }
        self.stop().await;
        let Some(limits) = limits else { return };
        let limiter = Arc::new(Limiter::new(limits));
        let file = QuotaFile::open(Arc::clone(&limiter), storage.join(FILE)).await;
        let stop = CancellationToken::new();
        let kept = tokio::spawn(file.keep(stop.clone()));
        self.0 = Some(Counting { limits, limiter, stop, kept });
    }

    /// What counts, if there are limits.
    pub(crate) fn limiter(&self) -> Option<Arc<Limiter>> {
        self.0.as_ref().map(|counting| Arc::clone(&counting.limiter))
    }

    /// Writes down what was counted.
    pub(crate) async fn stop(&mut self) {
        if let Some(Counting { stop, kept, .. }) = self.0.take() {
            stop.cancel();
            let _ = kept.await;
        }
    }
}
