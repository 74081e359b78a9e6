//! The mirror's own storage as a store, and the staging of partial blobs.
//!
//! [`Storage`] is *content* (bytes, in files named by their digest) times a *catalog* (who may see which bytes under
//! which name, in SQLite). A file alone means nothing: it counts once a row of the catalog links it into a repository,
//! and that row is written only after the file is verified, synchronised and in place. So a process that is killed at
//! any point leaves either all of a blob, manifest or tag, or nothing of it, and nothing needs repair at start.
//! Conversely a row whose file is gone or cut short shows nothing: the content is simply pushed again.
//!
//! [`FileStaging`] keeps blobs that are still being fetched; nothing in it counts before it is verified. [`FileHints`]
//! remembers where blobs were seen.

mod catalog;
mod content;
mod files;
mod hints;
mod lock;
mod partial;
mod partial_map;
mod repository;
mod staging;
mod storage;
mod upload;

pub use hints::FileHints;
pub use staging::{FileStaging, StagingOptions};
pub use storage::Storage;
