//! What is remembered of targets between runs.

use std::time::{Duration, SystemTime};

use ferry_oci::Digest;
use ferry_storage::FileHints;
use ferry_store::{Hints, Holding};

fn holding(repository: &str, digest: &Digest) -> Holding {
    Holding { store: "r.example".into(), repository: repository.parse().unwrap(), digest: *digest }
}

#[tokio::test]
async fn what_was_seen_last_is_remembered_for_some_months() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hints.db");
    let (first, second) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
    let begun = SystemTime::now();
    let day = Duration::from_secs(24 * 60 * 60);
    {
        let hints = FileHints::open(&path, begun).await.unwrap();
        hints.remember(vec![holding("a", &first), holding("b", &second)]).await.unwrap();
        hints.remember(vec![holding("c", &first)]).await.unwrap();
    }
    let hints = FileHints::open(&path, begun + 60 * day).await.unwrap();
    assert_eq!(hints.holder("r.example", &first).await.unwrap(), Some("c".parse().unwrap()));
    assert_eq!(hints.holder("other.example", &first).await.unwrap(), None);
    hints.remember(vec![holding("b", &second)]).await.unwrap();
    let later = FileHints::open(&path, begun + 120 * day).await.unwrap();
    assert_eq!(later.holder("r.example", &first).await.unwrap(), None, "not seen again");
    assert!(later.holder("r.example", &second).await.unwrap().is_some());
    later.forget("r.example", &second).await.unwrap();
    assert_eq!(hints.holder("r.example", &second).await.unwrap(), None, "processes share the file");
    hints.remember(Vec::new()).await.unwrap();
}
