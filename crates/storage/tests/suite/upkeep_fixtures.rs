use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ferry_oci::{Digest, Manifest, Reference};
use ferry_storage::{Storage, StorageOptions};
use ferry_store::{RepositoryMut, Scope, Store};
use tokio_util::sync::CancellationToken;

use crate::fixtures::*;

/// A clock that stands still until it is told to go on.
#[derive(Clone)]
pub struct Time {
    start: SystemTime,
    passed: Arc<AtomicU64>,
}

impl Time {
    pub fn new() -> Self {
        Self { start: SystemTime::now(), passed: Arc::default() }
    }

    pub fn pass(&self, seconds: u64) {
        self.passed.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Seconds since the start.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    pub fn now(&self) -> SystemTime {
        self.start + Duration::from_secs(self.passed())
    }

    pub fn options(&self) -> StorageOptions {
        let time = self.clone();
        StorageOptions { now: Arc::new(move || time.now()), ..StorageOptions::default() }
    }
}

pub const HOUR: u64 = 60 * 60;
pub const DAY: u64 = 24 * HOUR;

pub async fn open_at(directory: &Path, time: &Time) -> Arc<Storage> {
    Storage::open_with(directory, time.options()).await.unwrap()
}

pub fn upstream(storage: &Storage, name: &str) -> Arc<dyn RepositoryMut> {
    let scope = Scope::Upstream { host: "docker.io".to_owned(), account: None };
    storage.writable(&scope, &name.parse().unwrap()).unwrap()
}

pub fn never() -> CancellationToken {
    CancellationToken::new()
}

/// Pushes an image of these blobs.
pub async fn push_image(repo: &dyn RepositoryMut, blobs: &[Bytes], at: Option<&str>) -> Manifest {
    for blob in blobs {
        push_blob(repo, blob).await;
    }
    let image = image(blobs);
    repo.put_manifest(&image, at.map(tag).as_ref()).await.unwrap();
    image
}

pub fn bytes(text: &str, length: usize) -> Bytes {
    Bytes::from(text.as_bytes().iter().copied().cycle().take(length).collect::<Vec<_>>())
}

pub async fn assert_whole(repo: &dyn RepositoryMut, reference: &Reference) {
    let found = repo.manifest(reference).await.unwrap();
    for blob in found.blobs() {
        assert_eq!(Digest::sha256(&read_blob(repo, &blob.digest).await), blob.digest);
    }
}

/// All content files.
pub fn content_files(directory: &Path) -> BTreeSet<Digest> {
    let mut found = BTreeSet::new();
    for fan in std::fs::read_dir(directory.join("blobs/sha256")).unwrap() {
        for file in std::fs::read_dir(fan.unwrap().path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            found.insert(format!("sha256:{name}").parse().unwrap());
        }
    }
    found
}
