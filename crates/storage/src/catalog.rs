//! What is visible where: links, manifests, tags and uploads, in SQLite.
//!
//! The statements are those that SQLite and PostgreSQL have in common. Writing goes through one connection, so that
//! writers wait in line here and none of them ever finds the database busy; readers have their own connections and
//! see what was committed.

#[macro_use]
mod sql;

mod cached;
mod check;
mod collect;
mod evict;
mod images;
mod key;
mod listings;
mod memory;
mod needs;
mod objects;
mod pins;
mod read;
mod totals;
mod write;

pub(crate) use collect::{Place, Window};
pub(crate) use evict::Candidate;
pub(crate) use key::Key;
pub(crate) use memory::Memory;
pub(crate) use needs::{Unlisted, named};
pub(crate) use objects::BucketRow;

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ferry_oci::{Digest, Malformed, Manifest, media_type};
use ferry_store::{Error, Kind, Result};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqlSafeStr, SqliteConnection, SqlitePool, query_scalar};

use crate::options::Clock;

/// Readers that may run at once.
const READERS: u32 = 4;

/// How long a writer waits in line: longer than any burst of pushes on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

/// SQLITE_IOERR_SHMSIZE.
const NO_ROOM_TO_SHARE: u32 = 4874;

/// How long SQLite waits for a lock, which matters only against tools that look into the file from outside.
const BUSY: Duration = Duration::from_secs(10);

/// The catalog. Its functions return sqlx's errors; [`error`] makes ours of them, where it is known what was done.
pub(crate) struct Catalog {
    writer: SqlitePool,
    readers: SqlitePool,
    pub(crate) memory: Arc<Memory>,
    clock: Clock,
    /// When upkeep began to take notes: what was there before is as old as this. Seconds since 1970.
    since: AtomicI64,
}

impl Catalog {
    /// Opens the catalog, creating it or bringing it up to date.
    pub(crate) async fn open(path: &Path, clock: Clock) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let memory = Arc::<Memory>::default();
        let writer = writer_pool(&memory).connect_with(options.clone()).await;
        let writer = writer.map_err(|e| error("open catalog", path.display(), e))?;
        migrations().run(&writer).await.map_err(|e| migration_error(path, e))?;
        let since =
            totals::since(&writer, &clock).await.map_err(|e| error("open catalog", path.display(), e))?;
        let readers = pool().max_connections(READERS).after_release(|conn, _| Box::pin(settled(conn)));
        let readers = readers.connect_lazy_with(options);
        Ok(Self { writer, readers, memory, clock, since: AtomicI64::new(since) })
    }

    /// The time that lies `age` back, to compare last uses with; before all of them if nothing was noted then.
    pub(crate) fn cutoff(&self, age: Duration) -> i64 {
        let cutoff = self.clock.before(age);
        if cutoff < self.since.load(Ordering::Relaxed) { i64::MIN } else { cutoff }
    }
}

fn pool() -> SqlitePoolOptions {
    let pool = SqlitePoolOptions::new().acquire_timeout(PATIENCE).test_before_acquire(false);
    pool.idle_timeout(None).max_lifetime(None)
}

/// The one connection that writes; while it is out, `memory` is told.
fn writer_pool(memory: &Arc<Memory>) -> SqlitePoolOptions {
    let [opened, acquired, released] = std::array::from_fn(|_| Arc::clone(memory));
    pool()
        .max_connections(1)
        .after_connect(move |_, _| {
            opened.writing();
            Box::pin(async { Ok(()) })
        })
        .before_acquire(move |_, _| {
            acquired.writing();
            Box::pin(async { Ok(true) })
        })
        .after_release(move |conn, _| {
            let released = Arc::clone(&released);
            Box::pin(async move {
                let settled = settled(conn).await?;
                released.written();
                Ok(settled)
            })
        })
}

/// Lets what was begun be rolled back. Where that failed too, as on a full disk, the connection would believe for ever that
/// it is in the middle of something.
async fn settled(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    conn.ping().await?;
    Ok(!conn.is_in_transaction())
}

