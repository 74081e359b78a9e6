//! The suite that every store must pass, one test per case.
//!
//! A backend instantiates it in a few lines, in a module of its tests:
//!
//! ```ignore
//! mod memory {
//!     async fn subject() -> Subject {
//!         Subject { store: Arc::new(MemoryStore::new()), can: Capabilities::default(), guard: Box::new(()) }
//!     }
//!     ferry_store::contract_tests!(subject);
//! }
//! ```
//!
//! What a backend cannot do it says in [`Capabilities`]: a case for something that is missing is not skipped but
//! asserts what the traits promise instead. Every case uses repositories of its own, named after it, and content that
//! no other case uses.

pub mod blobs;
pub mod caches;
pub mod deletes;
mod fixtures;
pub mod listings;
pub mod manifests;
pub mod mounts;
pub mod referrers;
pub mod uploads;

use std::any::Any;
use std::sync::Arc;

use crate::Store;

/// A store under test.
pub struct Subject {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What it can do.
    pub can: Capabilities,
    /// What must live as long as the store: a temporary directory, a server; `Box::new(())` if there is nothing.
    pub guard: Box<dyn Any + Send>,
}

/// What a store can do; by default everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Suspended and dropped uploads can be resumed. Otherwise there are no tokens.
    pub resumes_uploads: bool,
    /// A second writer of one upload is kept out. Otherwise what two writers do is undefined.
    pub exclusive_uploads: bool,
    /// A blob is taken from another repository that the caller names, and not wanted again if it is here already.
    /// Otherwise an upload is opened unless the blob is here.
    pub mounts: bool,
    /// A blob is taken from any repository of the scope. Otherwise an upload is opened.
    pub mounts_anywhere: bool,
    /// Tags, manifests and blobs can be removed. Otherwise that is `Removed::Unsupported`.
    pub deletes: bool,
    /// Repositories can be listed. Otherwise that is `Kind::Denied` or `Kind::NotFound`.
    pub lists_repositories: bool,
    /// Each repository has content of its own. Otherwise every name is the same repository.
    pub separate_repositories: bool,
    /// A manifest is refused if the repository lacks what it names. Otherwise it is stored.
    pub rejects_incomplete_manifests: bool,
    /// Manifests with a subject are listed as its referrers. Otherwise no referrer is ever listed.
    pub indexes_referrers: bool,
    /// Each scope has content of its own. Otherwise every scope sees the same.
    pub scopes: bool,
    /// Content can be named by SHA-512. Otherwise committing under such a digest is an error that is not transient.
    pub sha512: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            resumes_uploads: true,
            exclusive_uploads: true,
            mounts: true,
            mounts_anywhere: true,
            deletes: true,
            lists_repositories: true,
            separate_repositories: true,
            rejects_incomplete_manifests: true,
            indexes_referrers: true,
            scopes: true,
            sha512: true,
        }
    }
}

/// Makes one `#[tokio::test]` of every case of the suite. The argument is an async function or closure without
/// parameters that makes a [`Subject`](crate::contract::Subject); it runs once per case. The calling crate must
/// depend on `tokio` with its macros and its multi-threaded runtime.
#[macro_export]
macro_rules! contract_tests {
    ($subject:expr) => {
        $crate::contract_tests! { @cases $subject;
            blobs {
                empty_blob one_byte_blob large_blob
                blob_ranges blob_range_beyond_the_end absent_blob wrong_digest sha512_blob writer_reads
            }
            uploads {
                digest_known_only_at_commit suspended_upload dropped_upload unknown_token foreign_token
                finished_upload aborted_upload two_uploads_of_one_blob one_writer_per_upload
            }
            mounts {
                no_mount existing_blob mount_from_another mount_of_absent_blob mount_from_anywhere
                mount_without_digest repositories_are_isolated scopes_are_isolated
            }
            manifests {
                oci_manifest docker_manifest manifest_without_media_type untagged_manifest absent_manifest
                sha512_manifest moved_tag manifest_pushed_twice incomplete_image incomplete_index foreign_layer
                index_with_children nested_index images_pushed_at_once
            }
            listings {
                tags_in_pages no_tags at_most_no_tags repositories_in_pages
            }
            referrers {
                missing_subject referrers_by_type referrers_in_pages referrers_of_unknown_subject
            }
            deletes {
                deleted_tag deleted_manifest deleted_blob deleted_referrer nothing_to_delete
            }
        }
    };
    (@cases $subject:expr; $($module:ident { $($case:ident)* })*) => {$($(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            let subject = $subject;
            $crate::contract::$module::$case(subject().await).await;
        }
    )*)*};
}

/// Makes one `#[tokio::test]` of every case that a [`Cache`](crate::Cache) must pass, as [`contract_tests!`] does for
/// stores; the argument makes a [`CacheSubject`](crate::contract::caches::CacheSubject).
#[macro_export]
macro_rules! cache_tests {
    ($subject:expr) => {
        $crate::contract_tests! { @cases $subject;
            caches {
                kept_manifest confirmed_tag withdrawn_tag kept_listing adopted_blob unsealed_blob linked_content
                scopes_of_tags
            }
        }
    };
}

#[cfg(test)]
mod tests;
