//! A line to a store: it counts the bytes of blobs, lets only so many pass, and breaks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference};
use ferry_store::{
    Blob, BlobBody, ByteRange, Error, Kind, Page, PageRequest, Repository, RepositoryEntry, RepositoryMut,
    Resolved, Result, Scope, Store, TagEntry,
};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

/// So many bytes come at once.
const PIECE: usize = 16 * 1024;

pub struct Line {
    inner: Arc<dyn Store>,
    state: Arc<State>,
}

struct State {
    bytes: AtomicU64,
    /// Bytes that may pass in all.
    open: watch::Sender<u64>,
    /// The line breaks after so many bytes, so many times.
    cuts: Mutex<(u64, u64)>,
}

impl Line {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let state =
            State { bytes: AtomicU64::new(0), open: watch::Sender::new(u64::MAX), cuts: Mutex::default() };
        Self { inner, state: Arc::new(state) }
    }

    /// Bytes of blobs that came.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }

    /// From now on so many bytes pass, counted from the beginning.
    pub fn open_to(&self, bytes: u64) {
        self.state.open.send_replace(bytes);
    }

    /// Each body breaks after `after` bytes, `times` times in all.
    pub fn cut(&self, after: u64, times: u64) {
        *self.state.cuts.lock().unwrap() = (after, times);
    }

    pub fn cuts_left(&self) -> u64 {
        self.state.cuts.lock().unwrap().1
    }
}

#[async_trait]
impl Store for Line {
    fn repository(&self, scope: &Scope, name: &Name) -> Arc<dyn Repository> {
        Arc::new(Far { inner: self.inner.repository(scope, name), state: Arc::clone(&self.state) })
    }

    fn writable(&self, scope: &Scope, name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        self.inner.writable(scope, name)
    }

    async fn repositories(&self, prefix: &str, page: PageRequest) -> Result<Page<RepositoryEntry>> {
        self.inner.repositories(prefix, page).await
    }
}

struct Far {
    inner: Arc<dyn Repository>,
    state: Arc<State>,
}

#[async_trait]
impl Repository for Far {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.inner.resolve(reference).await
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        // Whoever asks at the same time is to have the time to.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        self.inner.manifest(reference).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.inner.stat(digest).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        let blob = self.inner.blob(digest, range).await?;
        let (size, range, skipped) = (blob.size, blob.range.clone(), blob.skipped);
        let pieces = blob.into_stream().flat_map(|next| match next {
            Ok(bytes) => stream::iter(split(bytes).into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        });
        let state = Arc::clone(&self.state);
        let sent = stream::unfold((Box::pin(pieces), state, 0), |(mut pieces, state, mut sent)| async move {
            {
                let mut cuts = state.cuts.lock().unwrap();
                if cuts.1 > 0 && sent >= cuts.0 {
                    cuts.1 -= 1;
                    let cut = Error::new(Kind::Unavailable, "read blob", "line", "cut by a test");
                    drop(cuts);
                    return Some((Err(cut), (pieces, state, 0)));
                }
            }
            let next = pieces.next().await?;
            if let Ok(bytes) = &next {
                let mut open = state.open.subscribe();
                open.wait_for(|open| state.bytes.load(Ordering::SeqCst) < *open).await.unwrap();
                state.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                sent += bytes.len() as u64;
            }
            Some((next, (pieces, state, sent)))
        });
        Ok(Blob { size, range, skipped, fetched: false, body: BlobBody::Stream(Box::pin(sent)) })
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        self.inner.tags(page).await
    }

    async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<Descriptor>> {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        self.inner.referrers(subject, artifact_type, page).await
    }
}

fn split(mut bytes: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        pieces.push(bytes.split_to(bytes.len().min(PIECE)));
    }
    pieces
}
