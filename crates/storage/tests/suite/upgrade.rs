//! A storage that an earlier schema wrote.

use std::fs;
use std::path::Path;

use ferry_oci::Digest;
use ferry_storage::{CheckOptions, CollectOptions, Depth, Storage};
use ferry_store::{Cache, PageRequest, Scope, Store};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Connection, SqlSafeStr, SqliteConnection};

use crate::fixtures::*;
use crate::upkeep_fixtures::*;

const FIRST: &str = include_str!("../../migrations/0001_catalog.sql");
const SECOND: &str = include_str!("../../migrations/0002_upkeep.sql");

async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// Waits until the catalog is closed, which a storage that is dropped does not wait for.
async fn closed(path: &Path) {
    let path = path.canonicalize().unwrap();
    let is_it = |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|file| file == path);
    while fs::read_dir("/proc/self/fd").unwrap().flatten().any(is_it) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Makes the catalog what the first schema would hold.
async fn set_back(directory: &Path) {
    let path = directory.join("catalog.sqlite");
    let newer = directory.join("newer.sqlite");
    closed(&path).await;
    connect(&path).await.close().await.unwrap();
    fs::rename(&path, &newer).unwrap();
    let mut old = connect(&path).await;
    let first = Migration::new(1, "catalog".into(), MigrationType::Simple, FIRST.into_sql_str(), false);
    Migrator::with_migrations(vec![first]).run_direct(None, &mut old, false).await.unwrap();
    let attach = format!("ATTACH '{}' AS newer", newer.display());
    sqlx::raw_sql(sqlx::AssertSqlSafe(attach)).execute(&mut old).await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO repositories SELECT scope, name FROM newer.repositories;
         INSERT INTO links SELECT scope, name, digest, size FROM newer.links;
         INSERT INTO manifests SELECT scope, name, digest, media_type, size, subject, artifact_type, annotations
             FROM newer.manifests;
         INSERT INTO tags SELECT scope, name, tag, digest FROM newer.tags;
         INSERT INTO uploads SELECT id, scope, name FROM newer.uploads;",
    )
    .execute(&mut old)
    .await
    .unwrap();
    old.close().await.unwrap();
    for file in ["newer.sqlite", "newer.sqlite-wal", "newer.sqlite-shm"] {
        let _ = fs::remove_file(directory.join(file));
    }
}

/// A storage of the first schema: a tagged index with a referrer, a lone blob, and an upload.
async fn write_old(directory: &Path) -> ferry_store::UploadToken {
    let token = {
        let storage = open(directory).await;
        let repo = writer(&storage, "team/app");
        let child = push_image(&*repo, &[bytes("config", 100), bytes("layer", 5000)], None).await;
        let index = index(&[&child]);
        repo.put_manifest(&index, Some(&tag("v1"))).await.unwrap();
        repo.put_manifest(&referrer(&index, &bytes("config", 100), "sbom"), None).await.unwrap();
        push_blob(&*repo, &bytes("lone", 300)).await;
        let cached = upstream(&storage, "library/alpine");
        push_image(&*cached, &[bytes("cached", 200)], Some("latest")).await;
        let mut upload = begin(&*repo, None).await;
        upload.write(bytes("under way", 400)).await.unwrap();
        upload.suspend().await.unwrap().unwrap()
    };
    set_back(directory).await;
    token
}

/// A catalog of the second schema, which differs in two columns.
#[tokio::test]
async fn tags_of_the_second_schema_count_as_confirmed_when_they_were_pushed() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    {
        let storage = open_at(directory.path(), &time).await;
        push_image(&*upstream(&storage, "library/alpine"), &[bytes("cached", 200)], Some("latest")).await;
    }
    let path = directory.path().join("catalog.sqlite");
    closed(&path).await;
    let mut second = connect(&path).await;
    sqlx::raw_sql(
        "DROP TABLE pins; DROP TABLE objects; DROP TABLE bucket; DROP TABLE listings; ALTER TABLE tags DROP COLUMN confirmed; ALTER TABLE tags DROP COLUMN withdrawn;
         DELETE FROM _sqlx_migrations WHERE version >= 3;",
    )
    .execute(&mut second)
    .await
    .unwrap();
    second.close().await.unwrap();
    let storage = open_at(directory.path(), &time).await;
    assert_whole(&*upstream(&storage, "library/alpine"), &by_tag("latest")).await;
    let scope = Scope::Upstream { host: "docker.io".to_owned(), account: None };
    let cached = storage.cached(&scope, &"library/alpine".parse().unwrap());
    let found = cached.tag(&tag("latest")).await.unwrap().unwrap();
    let age = time.now().duration_since(found.confirmed).unwrap();
    assert!(age.as_secs() < 1 && found.withdrawn.is_none(), "{age:?}");
    assert!(cached.confirm(&tag("latest"), &found.descriptor.digest, time.now()).await.unwrap());
}

