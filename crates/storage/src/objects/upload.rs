use std::collections::HashSet;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{Digest, Hasher};
use ferry_store::{Error, Kind, Result};
use futures_util::stream::{FuturesUnordered, StreamExt};
use object_store::MultipartUpload;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Objects;
use super::bucket::Bucket;
use super::failure::failure;
use super::owner::RENEW;
use crate::files::blocking_io;
use crate::storage::Inner;

/// Files that are uploaded at once.
const FILES: usize = 4;

/// The size of a part, unless there would be more of them than a store takes. What is smaller goes in one request.
const PART: u64 = 8 << 20;

/// The parts that a store takes: 10,000, <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const MOST_PARTS: u64 = 9_000;

/// The longest wait after a failure.
const LONGEST: Duration = Duration::from_secs(60);

/// Brings what is pending to the bucket, and confirms that it is ours.
pub(crate) struct Uploader {
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    objects: Arc<Objects>,
}

impl Uploader {
    pub(crate) fn start(inner: &Arc<Inner>, objects: &Arc<Objects>, retry_after: Duration) -> Self {
        let stop = CancellationToken::new();
        let (keeping, uploading) = (stop.clone(), stop.clone());
        // Whoever works holds the storage; whoever waits does not, so that it can be closed.
        let (inner, kept) = (Arc::downgrade(inner), Arc::clone(objects));
        let tasks = vec![
            tokio::spawn(async move { keeping.run_until_cancelled(keep(kept)).await.unwrap_or_default() }),
            tokio::spawn(async move {
                uploading.run_until_cancelled(upload_all(inner, retry_after)).await.unwrap_or_default();
            }),
        ];
        Self { stop, tasks: Mutex::new(tasks), objects: Arc::clone(objects) }
    }

