//! What a check compares with the files, and what it takes out.

use ferry_oci::{Digest, Malformed, Tag};
use ferry_store::Scope;
use sqlx::{query, query_as, query_scalar};

use super::key::scope_text;
use super::{Catalog, Key, Place, decoded};

/// That the repository of the manifest `r` lacks what `e` says that it needs.
macro_rules! lacking {
    () => {
        "e.manifest = r.digest
         AND NOT EXISTS (SELECT 1 FROM links AS l
                         WHERE l.scope = r.scope AND l.name = r.name AND l.digest = e.digest)
         AND NOT EXISTS (SELECT 1 FROM manifests AS c
                         WHERE c.scope = r.scope AND c.name = r.name AND c.digest = e.digest)"
    };
}

impl Catalog {
    /// Contents that some repository names, with their sizes, by digest, after `after`.
    pub(crate) async fn contents(&self, after: &str, limit: i64) -> sqlx::Result<Vec<(Digest, u64)>> {
        let rows: Vec<(String, i64)> = query_as(
            "SELECT digest, size FROM contents
             WHERE digest > $1 AND (links > 0 OR manifests > 0) ORDER BY digest LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|(digest, size)| Ok((decoded(&digest)?, size as u64))).collect()
    }

    /// The size of content, if some repository names it; waits for whoever is writing.
    pub(crate) async fn content(&self, digest: &Digest) -> sqlx::Result<Option<u64>> {
        let size: Option<i64> =
            query_scalar("SELECT size FROM contents WHERE digest = $1 AND (links > 0 OR manifests > 0)")
                .bind(digest.to_string())
                .fetch_optional(&self.writer)
                .await?;
        Ok(size.map(|size| size as u64))
    }

    /// The first repositories that name this content.
    pub(crate) async fn holders(&self, digest: &Digest, limit: i64) -> sqlx::Result<Vec<Key>> {
        let rows: Vec<(String, String)> = query_as(
            "SELECT r.scope, r.name FROM (SELECT DISTINCT scope FROM repositories) AS s CROSS JOIN links AS r
             WHERE r.scope = s.scope AND r.digest = $1
             UNION
             SELECT m.scope, m.name FROM manifests AS m WHERE m.digest = $1
             ORDER BY 1, 2 LIMIT $2",
        )
        .bind(digest.to_string())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.into_iter().map(|(scope, name)| Key { scope, name }).collect())
    }

    /// Takes content out of all repositories, with the tags on it, and forgets it.
    pub(crate) async fn remove_everywhere(&self, digest: &Digest) -> sqlx::Result<()> {
        let mut transaction = self.transaction().await?;
        for sql in [
            "DELETE FROM links WHERE scope IN (SELECT DISTINCT scope FROM repositories) AND digest = $1",
            "DELETE FROM manifests WHERE digest = $1",
            "DELETE FROM contents WHERE digest = $1 AND links = 0 AND manifests = 0",
        ] {
            query(sql).bind(digest.to_string()).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// The next `limit` manifests after `after`: where they end, how many they are, and those whose repository lacks
    /// something that they need. `None` at the end. What upstreams have comes when it is asked for, so it is not lacking.
    pub(crate) async fn incomplete(
        &self,
        after: Option<&Place>,
        limit: i64,
    ) -> sqlx::Result<Option<(Place, u64, Vec<Place>)>> {
        let (scope, name, digest) = Place::parts(after);
        let rows: Vec<(String, String, String, bool)> = query_as(concat!(
            "SELECT r.scope, r.name, r.digest, r.scope = $5 AND EXISTS (SELECT 1 FROM edges AS e WHERE ",
            lacking!(),
            ") FROM manifests AS r WHERE (r.scope, r.name, r.digest) > ($1, $2, $3)
             ORDER BY r.scope, r.name, r.digest LIMIT $4",
        ))
        .bind(scope)
        .bind(name)
        .bind(digest)
        .bind(limit)
        .bind(scope_text(&Scope::Hosted))
        .fetch_all(&self.readers)
        .await?;
        let count = rows.len() as u64;
        Ok(super::collect::window(rows)?.map(|(last, incomplete)| (last, count, incomplete)))
    }

    /// What the repository of a manifest lacks.
    pub(crate) async fn missing(&self, manifest: &Place) -> sqlx::Result<Vec<Digest>> {
        let rows: Vec<String> = query_scalar(concat!(
            "SELECT e.digest FROM manifests AS r CROSS JOIN edges AS e
             WHERE r.scope = $1 AND r.name = $2 AND r.digest = $3 AND ",
            lacking!(),
        ))
        .bind(&manifest.key.scope)
        .bind(&manifest.key.name)
        .bind(manifest.digest.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|digest| decoded(digest)).collect()
    }

    /// The first tags that point at no manifest. The schema does not allow any: only a damaged file has such.
    pub(crate) async fn dangling(&self, limit: i64) -> sqlx::Result<Vec<(Key, Tag)>> {
        let rows: Vec<(String, String, String)> = query_as(
            "SELECT t.scope, t.name, t.tag FROM tags AS t
             WHERE NOT EXISTS (SELECT 1 FROM manifests AS m
                               WHERE m.scope = t.scope AND m.name = t.name AND m.digest = t.digest)
             LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let dangling = |(scope, name, tag): (String, String, String)| {
            let tag = tag.parse().map_err(|e: Malformed| sqlx::Error::Decode(Box::new(e)))?;
            Ok((Key { scope, name }, tag))
        };
        rows.into_iter().map(dangling).collect()
    }
}
