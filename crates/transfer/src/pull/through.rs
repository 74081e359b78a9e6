//! Bytes that are passed on without being kept.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use ferry_oci::{Descriptor, Hasher};
use ferry_store::{ByteStream, Error, Kind, Result, Side};
use futures_util::stream;

use crate::reader::{Origin, Reader};
use crate::send::HELD_BACK;

/// Up to where bytes of a blob may be shown before it is verified.
pub(super) fn shown_unverified(size: u64) -> u64 {
    size.saturating_sub(HELD_BACK.min(size).max(1))
}

/// Opens a part of a blob. If it goes up to the end, `hashed` is the hash of everything in front of it, and the last bytes come
/// when the whole is verified.
pub(super) async fn through(
    origin: &Origin,
    blob: &Descriptor,
    range: Range<u64>,
    hashed: Option<Hasher>,
) -> Result<ByteStream> {
    let hasher = hashed.filter(|_| range.end == blob.size);
    let shown = if hasher.is_some() { shown_unverified(blob.size) } else { blob.size };
    let mut reader = Reader::new(origin, blob, range.clone());
    reader.begin().await?;
    let begun = Through {
        reader,
        blob: blob.clone(),
        at: range.start,
        shown,
        hasher,
        held: BytesMut::new(),
        whole: false,
    };
    Ok(Box::pin(stream::try_unfold(begun, Through::next)))
}

struct Through {
    reader: Reader,
    blob: Descriptor,
    at: u64,
    /// Where bytes begin that wait for the end.
    shown: u64,
    hasher: Option<Hasher>,
    held: BytesMut,
    whole: bool,
}

impl Through {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        while !self.whole {
            let Some(mut bytes) = self.reader.next().await? else {
                self.verify()?;
                self.whole = true;
                break;
            };
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&bytes);
            }
            let shown = self.shown.saturating_sub(self.at).min(bytes.len() as u64);
            self.at += bytes.len() as u64;
            self.held.extend_from_slice(&bytes.split_off(shown as usize));
            if !bytes.is_empty() {
                return Ok(Some((bytes, self)));
            }
        }
        let held = self.held.split().freeze();
        Ok((!held.is_empty()).then_some((held, self)))
    }

    fn verify(&mut self) -> Result<()> {
        if let Some(hasher) = self.hasher.take()
            && hasher.finish() != self.blob.digest
        {
            let detail = "the bytes do not match the digest";
            let error = Error::new(Kind::DigestMismatch, "read blob", self.blob.digest, detail);
            return Err(error.on(Side::Source));
        }
        Ok(())
    }
}
