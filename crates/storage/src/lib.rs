//! The mirror's own storage as a store, and the staging of partial blobs.
//!
//! [`Storage`] is *content* (bytes, in files named by their digest) times a *catalog* (who may see which bytes under
//! which name, in SQLite). A file alone means nothing: it counts once a row of the catalog links it into a repository,
//! and that row is written only after the file is verified, synchronised and in place. So a process that is killed at
//! any point leaves either all of a blob, manifest or tag, or nothing of it, and nothing needs repair at start.
//! Conversely a row whose file is gone or cut short shows nothing: the content is simply pushed again.
//!
//! Content can be kept in a bucket instead ([`S3Options`]). It is placed in files all the same, and goes on from there to the
//! bucket in its own time; what is written above holds at every moment.
//!
//! Upkeep ([`Storage::upkeep`] and what it is made of) removes what nothing needs, while everything else goes on; what is
//! about to be relied on is leased, what is about to go is claimed, and never both at once.
//!
//! [`FileStaging`] keeps blobs that are still being fetched; nothing in it counts before it is verified. [`FileHints`]
//! remembers where blobs were seen.

mod cached;
mod catalog;
mod content;
mod contents;
mod files;
mod hints;
mod images;
mod leases;
mod lock;
mod objects;
mod options;
mod partial;
mod partial_map;
mod repository;
mod room;
mod staging;
mod storage;
mod upkeep;
mod upload;
mod uses;

pub use hints::FileHints;
pub use images::{Dropped, Image, ImagePlace};
pub use objects::{LinkOptions, S3Options, Style};
pub use options::StorageOptions;
pub use staging::{FileStaging, StagingOptions};
pub use storage::Storage;
pub use upkeep::{
    CheckEvent, CheckOptions, Checked, CollectOptions, Collected, Depth, Evicted, Finding, Problem,
    Statistics,
};
pub use upload::Expired;
