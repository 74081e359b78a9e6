use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::Digest;

use super::Shared;
use crate::{Error, Kind, Result, Upload, UploadToken};

/// Holds an unfinished upload; letting go of it leaves it to be resumed.
pub(super) struct MemoryUpload {
    shared: Shared,
    token: UploadToken,
}

impl MemoryUpload {
    /// An upload that the caller has just taken hold of.
    pub(super) fn new(shared: Shared, token: UploadToken) -> Self {
        Self { shared, token }
    }

    fn with_bytes<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T> {
        let mut state = self.shared.lock();
        state.upload_bytes(&self.token).map(act).ok_or_else(|| Error::not_found("write upload", "upload"))
    }
}

impl Drop for MemoryUpload {
    fn drop(&mut self) {
        self.shared.lock().release_upload(&self.token);
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    fn token(&self) -> Option<UploadToken> {
        Some(self.token.clone())
    }

    async fn durable_offset(&mut self) -> Result<u64> {
        self.with_bytes(|kept| kept.len() as u64)
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.with_bytes(|kept| kept.extend_from_slice(&bytes))
    }

    async fn commit(self: Box<Self>, digest: &Digest) -> Result<()> {
        let ended = self.shared.lock().end_upload(&self.token);
        let (key, bytes) = ended.ok_or_else(|| Error::not_found("commit upload", digest))?;
        let actual = Digest::of(digest.algorithm(), &bytes);
        if actual != *digest {
            let detail = format!("the bytes are {actual}");
            return Err(Error::new(Kind::DigestMismatch, "commit upload", digest, detail));
        }
        self.shared.lock().link(&key, actual, bytes);
        Ok(())
    }

    async fn suspend(self: Box<Self>) -> Result<Option<UploadToken>> {
        Ok(Some(self.token.clone()))
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.shared.lock().end_upload(&self.token);
        Ok(())
    }
}
