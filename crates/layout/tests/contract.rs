//! The suite that every store passes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use ferry_layout::{ArchiveOptions, ImageName, Layout};
use ferry_store::contract::{Capabilities, Subject};

const CAN: Capabilities = Capabilities {
    resumes_uploads: false,
    exclusive_uploads: false,
    mounts: true,
    mounts_anywhere: true,
    deletes: true,
    lists_repositories: false,
    separate_repositories: false,
    rejects_incomplete_manifests: true,
    indexes_referrers: true,
    scopes: false,
    sha512: true,
};

fn subject(layout: Layout, dir: tempfile::TempDir) -> Subject {
    Subject { store: Arc::new(layout), can: CAN, guard: Box::new(dir) }
}

mod directory {
    use super::*;

    async fn fresh() -> Subject {
        let dir = tempfile::tempdir().unwrap();
        subject(Layout::create(dir.path()).unwrap(), dir)
    }

    ferry_store::contract_tests!(fresh);
}

mod named_directory {
    use super::*;

    async fn fresh() -> Subject {
        let dir = tempfile::tempdir().unwrap();
        let image: ferry_oci::ImageReference = "quay.io/team/app".parse().unwrap();
        let layout = Layout::create(dir.path()).unwrap();
        subject(layout.named(Some(&ImageName::from(&image))), dir)
    }

    ferry_store::contract_tests!(fresh);
}

mod archive {
    use super::*;

    async fn fresh() -> Subject {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.tar");
        subject(Layout::create_archive(path, ArchiveOptions::default()).unwrap(), dir)
    }

    ferry_store::contract_tests!(fresh);
}
