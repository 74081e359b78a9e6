//! What manifests name, and when content was used.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use ferry_oci::{Digest, Manifest};
use sqlx::{SqliteConnection, query, query_as, query_scalar};

use super::{Catalog, Key, decoded};

/// What a repository must keep for the sake of a manifest: its blobs and children.
pub(crate) fn named(manifest: &Manifest) -> Vec<Digest> {
    let children = manifest.children().iter().map(|child| child.digest);
    manifest.blobs().into_iter().map(|blob| blob.digest).chain(children).collect()
}

/// Writes down what a manifest names, unless that was done before: its digest says that it is the same.
pub(super) async fn list(conn: &mut SqliteConnection, digest: &Digest, named: &[Digest]) -> sqlx::Result<()> {
    let text = digest.to_string();
    let listed: Option<i64> = query_scalar("SELECT listed FROM contents WHERE digest = $1")
        .bind(&text)
        .fetch_optional(&mut *conn)
        .await?;
    if listed != Some(0) {
        return Ok(());
    }
    for named in named {
        query(
            "INSERT INTO edges (manifest, digest) VALUES ($1, $2) ON CONFLICT (manifest, digest) DO NOTHING",
        )
        .bind(&text)
        .bind(named.to_string())
        .execute(&mut *conn)
        .await?;
    }
    query("UPDATE contents SET listed = 1 WHERE digest = $1").bind(&text).execute(conn).await?;
    Ok(())
}

/// A manifest of which the catalog does not know what it names.
pub(crate) struct Unlisted {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
}

impl Catalog {
    /// Manifests that an earlier schema took in, by digest, after `after`.
    pub(crate) async fn unlisted(&self, after: &str, limit: i64) -> sqlx::Result<Vec<Unlisted>> {
        let rows: Vec<(String, i64, String)> = query_as(
            "SELECT c.digest, c.size,
                    (SELECT m.media_type FROM manifests AS m WHERE m.digest = c.digest LIMIT 1)
             FROM contents AS c
             WHERE c.manifests > 0 AND c.listed = 0 AND c.digest > $1 ORDER BY c.digest LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let unlisted = |(digest, size, media_type): (String, i64, String)| {
            Ok(Unlisted { digest: decoded(&digest)?, size: size as u64, media_type })
        };
        rows.into_iter().map(unlisted).collect()
    }

    /// Writes down what some manifests name.
    pub(crate) async fn list(&self, manifests: &[(Digest, Vec<Digest>)]) -> sqlx::Result<()> {
        let mut transaction = self.transaction().await?;
        for (digest, named) in manifests {
            list(&mut transaction, digest, named).await?;
        }
        transaction.commit().await
    }

    /// Repositories with a manifest of which it is not known what it names: nothing there may be called unneeded.
    pub(crate) async fn obscure(&self) -> sqlx::Result<HashSet<Key>> {
        let rows: Vec<(String, String)> = query_as(
            "SELECT DISTINCT m.scope, m.name FROM contents AS c CROSS JOIN manifests AS m
             WHERE m.digest = c.digest AND c.manifests > 0 AND c.listed = 0",
        )
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.into_iter().map(|(scope, name)| Key { scope, name }).collect())
    }

    /// Nothing was noted after `now`. What a clock says that is set right later would keep content from being removed
    /// until then.
    pub(crate) async fn correct_uses(&self, now: i64) -> sqlx::Result<()> {
        let used_later: bool = query_scalar("SELECT EXISTS (SELECT 1 FROM contents WHERE used > $1)")
            .bind(now)
            .fetch_one(&self.readers)
            .await?;
        if !used_later && self.since.load(Ordering::Relaxed) <= now {
            return Ok(());
        }
        let mut transaction = self.transaction().await?;
        for correction in [
            "UPDATE contents SET used = $1 WHERE used > $1",
            "UPDATE totals SET since = $1 WHERE id = 1 AND since > $1",
        ] {
            query(correction).bind(now).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        self.since.fetch_min(now, Ordering::Relaxed);
        Ok(())
    }

    /// Writes down last uses: those until `resting` exactly, later ones if what is known is older by `resolution` seconds.
    pub(crate) async fn record_uses(
        &self,
        uses: &[(Digest, i64)],
        resting: i64,
        resolution: i64,
    ) -> sqlx::Result<()> {
        let mut transaction = self.transaction().await?;
        for (digest, used) in uses {
            let tolerance = if *used <= resting { 0 } else { resolution };
            query("UPDATE contents SET used = $1 WHERE digest = $2 AND used < $3")
                .bind(used)
                .bind(digest.to_string())
                .bind(used.saturating_sub(tolerance))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }
}