    /// Ends what is under way, and says that the bucket is not in use any more.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
        if let Err(error) = self.objects.owner.release().await {
            tracing::warn!(%error, "others have to wait a minute for the bucket");
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Confirms again and again that the bucket is ours.
async fn keep(objects: Arc<Objects>) {
    loop {
        let kept = match objects.take().await {
            Ok(()) => objects.list_once().await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "nothing is brought to the bucket");
        }
        tokio::time::sleep(RENEW).await;
    }
}

async fn upload_all(inner: Weak<Inner>, retry_after: Duration) {
    let mut under_way = FuturesUnordered::new();
    let mut busy = HashSet::new();
    let mut failures = 0;
    loop {
        let Some(pending) = inner.upgrade().and_then(|inner| inner.content.pending().cloned()) else {
            return;
        };
        while under_way.len() < FILES
            && let Some(digest) = pending.next(|digest| busy.contains(digest))
        {
            busy.insert(digest);
            let pause = LONGEST.min(retry_after * 2_u32.saturating_pow(failures));
            under_way.push(upload_or_pause(inner.clone(), digest, pause));
        }
        tokio::select! {
            Some((digest, done)) = under_way.next() => {
                failures = if done { 0 } else { (failures + 1).min(10) };
                busy.remove(&digest);
            }
            () = pending.added() => {}
        }
    }
}

/// Brings one file to the bucket; false if that failed, and then after a pause in which others may go on.
async fn upload_or_pause(inner: Weak<Inner>, digest: Digest, pause: Duration) -> (Digest, bool) {
    let done = upload(inner, &digest).await;
    if let Err(error) = &done {
        tracing::warn!(%error, "content stays here until the bucket takes it");
        tokio::time::sleep(pause).await;
    }
    (digest, done.is_ok())
}

/// Brings one file to the bucket.
async fn upload(inner: Weak<Inner>, digest: &Digest) -> Result<()> {
    let Some(inner) = inner.upgrade() else { return Ok(()) };
    let (Some(objects), Some(pending)) = (&inner.objects, inner.content.pending()) else { return Ok(()) };
    // Nobody removes it meanwhile.
    let _lease = inner.lease(digest).await;
    objects.owner.check()?;
    let (content, wanted) = (Arc::clone(&inner), *digest);
    let file = blocking_io("upload", digest, move || content.content.open_any(&wanted)).await?;
    let Some((file, size)) = file else {
        pending.remove(digest);
        return Ok(());
    };
    let held = |found: Option<super::Found>| found.is_some_and(|found| found.size == size);
    // A process that was killed may have brought it.
    if !held(objects.bucket.find(digest).await?) {
        match send(&objects.bucket, digest, Arc::new(file), size).await {
            Err(error) if error.kind() == Kind::DigestMismatch => {
                // It stays for a check to find, and does not keep others from the bucket.
                tracing::error!(%error, "content is damaged; ferry storage check --repair takes it out");
                pending.remove(digest);
                return Ok(());
            }
            sent => sent?,
        }
        if !held(objects.bucket.find(digest).await?) {
            let detail = "it was uploaded and is not there";
            return Err(Error::new(Kind::Unavailable, "upload", digest, detail));
        }
    }
    objects.add(&[(*digest, size)]).await?;
    // Should it be placed again before it is removed, it is looked for once more, in vain.
    pending.remove(digest);
    let (content, wanted) = (Arc::clone(&inner), *digest);
    blocking_io("upload", digest, move || content.content.remove(&wanted).map(drop)).await
}

/// Uploads a file, in parts if it is large; what was sent of one that fails is given up.
async fn send(bucket: &Bucket, digest: &Digest, file: Arc<File>, size: u64) -> Result<()> {
    if size <= PART {
        let _memory = bucket.memory(digest).await?;
        let bytes = read(digest, file, 0, size).await?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        compare(hasher, digest)?;
        return bucket.put(digest, bytes).await;
    }
    let mut parts = bucket.put_parts(digest).await?;
    let sent = send_parts(bucket, &mut *parts, (digest, &file, size)).await;
    let failed = match sent {
        Ok(()) => match parts.complete().await {
            Ok(_) => return Ok(()),
            Err(e) => failure("upload", digest, e),
        },
        Err(e) => e,
    };
    if let Err(error) = parts.abort().await {
        tracing::debug!(%error, %digest, "parts of an upload stay in the bucket");
    }
    Err(failed)
}

async fn send_parts(
    bucket: &Bucket,
    upload: &mut dyn MultipartUpload,
    (digest, file, size): (&Digest, &Arc<File>, u64),
) -> Result<()> {
    let part = PART.max(size.div_ceil(MOST_PARTS));
    let mut under_way = FuturesUnordered::new();
    let mut at = 0;
    let mut hasher = Hasher::new(digest.algorithm());
    while at < size || !under_way.is_empty() {
        let memory = match at < size {
            // Whoever waits for others must not have any on its way: they would not move.
            true if under_way.is_empty() => Some(bucket.memory(digest).await?),
            true => bucket.try_memory(),
            false => None,
        };
        if let Some(memory) = memory {
            let length = part.min(size - at);
            let bytes = read(digest, Arc::clone(file), at, length).await?;
            hasher.update(&bytes);
            let part = upload.put_part(bytes.into());
            under_way.push(async move {
                let _memory = memory;
                part.await
            });
            at += length;
        } else if let Some(sent) = under_way.next().await {
            sent.map_err(|e| failure("upload", digest, e))?;
        }
    }
    compare(hasher, digest)
}

/// It was verified when it was placed, but disks forget, and what is in the bucket is believed.
fn compare(hasher: Hasher, digest: &Digest) -> Result<()> {
    let actual = hasher.finish();
    if actual == *digest {
        return Ok(());
    }
    Err(Error::new(
        Kind::DigestMismatch,
        "upload",
        digest,
        format!("the file is damaged: its bytes are {actual}"),
    ))
}

async fn read(digest: &Digest, file: Arc<File>, at: u64, length: u64) -> Result<Bytes> {
    blocking_io("upload", digest, move || {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, at)?;
        Ok(bytes.into())
    })
    .await
}
