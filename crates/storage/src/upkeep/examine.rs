//! Whether the file of a content is what it should be.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use ferry_oci::{Digest, Hasher};
use tokio_util::sync::CancellationToken;

use crate::content::Content;
use crate::files::hash_range;

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

/// The file that was looked at; another one may be in its place later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity(Option<(u64, u64, u64, Option<SystemTime>)>);

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self(Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok())))
    }

    /// The file that is there now. Blocks.
    pub(super) fn now(content: &Content, digest: &Digest) -> Self {
        std::fs::metadata(content.path(digest)).map_or(Self(None), |metadata| Self::of(&metadata))
    }
}

/// What is wrong with the file of `digest`, if anything, and which file that was; `None` as well if stopped. Blocks.
pub(super) fn examine(
    content: &Content,
    (digest, size): (&Digest, u64),
    depth: Depth,
    stop: &CancellationToken,
) -> Option<(Problem, Identity)> {
    let file = match File::open(content.path(digest)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Some((Problem::Missing, Identity(None))),
        Err(e) => return Some((Problem::Unreadable(e.to_string()), Identity(None))),
    };
    let unreadable = |e: io::Error| Some((Problem::Unreadable(e.to_string()), Identity(None)));
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
