use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ferry_store::{Kind, Side};
use http::StatusCode;
use reqwest::{Body, Response};
use tokio::time::Instant;

use crate::budget::{Budget, Closed, Lane, Permit};
use crate::error::{Failure, Tried, What};
use crate::host::{Host, Streaming};
use crate::request::{Answer, Request, collect};
use crate::retry::Attempts;

/// A peer that asks for more patience is asked again after so long: it may have meant only one of us.
const LONGEST_CLOSED: Duration = Duration::from_secs(600);

/// A registry as requests of one lane and one side see it: every request waits for its place in the registry's budgets.
#[derive(Clone)]
pub(crate) struct Desk {
    host: Arc<Host>,
    lane: Lane,
    pub(crate) side: Option<Side>,
}

impl Deref for Desk {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Desk {
    pub(crate) fn new(host: Arc<Host>, lane: Lane, side: Option<Side>) -> Self {
        Self { host, lane, side }
    }

    /// Sends a request and reads the answer of at most `limit` bytes; tries again what may pass.
    pub(crate) async fn call(&self, request: &Request, limit: u64) -> Tried<Answer> {
        let mut attempts = Attempts::new(&self.shared.options, request.retry);
        loop {
            let permit = self.enter(&request.what, &self.calls).await?;
            let result = self.call_once(request, limit).await;
            self.learn(&self.calls, &result);
            drop(permit);
            match result {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.quota => return Err(failure),
                Err(failure) => attempts.after(failure).await?,
            }
        }
    }

    async fn call_once(&self, request: &Request, limit: u64) -> Tried<Answer> {
        let response = self.exchange(request).await?;
        collect(&request.what, response, limit, self.transport.idle()).await
    }

    /// Sends a request for content; tries again until its head is there. The permit goes with the body.
    pub(crate) async fn download(&self, request: &Request) -> Tried<(Response, Permit)> {
        let mut attempts = Attempts::new(&self.shared.options, request.retry);
        loop {
            let permit = self.enter(&request.what, &self.downloads).await?;
            let result = self.exchange(request).await;
            self.learn(&self.downloads, &result);
            match result {
                Ok(response) => return Ok((response, permit)),
                Err(failure) => {
                    drop(permit);
                    attempts.after(failure).await?;
                }
            }
        }
    }

    /// A place for an upload, to be taken before it is opened and kept until it ends.
    ///
    /// Whoever needs a download for it as well takes that place second. So nobody waits for a place of this sort with
    /// one of the other in hand, and the two cannot lock up.
    pub(crate) async fn upload_place(&self, what: &What) -> Tried<Permit> {
        self.enter(what, &self.uploads).await
    }

    /// Sends content as it comes, once; see [`Host::stream`].
    pub(crate) async fn stream(&self, sending: Streaming, body: Body) -> Tried<Answer> {
        let result = self.host.stream(sending, body).await;
        self.learn(&self.uploads, &result);
        result
    }

    async fn enter(&self, what: &What, budget: &Arc<Budget>) -> Tried<Permit> {
        let patience = self.shared.options.max_retry_after;
        budget.acquire(self.lane, patience).await.map_err(|Closed(wait)| {
            let detail = format!("the registry asked for patience; {} s of it are left", wait.as_secs());
            let failure = what.failure(Kind::RateLimited { after: Some(wait) }, detail);
            Failure { retry_after: Some(wait), ..failure }
        })
    }

    /// Adapts a budget to how a request went.
    fn learn<T>(&self, budget: &Arc<Budget>, result: &Tried<T>) {
        let failure = match result {
            Ok(_) => return budget.did_well(),
            Err(failure) => failure,
        };
        let limited = matches!(failure.error.kind(), Kind::RateLimited { .. });
        let too_much = match failure.error.kind() {
            Kind::Stalled => true,
            Kind::Unavailable => {
                failure.status.is_none_or(|status| status == StatusCode::SERVICE_UNAVAILABLE)
            }
            _ => limited,
        };
        let now = Instant::now();
        if too_much {
            budget.overloaded(now);
        }
        let asked = failure.retry_after.or(limited.then_some(self.shared.options.backoff));
        if let Some(wait) = asked {
            budget.close(now + wait.min(LONGEST_CLOSED));
        }
    }
}
