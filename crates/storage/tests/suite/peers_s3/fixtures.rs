use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_storage::{S3Options, Storage, StorageOptions, Style};
use ferry_testkit::link::{Link, LinkOptions};
use ferry_testkit::peers::{BUCKET, KEY, S3Server, SECRET};
use tempfile::TempDir;

use crate::upkeep_fixtures::{Time, content_files};

/// An S3 server behind a link, and a storage directory.
pub struct S3 {
    pub server: S3Server,
    pub link: Link,
    directory: TempDir,
}

impl S3 {
    pub async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = S3Server::start().await.unwrap();
        let link = Link::start(server.addr(), LinkOptions::default()).await.unwrap();
        Self { server, link, directory: tempfile::tempdir().unwrap() }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn bucket(&self) -> S3Options {
        S3Options {
            endpoint: Some(format!("http://{}", self.link.addr())),
            prefix: "p/q".to_owned(),
            style: Style::Path,
            retry_after: Duration::from_millis(20),
            ..S3Options::new(BUCKET, KEY, SECRET)
        }
    }

    pub fn options(&self, time: &Time) -> StorageOptions {
        StorageOptions { bucket: Some(self.bucket()), ..time.options() }
    }

    pub async fn open(&self) -> Arc<Storage> {
        self.open_at(&Time::new()).await
    }

    pub async fn open_at(&self, time: &Time) -> Arc<Storage> {
        Storage::open_with(self.directory(), self.options(time)).await.unwrap()
    }

    /// What is in files.
    pub fn files(&self) -> BTreeSet<Digest> {
        content_files(self.directory())
    }

    /// The object of `digest`, as a file of the server.
    pub fn object(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.server.bucket().join("p/q/blobs/sha256").join(&hex[..2]).join(hex)
    }
}

/// Waits until everything is in the bucket.
pub async fn uploaded(storage: &Storage) {
    while storage.statistics().await.unwrap().pending > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The last file goes a moment after it is not pending any more.
    tokio::time::sleep(Duration::from_millis(20)).await;
}
