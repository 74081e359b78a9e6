//! What keeps a storage in order while it is used.
//!
//! Everything here works in steps of at most a hundred rows. A step looks and removes in one transaction, under claims
//! on all content that it removes something of, and runs to its end even if nobody waits for it any more. What a step
//! leaves undone, the next run finds again.

mod check;
mod collect;
mod evict;
mod examine;
mod orphans;
mod schedule;
mod statistics;

pub use check::{CheckEvent, CheckOptions, Checked, Finding};
pub use collect::{CollectOptions, Collected};
pub use evict::Evicted;
pub(crate) use evict::Evictions;
pub use examine::{Depth, Problem};
pub use statistics::Statistics;

pub(crate) use collect::sweep;

use std::collections::HashMap;
use std::sync::Arc;

use ferry_oci::Digest;
use ferry_store::{Error, Result};

use crate::leases::Claim;
use crate::storage::Inner;

/// Runs a step to its end. Were it dropped on the way, its claims would go before its work is done.
pub(crate) async fn step<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|e| Err(Error::io("upkeep", "storage", std::io::Error::other(e))))
}

impl Inner {
    /// The sole use of content; `None` if somebody relies on it, or used it after `cutoff`.
    fn claim(self: &Arc<Self>, digest: &Digest, cutoff: i64) -> Option<Claim> {
        let claim = self.leases.claim(digest)?;
        // Looked up under the claim: whoever uses it now waits until we are done.
        let rested = self.uses.last(digest).is_none_or(|used| used <= cutoff);
        rested.then_some(claim)
    }

    /// Whether content is claimed, together with what was before.
    pub(crate) fn claim_into(
        self: &Arc<Self>,
        claims: &mut HashMap<Digest, Claim>,
        digest: &Digest,
        cutoff: i64,
    ) -> bool {
        if !claims.contains_key(digest)
            && let Some(claim) = self.claim(digest, cutoff)
        {
            claims.insert(*digest, claim);
        }
        claims.contains_key(digest)
    }
}
