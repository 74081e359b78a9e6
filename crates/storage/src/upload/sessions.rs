use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ferry_oci::{Algorithm, Hasher};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::files::{entries, remove_if_there};

/// The name of an upload: 128 random bits, since whoever knows it may write to the upload.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(String);

impl UploadId {
    pub(crate) fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Reads what came from the network: 32 lower-case hexadecimal digits, so it is safe in a path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far an upload is, so that resuming it in the same process does not read the file again. Also its lock.
pub(crate) struct Progress {
    pub(super) hasher: Hasher,
    pub(super) length: u64,
}

/// The uploads that this process has touched, and their files.
pub(crate) struct Sessions {
    directory: PathBuf,
    live: Arc<Mutex<Live>>,
}

type Live = HashMap<UploadId, Arc<AsyncMutex<Progress>>>;

impl Sessions {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, live: Arc::default() }
    }

    pub(crate) fn path(&self, id: &UploadId) -> PathBuf {
        self.directory.join(id.as_str())
    }

    /// A file of its own for bytes on the way to their place; one left behind goes the way of uploads without a row.
    pub(crate) async fn temporary(&self) -> Temporary {
        let id = UploadId::random();
        let path = self.path(&id);
        let hold = self.lock(&id, Algorithm::Sha256).await;
        Temporary { path, id, live: Arc::clone(&self.live), _hold: hold }
    }

    /// Waits until nobody else holds the upload. What is not known of it yet will be hashed under `algorithm`.
    pub(super) async fn lock(&self, id: &UploadId, algorithm: Algorithm) -> OwnedMutexGuard<Progress> {
        self.session(id, algorithm).lock_owned().await
    }

    /// Holds the upload unless somebody else does.
    pub(super) fn try_lock(&self, id: &UploadId) -> Option<OwnedMutexGuard<Progress>> {
        self.session(id, Algorithm::Sha256).try_lock_owned().ok()
    }

    fn session(&self, id: &UploadId, algorithm: Algorithm) -> Arc<AsyncMutex<Progress>> {
        let begin = || Arc::new(AsyncMutex::new(Progress { hasher: Hasher::new(algorithm), length: 0 }));
        Arc::clone(self.live().entry(id.clone()).or_insert_with(begin))
    }

    /// The files of uploads, and those on the way to their place. Blocks. Files that no upload can have made are left out.
    pub(crate) fn files(&self) -> io::Result<Vec<(UploadId, Metadata)>> {
        files(&self.directory)
    }

    /// Forgets an upload that has ended.
    pub(super) fn forget(&self, id: &UploadId) {
        self.live().remove(id);
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of ours in the directory of the uploads, and its hold, so that it does not expire.
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
    id: UploadId,
    live: Arc<Mutex<Live>>,
    _hold: OwnedMutexGuard<Progress>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Removes the files of uploads that nobody has written to after `expired` or that are not among those `known` to the
/// catalog, and returns those that stay. Blocks. Files that no upload can have made are left alone.
pub(crate) fn sweep(
    directory: &Path,
    known: &HashSet<String>,
    expired: Option<SystemTime>,
) -> io::Result<HashSet<String>> {
    let mut kept = HashSet::new();
    for (id, metadata) in files(directory)? {
        let fresh = expired.is_none_or(|expired| metadata.modified().is_ok_and(|at| at > expired));
        if fresh && known.contains(id.as_str()) {
            kept.insert(id.0);
        } else {
            remove_if_there(&directory.join(id.as_str()))?;
        }
    }
    Ok(kept)
}

fn files(directory: &Path) -> io::Result<Vec<(UploadId, Metadata)>> {
    let mut files = Vec::new();
    for entry in entries(directory)? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(UploadId::parse) else { continue };
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => files.push((id, metadata)),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            // No file of ours, or it has ended by now.
            _ => {}
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::UploadId;

    #[test]
    fn only_what_we_made_is_an_id() {
        let id = UploadId::random();
        assert!(UploadId::parse(id.as_str()).is_some_and(|parsed| parsed == id));
        let good = "0123456789abcdef0123456789abcdef";
        assert!(UploadId::parse(good).is_some());
        for bad in ["", "..", "../../../../../../../../etc/passwd", &good[1..], &format!("{good}0")] {
            assert!(UploadId::parse(bad).is_none(), "{bad}");
        }
        for bad in ['/', '.', '\0', 'g', 'A', ' ', '%'] {
            assert!(UploadId::parse(&good.replace('7', &bad.to_string())).is_none(), "{bad:?}");
        }
        assert!(UploadId::parse(&"é".repeat(16)).is_none(), "32 bytes that are no digits");
    }
}
