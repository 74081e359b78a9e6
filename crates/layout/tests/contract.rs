//! The suite that every store passes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use ferry_layout::Layout;
use ferry_store::contract::{Capabilities, Subject};

async fn subject() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let can = Capabilities {
        resumes_uploads: false,
        exclusive_uploads: false,
        lists_repositories: false,
        separate_repositories: false,
        scopes: false,
        ..Capabilities::default()
    };
    Subject { store: Arc::new(Layout::create(dir.path()).unwrap()), can, guard: Box::new(dir) }
}

ferry_store::contract_tests!(subject);
