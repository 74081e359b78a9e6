//! Counts what the clients of `ferry serve` take.

use std::path::Path;
use std::sync::Arc;

use ferry_serve::{ClientLimits, Front, Limiter, QuotaFile, RegistryService};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The file in the storage that says what was pulled today.
const FILE: &str = "quotas.json";

/// What counts for the limits of a server, if it has any; kept in its storage.
pub(crate) struct Limiting(Option<Counting>);

struct Counting {
    limiter: Arc<Limiter>,
    stop: CancellationToken,
    kept: JoinHandle<()>,
}

impl Limiting {
    /// Goes on from what was counted before.
    pub(crate) async fn start(limits: Option<ClientLimits>, storage: &Path) -> Self {
        let Some(limits) = limits else { return Self(None) };
        let limiter = Arc::new(Limiter::new(limits));
        let file = QuotaFile::open(Arc::clone(&limiter), storage.join(FILE)).await;
        let stop = CancellationToken::new();
        let kept = tokio::spawn(file.keep(stop.clone()));
        Self(Some(Counting { limiter, stop, kept }))
    }

    /// The API within the limits.
    pub(crate) fn front(&self, service: RegistryService) -> Front {
        match &self.0 {
            Some(Counting { limiter, .. }) => {
                Front::new(service.limiting(Arc::clone(limiter))).limiting(Arc::clone(limiter))
            }
            None => Front::new(service),
        }
    }

    /// Writes down what was counted. To be called after the last answer.
    pub(crate) async fn stop(self) {
        if let Some(Counting { stop, kept, .. }) = self.0 {
            stop.cancel();
            let _ = kept.await;
        }
    }
}
