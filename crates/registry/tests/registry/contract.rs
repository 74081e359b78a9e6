//! The suite that every store must pass.

mod fake_registry {
    use ferry_registry::Anonymous;
    use ferry_store::contract::{Capabilities, Subject};
    use ferry_testkit::fake::FakeRegistry;

    use crate::support::{client, quick};

    async fn subject() -> Subject {
        let registry = FakeRegistry::start().await.unwrap();
        let store = client(quick(), Anonymous).registry(&registry.host().unwrap()).unwrap();
        // The uploads of the suite are too small to be gone on with, and a remote registry is one scope.
        let can = Capabilities { resumes_uploads: false, scopes: false, ..Capabilities::default() };
        Subject { store, can, guard: Box::new(registry) }
    }

    ferry_store::contract_tests!(subject);
}

/// The same with every upload made so that it can be gone on with.
mod resumable {
    use ferry_registry::{Anonymous, ClientOptions};
    use ferry_store::contract::{Capabilities, Subject};
    use ferry_testkit::fake::FakeRegistry;

    use crate::support::{client, quick};

    async fn subject() -> Subject {
        let registry = FakeRegistry::start().await.unwrap();
        let options = ClientOptions { resumable_from: 0, ..quick() };
        let store = client(options, Anonymous).registry(&registry.host().unwrap()).unwrap();
        // Whose request comes first to the registry is not in our hands.
        let can = Capabilities { exclusive_uploads: false, scopes: false, ..Capabilities::default() };
        Subject { store, can, guard: Box::new(registry) }
    }

    ferry_store::contract_tests!(subject);
}

mod peers {
    use ferry_registry::Anonymous;
    use ferry_store::contract::{Capabilities, Subject};
    use ferry_testkit::peers::DockerRegistry;

    use crate::support::{client, quick};

    async fn subject() -> Subject {
        let registry = DockerRegistry::start().await.unwrap();
        let store = client(quick(), Anonymous).registry(&registry.host()).unwrap();
        let can = Capabilities {
            resumes_uploads: false,
            exclusive_uploads: false,
            mounts_anywhere: false,
            scopes: false,
            sha512: false,
            ..Capabilities::default()
        };
        Subject { store, can, guard: Box::new(registry) }
    }

    /// All cases but six. `docker-registry` 2.8 answers 500 to a blob's digest where a manifest's is asked for, and to a
    /// foreign layer without `urls`; it removes no tags; it knows SHA-512 for blobs, but not for manifests; and while several
    /// clients push the same blob it reads link files half written, so a manifest may be refused as incomplete (`peers.rs` has
    /// the remedy).
    mod all {
        use super::subject;

        ferry_store::contract_tests! { @cases subject;
            blobs {
                empty_blob one_byte_blob large_blob
                blob_ranges blob_range_beyond_the_end absent_blob wrong_digest writer_reads
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
                oci_manifest docker_manifest manifest_without_media_type untagged_manifest
                sha512_manifest moved_tag manifest_pushed_twice incomplete_image incomplete_index
                index_with_children nested_index
            }
            listings {
                tags_in_pages no_tags at_most_no_tags repositories_in_pages
            }
            referrers {
                missing_subject referrers_by_type referrers_in_pages referrers_of_unknown_subject
            }
            deletes {
                deleted_manifest deleted_blob deleted_referrer
            }
        }
    }

    #[tokio::test]
    async fn sha512_blob() {
        let mut subject = subject().await;
        subject.can.sha512 = true;
        ferry_store::contract::blobs::sha512_blob(subject).await;
    }
}