async fn assert_everything(storage: &Storage) {
    let repo = writer(storage, "team/app");
    let index = repo.manifest(&by_tag("v1")).await.unwrap();
    let child = ferry_oci::Reference::Digest(index.children()[0].digest);
    assert_whole(&*repo, &child).await;
    let referrers = repo.referrers(&index.digest(), None, PageRequest::default()).await.unwrap().items;
    assert_eq!(referrers.len(), 1);
    assert_whole(&*repo, &ferry_oci::Reference::Digest(referrers[0].digest)).await;
    assert_whole(&*upstream(storage, "library/alpine"), &by_tag("latest")).await;
    let tags = repo.tags(PageRequest::default()).await.unwrap().items;
    assert_eq!(tags.iter().map(|t| (t.tag.as_str(), t.pushed)).collect::<Vec<_>>(), [("v1", None)]);
}

#[tokio::test]
async fn everything_is_kept_and_upkeep_goes_on_from_there() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    let token = write_old(directory.path()).await;
    let storage = open_at(directory.path(), &time).await;
    let lone = Digest::sha256(&bytes("lone", 300));
    let counted = storage.statistics().await.unwrap();
    assert_eq!((counted.repositories, counted.tags, counted.manifests), (2, 2, 4));
    assert_eq!((counted.links, counted.bytes_linked), (4, 5600));
    assert_eq!((counted.blobs, counted.bytes_unneeded, counted.uploads), (8, 0, 1));
    let on_disk: u64 = content_files(directory.path())
        .iter()
        .map(|digest| fs::metadata(content_file(directory.path(), digest)).unwrap().len())
        .sum();
    assert_eq!(counted.bytes, on_disk);
    assert_everything(&storage).await;
    let upload = writer(&storage, "team/app").resume(&token).await.unwrap().unwrap();
    drop(upload);

    // The age of what was there counts from the upgrade, whatever was asked since.
    time.pass(DAY - 1);
    assert_eq!(storage.collect(&CollectOptions::default(), &never()).await.unwrap().blobs, 0);
    assert_everything(&storage).await;
    time.pass(1);
    let collected = storage.collect(&CollectOptions::default(), &never()).await.unwrap();
    assert_eq!((collected.links, collected.blobs, collected.bytes), (1, 1, 300), "the lone blob only");
    assert!(!content_file(directory.path(), &lone).exists());
    assert_everything(&storage).await;
    let options = CheckOptions { depth: Depth::Digests, repair: true };
    let checked = storage.check(options, &never(), &mut |_| {}).await.unwrap();
    assert_eq!((checked.findings, checked.manifests), (0, 4));
    time.pass(DAY);
    assert_eq!(storage.evict_to(0, &never()).await.unwrap().manifests, 1, "the cached one");
}

/// A manifest whose file cannot be read may name anything.
#[tokio::test]
async fn what_an_unreadable_manifest_may_name_stays() {
    let (directory, time) = (tempfile::tempdir().unwrap(), Time::new());
    write_old(directory.path()).await;
    let storage = open_at(directory.path(), &time).await;
    let repo = writer(&storage, "team/app");
    let index = repo.resolve(&by_tag("v1")).await.unwrap().descriptor.digest;
    let path = content_file(directory.path(), &index);
    fs::rename(&path, directory.path().join("away")).unwrap();
    time.pass(10 * DAY);
    let everything = CollectOptions { untagged_older_than: Some(Default::default()), ..Default::default() };
    let collected = storage.collect(&everything, &never()).await.unwrap();
    assert_eq!((collected.links, collected.manifests, collected.blobs), (0, 0, 0), "{collected:?}");
    fs::rename(directory.path().join("away"), &path).unwrap();
    assert_eq!(storage.collect(&everything, &never()).await.unwrap().links, 1);
    assert_everything(&storage).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What a kill leaves after every part of the upgrade: the earlier schema, untouched.
#[tokio::test]
async fn a_killed_upgrade_is_harmless() {
    let directory = tempfile::tempdir().unwrap();
    write_old(directory.path()).await;
    let mut upgrading = connect(&directory.path().join("catalog.sqlite")).await;
    // So little memory that pages are written before the end.
    sqlx::raw_sql("PRAGMA cache_size = 1; BEGIN IMMEDIATE;").execute(&mut upgrading).await.unwrap();
    let statements: Vec<&'static str> = SECOND.split(";\n\n").collect();
    assert!(statements.len() > 15);
    for (n, statement) in statements.into_iter().enumerate() {
        sqlx::raw_sql(statement).execute(&mut upgrading).await.unwrap();
        if n % 6 == 5 {
            let killed = tempfile::tempdir().unwrap();
            copy(directory.path(), killed.path());
            let storage = open(killed.path()).await;
            assert_everything(&storage).await;
            assert!(
                storage
                    .repository(&Scope::Hosted, &"team/app".parse().unwrap())
                    .stat(&Digest::sha256(&bytes("lone", 300)))
                    .await
                    .unwrap()
                    .is_some()
            );
            assert_eq!(storage.statistics().await.unwrap().links, 4);
        }
    }
}
