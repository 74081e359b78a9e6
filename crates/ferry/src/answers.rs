//! How upstreams answer, seen from outside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference};
use ferry_serve::Health;
use ferry_store::{
    Blob, BlobBody, ByteRange, Error, Kind, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut,
    Resolved, Result, Scope, Store, TagEntry,
};
use futures_util::StreamExt;

/// How an upstream has answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    last: Mutex<Last>,
    counts: [AtomicU64; 4],
}

#[derive(Debug, Default)]
struct Last {
    answered: bool,
    failing: Option<Instant>,
}

/// What came of what an upstream was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked([u64; 4]);

/// In the order in which they are counted.
const OUTCOMES: [&str; 4] = ["answered", "refused", "limited", "failed"];

impl Asked {
    /// Every outcome, and how often it was.
    pub(crate) fn outcomes(self) -> impl Iterator<Item = (&'static str, u64)> {
        OUTCOMES.into_iter().zip(self.0)
    }
}

impl Answers {
    /// How it answered last.
    pub(crate) fn health(&self) -> Health {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (last.failing, last.answered) {
            (Some(since), _) => Health::Failing { since: since.elapsed() },
            (None, true) => Health::Good,
            (None, false) => Health::Unknown,
        }
    }

    /// What came of all that it was asked.
    pub(crate) fn asked(&self) -> Asked {
        Asked(std::array::from_fn(|outcome| self.counts[outcome].load(Ordering::Relaxed)))
    }

    /// Notes an answer. That there is no such thing, or that it is not shown, is an answer.
    fn note<T>(&self, result: &Result<T>) {
        let outcome = match result.as_ref().map_err(Error::kind) {
            Ok(_) => 0,
            Err(Kind::RateLimited { .. }) => 2,
            Err(kind) if kind.is_transient() => 3,
            Err(_) => 1,
        };
        self.counts[outcome].fetch_add(1, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.answered = true;
        match outcome {
            0 | 1 => last.failing = None,
            _ => drop(last.failing.get_or_insert_with(Instant::now)),
        }
    }

    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        self.note(&result);
        result
    }
}

/// An upstream whose answers are noted. It is only read.
pub(crate) struct Noted {
    store: Arc<dyn Store>,
    answers: Arc<Answers>,
}

impl Noted {
    pub(crate) fn new(store: Arc<dyn Store>, answers: Arc<Answers>) -> Self {
        Self { store, answers }
    }
}

#[async_trait]
impl Store for Noted {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        let repository = self.store.repository(scope, name);
        Arc::new(NotedRepository { repository, answers: Arc::clone(&self.answers) })
    }

    fn writable(&self, _: &Scope, _: &Name) -> Option<Arc<dyn RepositoryMut>> {
        None
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.answers.noted(self.store.repositories(prefix, page).await)
    }
}

struct NotedRepository {
    repository: Arc<dyn Repository>,
    answers: Arc<Answers>,
}

#[async_trait]
impl Repository for NotedRepository {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.answers.noted(self.repository.resolve(reference).await)
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.answers.noted(self.repository.manifest(reference).await)
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.answers.noted(self.repository.stat(digest).await)
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let mut blob = self.answers.noted(self.repository.blob(digest, range).await)?;
        if let BlobBody::Stream(stream) = blob.body {
            let answers = Arc::clone(&self.answers);
            let noted = stream.inspect(move |next| {
                if next.is_err() {
                    answers.note(next);
                }
            });
            blob.body = BlobBody::Stream(Box::pin(noted));
        }
        Ok(blob)
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        self.answers.noted(self.repository.tags(page).await)
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        self.answers.noted(self.repository.referrers(subject, artifact_type, page).await)
    }
}

#[cfg(test)]
mod tests {
    use ferry_store::{FaultyStore, MemoryStore, Operation};

    use super::*;

    #[tokio::test]
    async fn what_an_upstream_refuses_is_an_answer_and_silence_is_none() {
        let faulty = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let answers = Arc::<Answers>::default();
        let noted = Noted::new(faulty.clone(), Arc::clone(&answers));
        let name: Name = "a/b".parse().unwrap();
        assert!(noted.writable(&Scope::Hosted, &name).is_none());
        let repository = noted.repository(&Scope::Hosted, &name);
        let ask = async || drop(repository.resolve(&"v1".parse().unwrap()).await);
        assert_eq!(answers.health(), Health::Unknown);
        ask().await;
        assert_eq!(answers.health(), Health::Good, "it says that there is no such tag");
        faulty.fail(Operation::Resolve, 1, Kind::Unavailable);
        ask().await;
        let Health::Failing { since } = answers.health() else { panic!("it fails") };
        faulty.fail(Operation::Resolve, 1, Kind::RateLimited { after: None });
        ask().await;
        assert!(matches!(answers.health(), Health::Failing { since: later } if later >= since));
        assert_eq!(answers.asked(), Asked([0, 1, 1, 1]));
        ask().await;
        assert_eq!(answers.health(), Health::Good);
    }
}
