//! What a later process finds.

use std::fs;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_storage::Storage;
use ferry_store::{Kind, Mount, PageRequest, RepositoryEntry, Scope, Store};

use crate::fixtures::*;

#[tokio::test]
async fn everything_survives() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = [Bytes::from_static(b"{}"), Bytes::from(vec![7; 300_000])];
    let image = image(&blobs);
    let sbom = referrer(&image, &blobs[0], "kept");
    {
        let storage = open(directory.path()).await;
        let repo = writer(&storage, "team/app");
        for blob in &blobs {
            push_blob(&*repo, blob).await;
        }
        repo.put_manifest(&image, Some(&tag("v1"))).await.unwrap();
        repo.put_manifest(&sbom, None).await.unwrap();
    }
    let storage = open(directory.path()).await;
    let repo = writer(&storage, "team/app");
    assert_eq!(repo.manifest(&by_tag("v1")).await.unwrap().bytes(), image.bytes());
    assert_eq!(read_blob(&*repo, &Digest::sha256(&blobs[1])).await, blobs[1]);
    let tags = repo.tags(PageRequest::default()).await.unwrap();
    assert_eq!(tags.items.iter().map(|t| t.tag.as_str()).collect::<Vec<_>>(), ["v1"]);
    let referrers = repo.referrers(&image.digest(), None, PageRequest::default()).await.unwrap();
    assert_eq!(referrers.items, [sbom.referrer_descriptor()], "with type and annotations");
    let listed = storage.repositories("", PageRequest::default()).await.unwrap();
    assert_eq!(listed.items, [RepositoryEntry { name: "team/app".parse().unwrap() }]);
}

#[tokio::test]
async fn an_upload_goes_on_in_a_later_process() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = Bytes::from((0..700_000u32).map(|i| (i / 3) as u8).collect::<Vec<_>>());
    let token = {
        let storage = open(directory.path()).await;
        let mut upload = begin(&*writer(&storage, "a"), None).await;
        upload.write(bytes.slice(..400_001)).await.unwrap();
        upload.suspend().await.unwrap().unwrap()
    };
    let storage = open(directory.path()).await;
    assert!(writer(&storage, "b").resume(&token).await.unwrap().is_none(), "bound to its repository");
    let repo = writer(&storage, "a");
    let mut upload = repo.resume(&token).await.unwrap().unwrap();
    assert_eq!(upload.durable_offset().await.unwrap(), 400_001);
    upload.write(bytes.slice(400_001..)).await.unwrap();
    let digest = Digest::sha256(&bytes);
    upload.commit(&digest).await.unwrap();
    assert_eq!(read_blob(&*repo, &digest).await, bytes);
    assert!(upload_files(directory.path()).is_empty());
}

#[tokio::test]
async fn an_old_upload_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut tokens = Vec::new();
    {
        let storage = open(directory.path()).await;
        for _ in 0..2 {
            let mut upload = begin(&*writer(&storage, "a"), None).await;
            upload.write(Bytes::from_static(b"some")).await.unwrap();
            tokens.push(upload.suspend().await.unwrap().unwrap());
        }
    }
    let path = directory.path().join("uploads").join(tokens[0].expose());
    let old = SystemTime::now() - Duration::from_secs(25 * 60 * 60);
    fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    let storage = open(directory.path()).await;
    assert!(writer(&storage, "a").resume(&tokens[0]).await.unwrap().is_none());
    assert!(writer(&storage, "a").resume(&tokens[1]).await.unwrap().is_some(), "the younger one stays");
    assert_eq!(upload_files(directory.path()), [tokens[1].expose()]);
}

#[tokio::test]
async fn a_second_open_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).await;
    let error = Storage::open(directory.path()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    let said = error.to_string();
    assert!(said.contains(&directory.path().display().to_string()), "names the directory: {said}");
    assert!(said.contains(&format!("process {}", std::process::id())), "names the process: {said}");
    assert!(said.contains("stop it, or choose another directory"), "names the remedy: {said}");
    // A repository keeps the storage open, too.
    let repo = writer(&first, "a");
    drop(first);
    assert_eq!(kind(Storage::open(directory.path()).await), Some(Kind::Unavailable));
    drop(repo);
    open(directory.path()).await;
}

#[tokio::test]
async fn a_newer_catalog_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).await);
    let catalog = directory.path().join("catalog.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&catalog);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99, 'later', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    pool.close().await;
    let error = Storage::open(directory.path()).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("a newer ferry wrote it (schema 99)"), "{error}");
}

#[tokio::test]
async fn what_is_no_catalog_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = directory.path().join("catalog.sqlite");
    let text = "not a database, but dear to someone ".repeat(100);
    fs::write(&catalog, &text).unwrap();
    assert_eq!(kind(Storage::open(directory.path()).await), Some(Kind::Invalid));
    assert_eq!(fs::read_to_string(&catalog).unwrap(), text);
}

#[tokio::test]
async fn scopes_survive_apart() {
    let directory = tempfile::tempdir().unwrap();
    let name = "library/alpine".parse().unwrap();
    let scope = |account: Option<&str>| Scope::Upstream {
        host: "docker.io".to_owned(),
        account: account.map(str::to_owned),
    };
    let bytes = Bytes::from_static(b"only for the team");
    let digest = {
        let storage = open(directory.path()).await;
        push_blob(&*storage.writable(&scope(Some("team")), &name).unwrap(), &bytes).await
    };
    let storage = open(directory.path()).await;
    assert!(storage.repository(&scope(Some("team")), &name).stat(&digest).await.unwrap().is_some());
    for other in [Scope::Hosted, scope(None), scope(Some(""))] {
        let repo = storage.writable(&other, &name).unwrap();
        assert_eq!(repo.stat(&digest).await.unwrap(), None, "{other:?}");
        let anywhere = ferry_store::Expect { mount: Mount::Anywhere, ..no_mount(Some(digest)) };
        let begun = repo.begin(anywhere).await.unwrap();
        assert!(matches!(begun, ferry_store::Begun::Upload(_)), "{other:?} got {begun:?}");
    }
}

#[tokio::test]
async fn prefixes_are_taken_literally_and_pages_come_in_byte_order() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    for name in ["a_b/x", "a-b/x", "axb/x", "a_b", "a_bc", "b"] {
        push_blob(&*writer(&storage, name), &Bytes::from_static(b"x")).await;
    }
    let list = async |prefix: &str, limit: Option<usize>| {
        let page = storage.repositories(prefix, PageRequest { after: None, limit }).await.unwrap();
        let names: Vec<String> = page.items.iter().map(|entry| entry.name.to_string()).collect();
        (names, page.next.map(|next| next.as_str().to_owned()))
    };
    assert_eq!(list("a_b", None).await.0, ["a_b", "a_b/x", "a_bc"]);
    assert_eq!(list("", None).await.0, ["a-b/x", "a_b", "a_b/x", "a_bc", "axb/x", "b"]);
    assert_eq!(list("a_", Some(2)).await, (vec!["a_b".into(), "a_b/x".into()], Some("a_b/x".into())));
    for none in ["%", "a%", "A", "é", "b\u{10FFFF}"] {
        assert_eq!(list(none, None).await, (vec![], None), "{none:?}");
    }
}