/// Every schema there ever was, oldest first. One that was released is never edited.
fn migrations() -> Migrator {
    let simple = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        simple(1, "catalog", include_str!("../migrations/0001_catalog.sql")),
        simple(2, "upkeep", include_str!("../migrations/0002_upkeep.sql")),
        simple(3, "cached tags", include_str!("../migrations/0003_cached_tags.sql")),
        simple(4, "listings", include_str!("../migrations/0004_listings.sql")),
        simple(5, "objects", include_str!("../migrations/0005_objects.sql")),
        simple(6, "pins", include_str!("../migrations/0006_pins.sql")),
    ])
}

fn migration_error(path: &Path, failure: MigrateError) -> Error {
    let subject = path.display();
    match failure {
        MigrateError::VersionMissing(version) => {
            let detail = format!(
                "a newer ferry wrote it (schema {version}); use that version, or another directory with this one"
            );
            Error::new(Kind::Invalid, "open catalog", subject, detail)
        }
        MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _) => error("open catalog", subject, e),
        other => Error::new(Kind::Invalid, "open catalog", subject, other.to_string()).caused_by(other),
    }
}

/// Our error for one of sqlx.
pub(crate) fn error(operation: &'static str, subject: impl Display, failure: sqlx::Error) -> Error {
    let kind = match &failure {
        sqlx::Error::Database(e) => {
            // SQLite's result code, of which the low byte is the primary one (https://www.sqlite.org/rescode.html).
            match e.code().and_then(|code| code.parse::<u32>().ok()).map(|code| (code & 0xff, code)) {
                Some((3 | 8, _)) => Kind::Denied,
                Some((11 | 26, _)) => Kind::Invalid,
                // The second: no room for the memory that its processes share, without which it cannot even read.
                Some((13, _) | (_, NO_ROOM_TO_SHARE)) => Kind::Full,
                _ => Kind::Unavailable,
            }
        }
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Kind::Invalid,
        _ => Kind::Unavailable,
    };
    let mut detail = failure.to_string();
    if kind == Kind::Full {
        detail.push_str("; free some space on the disk of the storage");
    }
    Error::new(kind, operation, subject, detail).caused_by(failure)
}

/// A text of the catalog as what it stands for.
fn decoded<T: std::str::FromStr<Err = Malformed>>(text: &str) -> sqlx::Result<T> {
    text.parse().map_err(|e: Malformed| sqlx::Error::Decode(Box::new(e)))
}

/// What a manifest needs of its repository: everything with its size, or the first thing that is missing.
type Needed = std::result::Result<Vec<(Digest, u64)>, Digest>;

async fn needed(conn: &mut SqliteConnection, key: &Key, manifest: &Manifest) -> sqlx::Result<Needed> {
    let mut found = Vec::new();
    for blob in manifest.blobs() {
        match blob_size(conn, key, &blob.digest).await? {
            Some(size) => found.push((blob.digest, size)),
            None => return Ok(Err(blob.digest)),
        }
    }
    for child in manifest.children() {
        let mut size = manifest_size(conn, key, &child.digest).await?;
        // An index may list blobs too: BuildKit keeps its cache so.
        if size.is_none() && !media_type::is_manifest(&child.media_type) {
            size = blob_size(conn, key, &child.digest).await?;
        }
        match size {
            Some(size) => found.push((child.digest, size)),
            None => return Ok(Err(child.digest)),
        }
    }
    Ok(Ok(found))
}

async fn blob_size(conn: &mut SqliteConnection, key: &Key, digest: &Digest) -> sqlx::Result<Option<u64>> {
    let size = query_scalar("SELECT size FROM links WHERE scope = $1 AND name = $2 AND digest = $3")
        .bind(&key.scope)
        .bind(&key.name)
        .bind(digest.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(size.map(|size: i64| size as u64))
}

async fn manifest_size(conn: &mut SqliteConnection, key: &Key, digest: &Digest) -> sqlx::Result<Option<u64>> {
    let size = query_scalar("SELECT size FROM manifests WHERE scope = $1 AND name = $2 AND digest = $3")
        .bind(&key.scope)
        .bind(&key.name)
        .bind(digest.to_string())
        .fetch_optional(conn)
        .await?;
    Ok(size.map(|size: i64| size as u64))
}
