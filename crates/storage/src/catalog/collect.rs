//! What nothing counts on. All that removes looks once more, in the transaction that removes.

use std::collections::HashSet;

use ferry_oci::Digest;
use sqlx::{query, query_as, query_scalar};

use super::{Catalog, Key, decoded};

/// A row of `links` or `manifests`: content in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) key: Key,
    pub(crate) digest: Digest,
}

/// A page of a table: where it ends, and which of its rows were asked for. `None` at the end of the table.
pub(crate) type Window = Option<(Place, Vec<Place>)>;

type Row = (String, String, String, bool);

pub(super) fn window(rows: Vec<Row>) -> sqlx::Result<Window> {
    let mut wanted = Vec::new();
    let mut last = None;
    for (scope, name, digest, is_wanted) in rows {
        let place = Place { key: Key { scope, name }, digest: decoded(&digest)? };
        if is_wanted {
            wanted.push(place.clone());
        }
        last = Some(place);
    }
    Ok(last.map(|last| (last, wanted)))
}

impl Place {
    /// The parts of a place to compare with; before everything if there is none.
    pub(super) fn parts(after: Option<&Self>) -> (&str, &str, String) {
        after.map_or(("", "", String::new()), |p| (&p.key.scope, &p.key.name, p.digest.to_string()))
    }
}

impl Catalog {
    /// The next `limit` links after `after`, and which of them no manifest names and nobody used after `cutoff`.
    pub(crate) async fn unnamed_links(
        &self,
        after: Option<&Place>,
        cutoff: i64,
        limit: i64,
    ) -> sqlx::Result<Window> {
        let sql = concat!(
            "SELECT r.scope, r.name, r.digest, ",
            rested!("$4"),
            " AND NOT ",
            named!(),
            " FROM links AS r WHERE (r.scope, r.name, r.digest) > ($1, $2, $3)
              ORDER BY r.scope, r.name, r.digest LIMIT $5",
        );
        self.window(sql, after, (cutoff, limit)).await
    }

    /// Removes those of the links that still nothing names; returns how many.
    pub(crate) async fn remove_unnamed_links(&self, links: &[Place], cutoff: i64) -> sqlx::Result<u64> {
        let sql = concat!(
            "DELETE FROM links AS r WHERE r.scope = $1 AND r.name = $2 AND r.digest = $3 AND ",
            rested!("$4"),
            " AND NOT ",
            named!(),
        );
        self.remove_places(sql, links, cutoff).await
    }

    /// The next `limit` manifests after `after`, and which of them no tag, manifest or subject keeps and nobody used
    /// after `cutoff`.
    pub(crate) async fn unkept_manifests(
        &self,
        after: Option<&Place>,
        cutoff: i64,
        limit: i64,
    ) -> sqlx::Result<Window> {
        let sql = concat!(
            "SELECT r.scope, r.name, r.digest, ",
            rested!("$4"),
            " AND NOT ",
            tagged!(),
            " AND NOT ",
            attached!(),
            " AND NOT ",
            named!(),
            " AND NOT ",
            pinned!(),
            " FROM manifests AS r WHERE (r.scope, r.name, r.digest) > ($1, $2, $3)
              ORDER BY r.scope, r.name, r.digest LIMIT $5",
        );
        self.window(sql, after, (cutoff, limit)).await
    }

    /// Removes those of the manifests that still nothing keeps; returns how many.
    pub(crate) async fn remove_unkept_manifests(
        &self,
        manifests: &[Place],
        cutoff: i64,
    ) -> sqlx::Result<u64> {
        let sql = concat!(
            "DELETE FROM manifests AS r WHERE r.scope = $1 AND r.name = $2 AND r.digest = $3 AND ",
            rested!("$4"),
            " AND NOT ",
            tagged!(),
            " AND NOT ",
            attached!(),
            " AND NOT ",
            named!(),
            " AND NOT ",
            pinned!(),
        );
        self.remove_places(sql, manifests, cutoff).await
    }

    /// What `sql` tells of the next places after `after`.
    async fn window(
        &self,
        sql: &'static str,
        after: Option<&Place>,
        (cutoff, limit): (i64, i64),
    ) -> sqlx::Result<Window> {
        let (scope, name, digest) = Place::parts(after);
        let rows = query_as(sql)
            .bind(scope)
            .bind(name)
            .bind(digest)
            .bind(cutoff)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
        window(rows)
    }

    async fn remove_places(&self, sql: &'static str, places: &[Place], cutoff: i64) -> sqlx::Result<u64> {
        let mut transaction = self.transaction().await?;
        let mut removed = 0;
        for place in places {
            let done = query(sql)
                .bind(&place.key.scope)
                .bind(&place.key.name)
                .bind(place.digest.to_string())
                .bind(cutoff)
                .execute(&mut *transaction)
                .await?;
            removed += done.rows_affected();
        }
        transaction.commit().await?;
        Ok(removed)
    }

    /// Contents that nothing counts on, by digest, after `after`.
    pub(crate) async fn unneeded(&self, after: &str, limit: i64) -> sqlx::Result<Vec<Digest>> {
        let rows: Vec<String> = query_scalar(
            "SELECT digest FROM contents WHERE links = 0 AND manifests = 0 AND digest > $1 ORDER BY digest LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|digest| decoded(digest)).collect()
    }

    /// Forgets those of the contents that still nothing counts on; returns them.
    pub(crate) async fn forget_unneeded(
        &self,
        digests: impl Iterator<Item = &Digest>,
    ) -> sqlx::Result<HashSet<Digest>> {
        let mut transaction = self.transaction().await?;
        let mut gone = HashSet::new();
        for digest in digests {
            let done = query("DELETE FROM contents WHERE digest = $1 AND links = 0 AND manifests = 0")
                .bind(digest.to_string())
                .execute(&mut *transaction)
                .await?;
            if done.rows_affected() > 0 {
                gone.insert(*digest);
            }
        }
        transaction.commit().await?;
        Ok(gone)
    }

    /// The contents from `first` to `last`.
    pub(crate) async fn contents_between(
        &self,
        first: &Digest,
        last: &Digest,
    ) -> sqlx::Result<HashSet<Digest>> {
        let rows: Vec<String> =
            query_scalar("SELECT digest FROM contents WHERE digest >= $1 AND digest <= $2")
                .bind(first.to_string())
                .bind(last.to_string())
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(|digest| decoded(digest)).collect()
    }

    /// Whether the catalog knows of this content, waiting for whoever is writing.
    pub(crate) async fn knows(&self, digest: &Digest) -> sqlx::Result<bool> {
        let row: Option<i64> = query_scalar("SELECT 1 FROM contents WHERE digest = $1")
            .bind(digest.to_string())
            .fetch_optional(&self.writer)
            .await?;
        Ok(row.is_some())
    }
}
