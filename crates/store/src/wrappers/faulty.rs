use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::Name;
use futures_util::{StreamExt, stream};

use super::hook::{self, Hook, Operation};
use crate::{
    Blob, BlobBody, ByteStream, Error, Kind, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut,
    Result, Scope, Store,
};

/// What goes wrong while a blob is read. Positions count from the first byte of the body, not of the blob; a body that
/// is shorter comes whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// After so many bytes the body fails with [`Kind::Unavailable`].
    TruncateAfter(u64),
    /// The byte at this position is wrong.
    CorruptAt(u64),
    /// After so many bytes nothing comes any more, nor does the body end.
    StallAfter(u64),
}

/// Breaks by a script; what the script does not mention is passed on.
///
/// A fault comes instead of the call: the wrapped store does not hear of it. Every fault happens once.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    script: Arc<Script>,
}

impl FaultyStore {
    /// Wraps `inner`; nothing is broken yet.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, script: Arc::default() }
    }

    /// The `nth` call of `operation` from now on fails with `kind`; the next one is the first.
    pub fn fail(&self, operation: Operation, nth: u64, kind: Kind) {
        self.script.calls().push((operation, Countdown { left: nth, fault: CallFault::Fail(kind) }));
    }

    /// The `nth` call of `operation` from now on never returns.
    pub fn stall(&self, operation: Operation, nth: u64) {
        self.script.calls().push((operation, Countdown { left: nth, fault: CallFault::Stall }));
    }

    /// The body of the `nth` blob opened from now on goes wrong. Calls that fail open none.
    pub fn spoil(&self, nth: u64, fault: BodyFault) {
        self.script.bodies().push(Countdown { left: nth, fault });
    }

    /// Whether everything in the script has happened: a test whose faults never struck proves nothing.
    pub fn is_spent(&self) -> bool {
        self.script.calls().is_empty() && self.script.bodies().is_empty()
    }
}

#[derive(Clone, Copy)]
enum CallFault {
    Fail(Kind),
    Stall,
}

/// A fault that strikes when `left` has come down to zero.
struct Countdown<F> {
    left: u64,
    fault: F,
}

impl<F: Copy> Countdown<F> {
    /// Counts one call; the fault if this is the one.
    fn strike(&mut self) -> Option<F> {
        self.left = self.left.saturating_sub(1);
        (self.left == 0).then_some(self.fault)
    }
}

#[derive(Default)]
struct Script {
    calls: Mutex<Vec<(Operation, Countdown<CallFault>)>>,
    bodies: Mutex<Vec<Countdown<BodyFault>>>,
}

impl Script {
    fn calls(&self) -> MutexGuard<'_, Vec<(Operation, Countdown<CallFault>)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bodies(&self) -> MutexGuard<'_, Vec<Countdown<BodyFault>>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault of this call; of several the one that was scripted last.
    fn next_call(&self, operation: Operation) -> Option<CallFault> {
        let mut struck = None;
        self.calls().retain_mut(|(wanted, countdown)| {
            let fault = if *wanted == operation { countdown.strike() } else { None };
            struck = fault.or(struck);
            fault.is_none()
        });
        struck
    }

    fn next_body(&self) -> Option<BodyFault> {
        let mut struck = None;
        self.bodies().retain_mut(|countdown| {
            let fault = countdown.strike();
            struck = fault.or(struck);
            fault.is_none()
        });
        struck
    }
}

#[async_trait]
impl Hook for Script {
    async fn before(&self, operation: Operation) -> Result<()> {
        match self.next_call(operation) {
            None => Ok(()),
            Some(CallFault::Stall) => pending().await,
            Some(CallFault::Fail(kind)) => {
                Err(Error::new(kind, "inject fault into", operation, "scripted by a test"))
            }
        }
    }

    fn opened(&self, blob: Blob) -> Blob {
        let Some(fault) = self.next_body() else { return blob };
        let (size, range, skipped, fetched) = (blob.size, blob.range.clone(), blob.skipped, blob.fetched);
        let spoiled = Spoiled { body: blob.into_stream(), passed: 0, fault };
        Blob {
            size,
            range,
            skipped,
            fetched,
            body: BlobBody::Stream(Box::pin(stream::unfold(spoiled, Spoiled::next))),
        }
    }

    fn written(&self, _bytes: u64) {}
}

/// A body that goes wrong.
struct Spoiled {
    body: ByteStream,
    /// How many bytes were passed on.
    passed: u64,
    fault: BodyFault,
}

impl Spoiled {
    async fn next(mut self) -> Option<(Result<Bytes>, Self)> {
        let wanted = match self.fault {
            BodyFault::CorruptAt(_) => u64::MAX,
            BodyFault::TruncateAfter(after) | BodyFault::StallAfter(after) => after - self.passed,
        };
        if wanted == 0 {
            return self.strike().await;
        }
        let mut bytes = match self.body.next().await? {
            Ok(bytes) => bytes,
            Err(error) => return Some((Err(error), self)),
        };
        bytes.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        if let BodyFault::CorruptAt(at) = self.fault {
            bytes = flip(bytes, at.checked_sub(self.passed));
        }
        self.passed += bytes.len() as u64;
        Some((Ok(bytes), self))
    }

    async fn strike(mut self) -> Option<(Result<Bytes>, Self)> {
        if matches!(self.fault, BodyFault::StallAfter(_)) {
            return pending().await;
        }
        // The error is the last item: nothing is left of the body, and nothing else goes wrong.
        self.body = Box::pin(stream::empty());
        self.fault = BodyFault::CorruptAt(u64::MAX);
        let cut = Error::new(Kind::Unavailable, "read blob", "body", "cut short by a test");
        Some((Err(cut), self))
    }
}

/// Changes the byte at `at`, if it is among these.
fn flip(bytes: Bytes, at: Option<u64>) -> Bytes {
    let Some(at) = at.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < bytes.len()) else {
        return bytes;
    };
    let mut changed = bytes.to_vec();
    changed[at] ^= 1;
    Bytes::from(changed)
}

#[async_trait]
impl Store for FaultyStore {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        hook::repository(self.inner.repository(scope, name), Arc::clone(&self.script) as _)
    }

    fn writable(&self, scope: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        let inner = self.inner.writable(scope, name)?;
        Some(hook::writable(inner, Arc::clone(&self.script) as _))
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.script.before(Operation::Repositories).await?;
        self.inner.repositories(prefix, page).await
    }
}
