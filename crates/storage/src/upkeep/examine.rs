//! Whether a content is what it should be, in its file or in the bucket.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::SystemTime;

use ferry_oci::{Digest, Hasher};
use ferry_store::Result;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::content::Content;
use crate::files::{blocking, hash_range};
use crate::objects::{Found, Objects};
use crate::storage::Inner;

/// Bytes that are hashed before looking whether to stop.
const PIECE: u64 = 16 * 1024 * 1024;

/// How closely a check looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// That every file is there and has its size; reads no content.
    Sizes,
    /// That every file hashes to its digest, too; reads everything.
    Digests,
}

/// What is wrong with the file of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// There is none.
    Missing,
    /// It has so many bytes, which are too few or too many.
    Size(u64),
    /// Its bytes have this digest.
    Digest(Digest),
    /// The system cannot read it now, for this reason. Nothing is concluded from that, and nothing repaired.
    Unreadable(String),
}

/// What was looked at; something else may be in its place later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// There was nothing.
    Nothing,
    /// A file: its device, number, length and time.
    File(u64, u64, u64, Option<SystemTime>),
    /// An object.
    Object(Found),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self::File(metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok())
    }
}

impl Inner {
    /// What is there now.
    pub(super) async fn identity(self: &Arc<Self>, digest: &Digest) -> Result<Identity> {
        let (inner, wanted) = (Arc::clone(self), *digest);
        let file = blocking("check", move || {
            let metadata = std::fs::metadata(inner.content.path(&wanted));
            Ok(metadata.map_or(Identity::Nothing, |metadata| Identity::of(&metadata)))
        })
        .await?;
        match &self.objects {
            Some(objects) if file == Identity::Nothing => {
                Ok(objects.bucket.find(digest).await?.map_or(Identity::Nothing, Identity::Object))
            }
            _ => Ok(file),
        }
    }

    /// What is wrong with the content of `digest`, if anything, and what that was; `None` as well if stopped.
    pub(super) async fn examine(
        self: &Arc<Self>,
        (digest, size): (Digest, u64),
        depth: Depth,
        stop: &CancellationToken,
    ) -> Result<Option<(Problem, Identity)>> {
        let (inner, stopped) = (Arc::clone(self), stop.clone());
        let file =
            blocking("check", move || Ok(examine(&inner.content, (&digest, size), depth, &stopped))).await?;
        match (&self.objects, file) {
            (Some(objects), Some((Problem::Missing, _))) => {
                Ok(examine_object(objects, (&digest, size), depth, stop).await)
            }
            (_, file) => Ok(file),
        }
    }
}

async fn examine_object(
    objects: &Objects,
    (digest, size): (&Digest, u64),
    depth: Depth,
    stop: &CancellationToken,
) -> Option<(Problem, Identity)> {
    let found = match objects.bucket.find(digest).await {
        Ok(Some(found)) => found,
        Ok(None) => return Some((Problem::Missing, Identity::Nothing)),
        Err(e) => return Some((Problem::Unreadable(e.to_string()), Identity::Nothing)),
    };
    let problem = if found.size != size {
        Some(Problem::Size(found.size))
    } else if depth == Depth::Sizes {
        None
    } else {
        match hash_object(objects, (digest, size), stop).await {
            Ok(actual) => actual.filter(|actual| actual != digest).map(Problem::Digest),
            Err(e) => Some(Problem::Unreadable(e.to_string())),
        }
    };
    problem.map(|problem| (problem, Identity::Object(found)))
}

/// The digest of the bytes of an object; `None` if it is gone, which the next look finds, or if stopped.
async fn hash_object(
    objects: &Objects,
    (digest, size): (&Digest, u64),
    stop: &CancellationToken,
) -> Result<Option<Digest>> {
    let Some(mut stream) = objects.read(digest, size, 0..size).await? else { return Ok(None) };
    let mut hasher = Hasher::new(digest.algorithm());
    while let Some(bytes) = stream.next().await {
        if stop.is_cancelled() {
            return Ok(None);
        }
        hasher.update(&bytes?);
    }
    Ok(Some(hasher.finish()))
}

/// What is wrong with the file of `digest`, if anything, and which file that was; `None` as well if stopped. Blocks.
fn examine(
    content: &Content,
    (digest, size): (&Digest, u64),
    depth: Depth,
    stop: &CancellationToken,
) -> Option<(Problem, Identity)> {
    let file = match File::open(content.path(digest)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Some((Problem::Missing, Identity::Nothing)),
        Err(e) => return Some((Problem::Unreadable(e.to_string()), Identity::Nothing)),
    };
    let unreadable = |e: io::Error| Some((Problem::Unreadable(e.to_string()), Identity::Nothing));
    let identity = match file.metadata() {
        Ok(metadata) if metadata.len() == size => Identity::of(&metadata),
        Ok(metadata) => return Some((Problem::Size(metadata.len()), Identity::of(&metadata))),
        Err(e) => return unreadable(e),
    };
    match depth {
        Depth::Sizes => None,
        Depth::Digests => match hash(&file, size, digest, stop) {
            Ok(found) => {
                found.filter(|found| found != digest).map(|found| (Problem::Digest(found), identity))
            }
            Err(e) => unreadable(e),
        },
    }
}

fn hash(file: &File, size: u64, digest: &Digest, stop: &CancellationToken) -> io::Result<Option<Digest>> {
    let (mut hasher, mut at) = (Hasher::new(digest.algorithm()), 0);
    while at < size {
        if stop.is_cancelled() {
            return Ok(None);
        }
        let end = size.min(at + PIECE);
        hash_range(file, at..end, &mut hasher)?;
        at = end;
    }
    Ok(Some(hasher.finish()))
}
