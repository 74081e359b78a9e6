use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::Digest;
use tokio::sync::Notify;

/// Who relies on a content at this moment, and who is about to remove it.
///
/// An operation that tells somebody that content is there, or that puts it there, holds a [`Lease`] on its digest until
/// the catalog or the last use says so. Upkeep takes a [`Claim`] before it looks whether content may go, and keeps it
/// until the row and the file are gone. A claim is only given if nobody has a lease, a lease waits for the claim; so
/// between looking and removing nothing can begin to rely on the content. Nobody waits for a lease while holding a
/// claim, so there is no way to lock up.
#[derive(Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<Digest, Held>>,
    released: Notify,
}

enum Held {
    Leased(usize),
    Claimed,
}

impl Leases {
    /// Waits until nobody is removing `digest`, and keeps everybody from beginning to.
    pub(crate) async fn lease(self: &Arc<Self>, digest: &Digest) -> Lease {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            // Before looking, or a release in between would go unnoticed.
            released.as_mut().enable();
            if self.try_lease(digest) {
                return Lease { leases: Arc::clone(self), digest: *digest };
            }
            released.await;
        }
    }

    fn try_lease(&self, digest: &Digest) -> bool {
        match self.held().entry(*digest).or_insert(Held::Leased(0)) {
            Held::Leased(count) => {
                *count += 1;
                true
            }
            Held::Claimed => false,
        }
    }

    /// The sole use of `digest`, unless somebody relies on it.
    pub(crate) fn claim(self: &Arc<Self>, digest: &Digest) -> Option<Claim> {
        match self.held().entry(*digest) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => {
                vacant.insert(Held::Claimed);
                Some(Claim { leases: Arc::clone(self), digest: *digest })
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Digest, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps content from being removed while this is alive.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    digest: Digest,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = self.leases.held().entry(self.digest)
            && let Held::Leased(count) = held.get_mut()
        {
            *count -= 1;
            if *count == 0 {
                held.remove();
            }
        }
    }
}

/// Keeps everybody else from relying on content while this is alive.
pub(crate) struct Claim {
    leases: Arc<Leases>,
    digest: Digest,
}

impl Claim {
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.leases.held().remove(&self.digest);
        self.leases.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_claim_and_a_lease_exclude_each_other() {
        let leases = Arc::new(Leases::default());
        let (a, b) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
        let first = leases.lease(&a).await;
        let second = leases.lease(&a).await;
        drop(first);
        assert!(leases.claim(&a).is_none(), "one of two still relies on it");
        drop(second);
        let claim = leases.claim(&a).unwrap();
        assert!(leases.claim(&a).is_none(), "claimed once");
        drop(leases.lease(&b).await);
        let waiting = tokio::spawn({
            let leases = Arc::clone(&leases);
            async move { leases.lease(&a).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished(), "waits for the claim");
        drop(claim);
        drop(waiting.await.unwrap());
        assert!(leases.held().is_empty(), "nothing is left over");
    }
}
