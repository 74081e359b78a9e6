//! Everything about the storage that shows from outside.

#![expect(clippy::unwrap_used, clippy::panic, reason = "here a panic is a failed test")]

mod cached;
mod check;
mod concurrency;
mod evict;
mod fixtures;
mod hints;
mod images;
mod peers_s3;
mod races;
mod reopen;
mod staging;
mod torn;
mod upgrade;
mod upkeep;
mod upkeep_fixtures;
mod uploads;

/// The suite that every store must pass.
mod contract {
    use ferry_storage::Storage;
    use ferry_store::contract::{Capabilities, Subject};

    async fn subject() -> Subject {
        let directory = tempfile::tempdir().unwrap();
        let store = Storage::open(directory.path()).await.unwrap();
        Subject { store, can: Capabilities::default(), guard: Box::new(directory) }
    }

    ferry_store::contract_tests!(subject);
}

/// The suite that every cache must pass.
mod cache_contract {
    use ferry_storage::Storage;
    use ferry_store::contract::caches::CacheSubject;

    async fn subject() -> CacheSubject {
        let directory = tempfile::tempdir().unwrap();
        let cache = Storage::open(directory.path()).await.unwrap();
        let staging = cache.staging(None).await.unwrap();
        CacheSubject { cache, staging, guard: Box::new(directory) }
    }

    ferry_store::cache_tests!(subject);
}
