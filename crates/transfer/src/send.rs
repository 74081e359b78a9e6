use bytes::Bytes;
use ferry_oci::{Descriptor, Hasher};
use ferry_store::{Error, Kind, Partial, Result, Side, Upload};

use crate::reader::Reader;

/// So many bytes are read from staging at once.
const READ: u64 = 256 * 1024;

/// At most so many bytes, and at least one, wait until the digest is verified: a target never has a whole blob that
/// is wrong.
const HELD_BACK: u64 = 16 * 1024;

fn target(error: Error) -> Error {
    error.on(Side::Target)
}

/// Streams a blob from its source into an upload, through memory alone.
pub(crate) async fn stream(mut reader: Reader, mut upload: Box<dyn Upload>, blob: &Descriptor) -> Result<()> {
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let mut held: Option<Bytes> = None;
    while let Some(bytes) = reader.next().await? {
        hasher.update(&bytes);
        if let Some(before) = held.replace(bytes) {
            upload.write(before).await.map_err(target)?;
        }
    }
    if hasher.finish() != blob.digest {
        // The failure to report is the source's, whatever the target says to the end of its upload.
        let _ = upload.abort().await;
        let detail = "the bytes do not match the digest";
        return Err(Error::new(Kind::DigestMismatch, "read blob", blob.digest, detail).on(Side::Source));
    }
    if let Some(last) = held {
        upload.write(last).await.map_err(target)?;
    }
    upload.commit(&blob.digest).await.map_err(target)
}

/// Sends a blob from staging while it fills.
pub(crate) async fn send(
    partial: &dyn Partial,
    mut upload: Box<dyn Upload>,
    blob: &Descriptor,
) -> Result<()> {
    let mut at = 0;
    while at < blob.size {
        let sealed = partial.is_sealed();
        let there = partial.extents().prefix();
        let ready = if sealed { blob.size } else { there.min(blob.size - HELD_BACK.min(blob.size).max(1)) };
        if at < ready {
            let length = READ.min(ready - at) as usize;
            let bytes = partial.read_at(at, length).await?;
            at += bytes.len() as u64;
            upload.write(bytes).await.map_err(target)?;
            continue;
        }
        partial.changed(there).await;
        if !partial.is_sealed() && partial.extents().prefix() <= there {
            let detail = "its staged bytes were discarded";
            return Err(Error::new(Kind::Unavailable, "read blob", blob.digest, detail));
        }
    }
    // All bytes are out only after the seal, except for an empty blob, which has none to verify.
    upload.commit(&blob.digest).await.map_err(target)
}
