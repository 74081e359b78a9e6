//! Content wherever it is: in a file, else in the bucket if there is one.

use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{Blob, BlobBody, ByteRange, Error, FileSlice, Kind, Link, Result};

use crate::files::blocking_io;
use crate::leases::Claim;
use crate::storage::Inner;

impl Inner {
    /// The first of the contents that is missing or not of its size.
    pub(crate) async fn lacking(
        self: &Arc<Self>,
        operation: &'static str,
        contents: Vec<(Digest, u64)>,
    ) -> Result<Option<Digest>> {
        let inner = Arc::clone(self);
        let mut missing = blocking_io(operation, "content", move || {
            let mut missing = Vec::new();
            for (digest, size) in contents {
                if !inner.content.holds(&digest, size)? {
                    missing.push((digest, size));
                    if inner.objects.is_none() {
                        break;
                    }
                }
            }
            Ok(missing)
        })
        .await?
        .into_iter();
        let Some(objects) = &self.objects else { return Ok(missing.next().map(|(digest, _)| digest)) };
        for (digest, size) in missing {
            if objects.size(&digest).await? != Some(size) {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    /// Whether there is a whole file of `digest`.
    pub(crate) async fn has_file(self: &Arc<Self>, digest: &Digest, size: u64) -> Result<bool> {
        let (inner, wanted) = (Arc::clone(self), *digest);
        blocking_io("look for content", digest, move || inner.content.holds(&wanted, size)).await
    }

    /// How many bytes of `digest` there are, if any.
    pub(crate) async fn length(self: &Arc<Self>, digest: &Digest) -> Result<Option<u64>> {
        let (inner, wanted) = (Arc::clone(self), *digest);
        let length = blocking_io("look for content", digest, move || inner.content.length(&wanted)).await?;
        match &self.objects {
            Some(objects) if length.is_none() => objects.size(digest).await,
            _ => Ok(length),
        }
    }

    /// The same of what no row may know, so that the bucket is asked.
    pub(crate) async fn found_length(self: &Arc<Self>, digest: &Digest) -> Result<Option<u64>> {
        match (self.length(digest).await?, &self.objects) {
            (None, Some(objects)) => Ok(objects.bucket.find(digest).await?.map(|found| found.size)),
            (known, _) => Ok(known),
        }
    }

    /// Part of a content of `size` bytes; `None` if it is missing or not of this size.
    pub(crate) async fn read(
        self: &Arc<Self>,
        digest: &Digest,
        size: u64,
        range: ByteRange,
    ) -> Result<Option<(std::ops::Range<u64>, BlobBody)>> {
        let (inner, wanted) = (Arc::clone(self), *digest);
        let file = blocking_io("read blob", digest, move || inner.content.open_file(&wanted, size)).await?;
        if file.is_none() && self.objects.is_none() {
            return Ok(None);
        }
        let range = range.within(size).ok_or_else(|| {
            let detail = format!("byte {} is beyond the end at {size}", range.start);
            Error::new(Kind::Invalid, "read blob", digest, detail)
        })?;
        let body = match (file, &self.objects) {
            (Some(file), _) => Some(BlobBody::File(FileSlice { file: Arc::new(file), range: range.clone() })),
            (None, Some(objects)) => objects.read(digest, size, range.clone()).await?.map(BlobBody::Stream),
            (None, None) => None,
        };
        Ok(body.map(|body| (range, body)))
    }

    /// A content of `size` bytes as a link to the bucket; `None` if clients are not led there, or it is not there.
    pub(crate) async fn link(self: &Arc<Self>, digest: &Digest, size: u64) -> Result<Option<Blob>> {
        let Some(objects) = self.objects.as_ref().filter(|objects| objects.bucket.makes_links()) else {
            return Ok(None);
        };
        if self.has_file(digest, size).await? {
            return Ok(None);
        }
        let Some(url) = objects.link(digest, size).await? else { return Ok(None) };
        Ok(Some(Blob {
            size,
            range: 0..size,
            skipped: 0,
            fetched: false,
            body: BlobBody::Link(Link { url }),
        }))
    }

    /// A whole content in memory; `None` if it is missing or not of this size. For small ones.
    pub(crate) async fn read_all(self: &Arc<Self>, digest: &Digest, size: u64) -> Result<Option<Bytes>> {
        let (inner, wanted) = (Arc::clone(self), *digest);
        let bytes = blocking_io("read manifest", digest, move || {
            let Some(file) = inner.content.open_file(&wanted, size)? else { return Ok(None) };
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut &file, &mut bytes)?;
            Ok(Some(bytes.into()))
        })
        .await?;
        match &self.objects {
            Some(objects) if bytes.is_none() => objects.read_all(digest, size).await,
            _ => Ok(bytes),
        }
    }

    /// Removes contents that the catalog does not name; returns how many there were, and their bytes. The claims go along
    /// to where it is done.
    pub(crate) async fn remove_contents(self: &Arc<Self>, claims: Vec<Claim>) -> Result<(u64, u64)> {
        let inner = Arc::clone(self);
        let removed = blocking_io("remove content", "storage", move || {
            let removed = claims.iter().map(|claim| inner.content.remove(claim.digest()));
            let removed = removed.collect::<std::io::Result<Vec<_>>>()?;
            Ok(claims.into_iter().zip(removed).collect::<Vec<_>>())
        })
        .await?;
        let (mut contents, mut bytes) = (0, 0);
        for (claim, mut length) in removed {
            if let Some(objects) = &self.objects {
                let size = objects.remove(claim.digest()).await?;
                length = length.or(size);
            }
            contents += u64::from(length.is_some());
            bytes += length.unwrap_or_default();
        }
        Ok((contents, bytes))
    }

    /// Takes damaged content out of where it is.
    pub(crate) async fn set_aside(self: &Arc<Self>, digest: &Digest) -> Result<()> {
        let (inner, wanted) = (Arc::clone(self), *digest);
        blocking_io("set aside", digest, move || inner.content.set_aside(&wanted)).await?;
        match &self.objects {
            Some(objects) => objects.set_aside(digest).await,
            None => Ok(()),
        }
    }

    /// When content was placed, as far as is known, in seconds since 1970; `None` if it is gone.
    pub(crate) async fn placed(self: &Arc<Self>, digest: &Digest) -> Result<Option<i64>> {
        let (inner, wanted) = (Arc::clone(self), *digest);
        let modified =
            blocking_io("look for content", digest, move || inner.content.modified(&wanted)).await?;
        let since_1970 = |at: std::time::SystemTime| at.duration_since(std::time::UNIX_EPOCH);
        let seconds = |at| crate::options::to_seconds(since_1970(at).unwrap_or_default());
        match &self.objects {
            Some(objects) if modified.is_none() => objects.since(digest).await,
            _ => Ok(modified.map(seconds)),
        }
    }
}
