use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{Descriptor, Hasher};
use ferry_store::{Error, Kind, Partial, Result, Side, Upload, UploadToken};

use tokio::time::{Instant, timeout};

use crate::progress::Gauge;
use crate::reader::Reader;

/// So many bytes are read from staging at once.
const READ: u64 = 256 * 1024;

/// At most so many bytes, and at least one, wait until the digest is verified: a target never has a whole blob that
/// is wrong.
pub(crate) const HELD_BACK: u64 = 16 * 1024;

/// After so many bytes it is looked whether the upload would now be resumed in another way.
const LOOK: u64 = 4 << 20;

/// An upload that cannot be gone on with begins when no more than so much is missing,
const SOON: u64 = 16 << 20;
/// or when the source will have brought it in so long.
const AT_MOST: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn target(error: Error) -> Error {
    error.on(Side::Target)
}

/// Streams a blob from its source into an upload, through memory alone.
pub(crate) async fn stream(
    mut reader: Reader,
    mut upload: Box<dyn Upload>,
    blob: &Descriptor,
    gauge: &Gauge,
) -> Result<()> {
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let mut held: Option<Bytes> = None;
    while let Some(bytes) = reader.next().await? {
        hasher.update(&bytes);
        gauge.fetched(bytes.len());
        if let Some(before) = held.replace(bytes) {
            let length = before.len();
            upload.write(before).await.map_err(target)?;
            gauge.sent(length);
        }
    }
    if hasher.finish() != blob.digest {
        // The failure to report is the source's, whatever the target says to the end of its upload.
        let _ = upload.abort().await;
        let detail = "the bytes do not match the digest";
        return Err(Error::new(Kind::DigestMismatch, "read blob", blob.digest, detail).on(Side::Source));
    }
    if let Some(last) = held {
        let length = last.len();
        upload.write(last).await.map_err(target)?;
        gauge.sent(length);
    }
    upload.commit(&blob.digest).await.map_err(target)
}

/// How uploads of a staged blob to one target are remembered beside it.
pub(crate) struct Memory<'a> {
    partial: &'a dyn Partial,
    target: String,
    kept: Option<UploadToken>,
}

impl<'a> Memory<'a> {
    /// What an earlier run or attempt left for `target`.
    pub(crate) async fn open(partial: &'a dyn Partial, target: String) -> Self {
        let kept = partial.kept_upload(&target).await;
        let kept = kept.inspect_err(|error| tracing::debug!(%error, "no upload to resume")).ok().flatten();
        Self { partial, target, kept }
    }

    pub(crate) fn kept(&self) -> Option<&UploadToken> {
        self.kept.as_ref()
    }

    /// Remembers how the upload goes on from now on. Failing to is no failure: a later run sends more then.
    pub(crate) async fn keep(&mut self, token: Option<UploadToken>) {
        if token == self.kept {
            return;
        }
        if let Err(error) = self.partial.keep_upload(&self.target, token.as_ref()).await {
            tracing::debug!(%error, "the upload is not remembered");
        }
        self.kept = token;
    }
}

/// Waits until sending would not have to wait for the source for long. An upload that cannot be gone on with is one request,
/// and registries break off those that take too long.
async fn until_worth_beginning(partial: &dyn Partial, blob: &Descriptor) {
    let (begun, had) = (Instant::now(), partial.extents().len());
    while !partial.is_sealed() {
        let there = partial.extents().len();
        let rate = (there - had) as f64 / begun.elapsed().as_secs_f64().max(0.1);
        let left = blob.size - there;
        if left <= SOON || left as f64 <= rate * AT_MOST.as_secs_f64() {
            return;
        }
        if timeout(LOOK_AGAIN, partial.changed(blob.size)).await.is_ok() {
            // It is sealed, or discarded.
            return;
        }
    }
}

/// Sends what an upload lacks of a blob from staging, while it fills; all bytes are out once it is verified.
pub(crate) async fn send(
    partial: &dyn Partial,
    upload: &mut dyn Upload,
    blob: &Descriptor,
    gauge: &Gauge,
    memory: &mut Memory<'_>,
) -> Result<()> {
    if upload.token().is_none() {
        until_worth_beginning(partial, blob).await;
    }
    let mut at = upload.durable_offset().await.map_err(target)?;
    let mut look_at = at;
    gauge.resumes(at);
    while at < blob.size {
        let there = partial.extents().prefix();
        let held_back = if partial.is_sealed() { 0 } else { HELD_BACK.min(blob.size).max(1) };
        let ready = there.min(blob.size - held_back);
        if at < ready {
            if at >= look_at {
                memory.keep(upload.token()).await;
                look_at = at + LOOK;
            }
            let length = READ.min(ready - at) as usize;
            let bytes = partial.read_at(at, length).await?;
            let length = bytes.len();
            at += length as u64;
            upload.write(bytes).await.map_err(target)?;
            gauge.sent(length);
            continue;
        }
        partial.changed(there).await;
        if !partial.is_sealed() && partial.extents().prefix() <= there {
            let detail = "its staged bytes were discarded";
            return Err(Error::new(Kind::Unavailable, "read blob", blob.digest, detail));
        }
    }
    Ok(())
}
