//! What is remembered of targets between runs.

use std::time::{Duration, SystemTime};

use ferry_oci::Digest;
use ferry_storage::FileHints;
use ferry_store::{Hints, Holding, Rewritten};

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

fn rewritten(from: &Digest, how: &str, to: &Digest) -> Rewritten {
    Rewritten { from: *from, how: how.into(), to: *to }
}

#[tokio::test]
async fn what_manifests_became_is_remembered_by_the_way_they_were_rewritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hints.db");
    let [old, other, first, second] = [&b"old"[..], b"other", b"first", b"second"].map(Digest::sha256);
    let begun = SystemTime::now();
    let day = Duration::from_secs(24 * 60 * 60);
    {
        let hints = FileHints::open(&path, begun).await.unwrap();
        assert_eq!(hints.rewritten(&old, "a").await.unwrap(), None);
        hints
            .remember_rewritten(vec![rewritten(&old, "a", &first), rewritten(&other, "a", &first)])
            .await
            .unwrap();
        hints
            .remember_rewritten(vec![rewritten(&old, "a", &second), rewritten(&old, "b", &first)])
            .await
            .unwrap();
        hints.remember_rewritten(Vec::new()).await.unwrap();
    }
    let hints = FileHints::open(&path, begun + 60 * day).await.unwrap();
    assert_eq!(hints.rewritten(&old, "a").await.unwrap(), Some(second), "the last counts");
    assert_eq!(hints.rewritten(&old, "b").await.unwrap(), Some(first));
    assert_eq!(hints.rewritten(&old, "c").await.unwrap(), None);
    hints.remember_rewritten(vec![rewritten(&old, "a", &second)]).await.unwrap();
    let later = FileHints::open(&path, begun + 120 * day).await.unwrap();
    assert_eq!(later.rewritten(&old, "a").await.unwrap(), Some(second), "seen again");
    assert_eq!(later.rewritten(&old, "b").await.unwrap(), None);
    assert_eq!(later.rewritten(&other, "a").await.unwrap(), None);
}

/// A file of a version that had one table only.
#[tokio::test]
async fn an_older_file_gets_the_new_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hints.db");
    let digest = Digest::sha256(b"1");
    let now = SystemTime::now();
    {
        let hints = FileHints::open(&path, now).await.unwrap();
        hints.remember(vec![holding("a", &digest)]).await.unwrap();
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("DROP TABLE rewritten").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let hints = FileHints::open(&path, now).await.unwrap();
    assert!(hints.holder("r.example", &digest).await.unwrap().is_some());
    hints.remember_rewritten(vec![rewritten(&digest, "a", &digest)]).await.unwrap();
    assert_eq!(hints.rewritten(&digest, "a").await.unwrap(), Some(digest));
}
