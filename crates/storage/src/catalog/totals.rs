use std::sync::atomic::Ordering;

use sqlx::{SqlitePool, query, query_as, query_scalar};

use super::Catalog;
use crate::options::Clock;

/// Sums that the catalog keeps as it changes, so that asking for them reads one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) repositories: i64,
    pub(crate) tags: i64,
    pub(crate) manifests: i64,
    pub(crate) links: i64,
    pub(crate) bytes_linked: i64,
    pub(crate) contents: i64,
    pub(crate) bytes: i64,
}

/// When upkeep began to take notes in this catalog, which is now if it never did.
pub(super) async fn since(writer: &SqlitePool, clock: &Clock) -> sqlx::Result<i64> {
    let since: i64 = query_scalar("SELECT since FROM totals WHERE id = 1").fetch_one(writer).await?;
    if since != 0 {
        return Ok(since);
    }
    let now = clock.seconds();
    query("UPDATE totals SET since = $1 WHERE id = 1").bind(now).execute(writer).await?;
    Ok(now)
}

impl Catalog {
    pub(crate) async fn totals(&self) -> sqlx::Result<Totals> {
        let row: (i64, i64, i64, i64, i64, i64, i64) = query_as(
            "SELECT repositories, tags, manifests, links, bytes_linked, contents, bytes FROM totals WHERE id = 1",
        )
        .fetch_one(&self.readers)
        .await?;
        let (repositories, tags, manifests, links, bytes_linked, contents, bytes) = row;
        Ok(Totals { repositories, tags, manifests, links, bytes_linked, contents, bytes })
    }

    /// Bytes of contents that nothing counts on.
    pub(crate) async fn unneeded_bytes(&self) -> sqlx::Result<i64> {
        query_scalar("SELECT COALESCE(SUM(size), 0) FROM contents WHERE links = 0 AND manifests = 0")
            .fetch_one(&self.readers)
            .await
    }

    /// The least recent use of any manifest, in seconds since 1970; `None` if there is no manifest.
    pub(crate) async fn oldest_use(&self) -> sqlx::Result<Option<i64>> {
        let used: Option<i64> =
            query_scalar("SELECT used FROM contents WHERE manifests > 0 ORDER BY used, digest LIMIT 1")
                .fetch_optional(&self.readers)
                .await?;
        Ok(used.map(|used| used.max(self.since.load(Ordering::Relaxed))))
    }
}
