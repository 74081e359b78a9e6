use std::future::Future;

use ferry_store::{Error, Kind};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What goes on whoever waits for it, until everything is stopped.
#[derive(Default)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }

    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// What those get who waited for a task that was stopped.
pub(super) fn stopped() -> Error {
    Error::new(Kind::Unavailable, "fetch", "content", "the mirror is stopping; ask again")
}

/// The same error for one more of those who waited.
pub(super) fn again(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.operation(), error.subject(), error.detail());
    match error.side() {
        Some(side) => same.on(side),
        None => same,
    }
}
