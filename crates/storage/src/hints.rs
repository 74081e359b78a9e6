use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use ferry_oci::{Digest, Name};
use ferry_store::{Hints, Holding, Result, Rewritten};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, QueryBuilder, Sqlite, SqlitePool, query, query_scalar};

use crate::catalog;

/// What was not seen again for so long is forgotten.
const EXPIRY: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How long another process may keep the file busy.
const BUSY: Duration = Duration::from_secs(10);

/// The statements with which a table is prepared.
struct Table {
    create: &'static str,
    /// Forgets what was not seen since.
    forget: &'static str,
    /// A row, if there is any.
    any: &'static str,
}

const TABLES: [Table; 2] = [
    Table {
        create: "CREATE TABLE IF NOT EXISTS holders (store TEXT NOT NULL, digest TEXT NOT NULL, \
                 repository TEXT NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (store, digest)) WITHOUT ROWID",
        forget: "DELETE FROM holders WHERE seen < $1",
        any: "SELECT 1 FROM holders LIMIT 1",
    },
    Table {
        create: "CREATE TABLE IF NOT EXISTS rewritten (source TEXT NOT NULL, how TEXT NOT NULL, \
                 target TEXT NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (source, how)) WITHOUT ROWID",
        forget: "DELETE FROM rewritten WHERE seen < $1",
        any: "SELECT 1 FROM rewritten LIMIT 1",
    },
];

impl Table {
    /// Makes it if it is missing, forgets what is older than `oldest`, and says whether nothing is left.
    async fn prepare(&self, pool: &SqlitePool, oldest: i64) -> sqlx::Result<bool> {
        query(self.create).execute(pool).await?;
        query(self.forget).bind(oldest).execute(pool).await?;
        Ok(query(self.any).fetch_optional(pool).await?.is_none())
    }
}

/// What runs saw of the registries they wrote to, in an SQLite file that processes may share.
///
/// It holds hints only, so nothing waits for the disk and a file that cannot be read may simply be removed.
pub struct FileHints {
    pool: SqlitePool,
    now: i64,
    /// There was nothing when it was opened, so there is nothing to look up.
    empty: bool,
}

impl FileHints {
    /// Opens the file, creating it if it is missing, and forgets what was not seen for 90 days before `now`.
    ///
    /// # Errors
    /// Whatever the file system or SQLite says.
    pub async fn open(path: &Path, now: SystemTime) -> Result<Self> {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let now = seconds(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Off)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let failed = |e| catalog::error("open", path.display(), e);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(failed)?;
        let oldest = now.saturating_sub(seconds(EXPIRY));
        let mut empty = true;
        for table in TABLES {
            empty &= table.prepare(&pool, oldest).await.map_err(failed)?;
        }
        Ok(Self { pool, now, empty })
    }
}

#[async_trait]
impl Hints for FileHints {
    async fn holder(&self, store: &str, digest: &Digest) -> Result<Option<Name>> {
        if self.empty {
            return Ok(None);
        }
        let found: sqlx::Result<Option<String>> =
            query_scalar("SELECT repository FROM holders WHERE store = $1 AND digest = $2")
                .bind(store)
                .bind(digest.to_string())
                .fetch_optional(&self.pool)
                .await;
        let found = found.map_err(|e| catalog::error("look up", digest, e))?;
        Ok(found.and_then(|name| name.parse().ok()))
    }

    async fn remember(&self, seen: Vec<Holding>) -> Result<()> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut statement =
            QueryBuilder::<Sqlite>::new("INSERT INTO holders (store, digest, repository, seen) ");
        statement.push_values(&seen, |mut row, Holding { store, repository, digest }| {
            row.push_bind(store.to_string()).push_bind(digest.to_string());
            row.push_bind(repository.as_str()).push_bind(self.now);
        });
        statement.push(
            " ON CONFLICT (store, digest) DO UPDATE SET repository = excluded.repository, seen = excluded.seen",
        );
        let written = statement.build().execute(&self.pool).await;
        written.map(drop).map_err(|e| catalog::error("remember", "who holds blobs", e))
    }

    async fn forget(&self, store: &str, digest: &Digest) -> Result<()> {
        query("DELETE FROM holders WHERE store = $1 AND digest = $2")
            .bind(store)
            .bind(digest.to_string())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| catalog::error("forget", digest, e))
    }

    async fn rewritten(&self, from: &Digest, how: &str) -> Result<Option<Digest>> {
        if self.empty {
            return Ok(None);
        }
        let found: sqlx::Result<Option<String>> =
            query_scalar("SELECT target FROM rewritten WHERE source = $1 AND how = $2")
                .bind(from.to_string())
                .bind(how)
                .fetch_optional(&self.pool)
                .await;
        let found = found.map_err(|e| catalog::error("look up", from, e))?;
        Ok(found.and_then(|digest| digest.parse().ok()))
    }

    async fn remember_rewritten(&self, seen: Vec<Rewritten>) -> Result<()> {
        if seen.is_empty() {
            return Ok(());
        }
        let mut statement = QueryBuilder::<Sqlite>::new("INSERT INTO rewritten (source, how, target, seen) ");
        statement.push_values(&seen, |mut row, Rewritten { from, how, to }| {
            row.push_bind(from.to_string()).push_bind(how.to_string());
            row.push_bind(to.to_string()).push_bind(self.now);
        });
        statement
            .push(" ON CONFLICT (source, how) DO UPDATE SET target = excluded.target, seen = excluded.seen");
        let written = statement.build().execute(&self.pool).await;
        written.map(drop).map_err(|e| catalog::error("remember", "what manifests became", e))
    }
}
