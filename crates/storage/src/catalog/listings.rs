//! Pages of listings, as upstreams gave them.

use ferry_store::CachedListing;
use sqlx::{SqliteConnection, query, query_as};

use super::{Catalog, Key};
use crate::options::to_time;

/// Pages that are kept at most, and their bytes in all: beyond that the older half is forgotten, which costs requests.
const MOST: i64 = 10_000;
const MOST_BYTES: i64 = 64 << 20;

/// The longest page that is kept, in bytes.
const LONGEST: usize = 1 << 20;

impl Catalog {
    pub(crate) async fn listing(&self, key: &Key, of: &str) -> sqlx::Result<Option<CachedListing>> {
        let row: Option<(String, i64, Option<i64>)> = query_as(
            "SELECT content, confirmed, withdrawn FROM listings WHERE scope = $1 AND name = $2 AND of = $3",
        )
        .bind(&key.scope)
        .bind(&key.name)
        .bind(of)
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.map(|(content, confirmed, withdrawn)| CachedListing {
            content,
            confirmed: to_time(confirmed),
            withdrawn: withdrawn.map(to_time),
        }))
    }

    /// Keeps a page in place of the one before, with when it was confirmed and withdrawn.
    pub(crate) async fn keep_listing(
        &self,
        key: &Key,
        of: &str,
        content: &str,
        (confirmed, withdrawn): (i64, Option<i64>),
    ) -> sqlx::Result<()> {
        if content.len() > LONGEST {
            return self.forget_listing(key, of).await;
        }
        let mut transaction = self.transaction().await?;
        query(
            "INSERT INTO listings (scope, name, of, content, size, confirmed, withdrawn)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (scope, name, of) DO UPDATE SET content = excluded.content, size = excluded.size,
                 confirmed = excluded.confirmed, withdrawn = excluded.withdrawn",
        )
        .bind(&key.scope)
        .bind(&key.name)
        .bind(of)
        .bind(content)
        .bind(content.len() as i64)
        .bind(confirmed)
        .bind(withdrawn)
        .execute(&mut *transaction)
        .await?;
        make_room(&mut transaction).await?;
        transaction.commit().await
    }

    pub(crate) async fn forget_listing(&self, key: &Key, of: &str) -> sqlx::Result<()> {
        query("DELETE FROM listings WHERE scope = $1 AND name = $2 AND of = $3")
            .bind(&key.scope)
            .bind(&key.name)
            .bind(of)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

async fn make_room(conn: &mut SqliteConnection) -> sqlx::Result<()> {
    let (count, bytes): (i64, i64) =
        query_as("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM listings").fetch_one(&mut *conn).await?;
    if count > MOST || bytes > MOST_BYTES {
        query(
            "DELETE FROM listings WHERE confirmed <=
                 (SELECT confirmed FROM listings ORDER BY confirmed LIMIT 1 OFFSET $1)",
        )
        .bind(count / 2)
        .execute(conn)
        .await?;
    }
    Ok(())
}
