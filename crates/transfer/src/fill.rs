use std::sync::Arc;

use bytes::BytesMut;
use ferry_oci::Descriptor;
use ferry_store::{Partial, Repository, Result, Side};

use crate::reader::Reader;
use crate::retry::Retry;

/// So many bytes are written to staging at once: network chunks are small, and each write costs a thread hop.
const BATCH: usize = 256 * 1024;

/// Fetches what `partial` lacks from `source` and compares the whole with its digest.
pub(crate) async fn fill(
    partial: &dyn Partial,
    source: Arc<dyn Repository>,
    blob: &Descriptor,
    retry: Retry,
) -> Result<()> {
    if partial.is_sealed() {
        return Ok(());
    }
    let mut offset = partial.extents().prefix();
    let mut reader = Reader::new(source, blob, offset, retry);
    let mut batch = BytesMut::with_capacity(BATCH);
    loop {
        let next = reader.next().await;
        // What arrived before a failure is kept for the next try.
        let ends = !matches!(next, Ok(Some(_)));
        if let Ok(Some(bytes)) = &next {
            batch.extend_from_slice(bytes);
        }
        if batch.len() >= BATCH || (ends && !batch.is_empty()) {
            let full = batch.split().freeze();
            let length = full.len() as u64;
            partial.write_at(offset, full).await?;
            offset += length;
        }
        if next?.is_none() {
            return partial.seal(&blob.digest).await.map_err(|error| error.on(Side::Source));
        }
    }
}
