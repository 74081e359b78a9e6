//! What there is, as people see it: images.

use ferry_oci::{Digest, Name, Reference, Tag};
use ferry_store::Scope;
use sqlx::{SqliteConnection, query, query_as, query_scalar};

use super::evict::{Removal, remove_whole};
use super::pins::is_pinned;
use super::{Catalog, Key, Place, decoded};
use crate::images::{Image, ImageCursor, Refused};
use crate::options::to_time;

/// Scope, name, digest, tag (empty for none), media type, last use, confirmed or pushed, whether it is pinned.
type Row = (String, String, String, String, String, i64, Option<i64>, bool);

/// Every tag, and every manifest without one that no other holds.
const IMAGES: &str = concat!(
    "SELECT r.scope, r.name, r.digest, COALESCE(g.tag, ''), r.media_type,
            (SELECT c.used FROM contents AS c WHERE c.digest = r.digest),
            COALESCE(g.confirmed, g.pushed), ",
    pinned!(),
    " FROM manifests AS r
      LEFT JOIN tags AS g ON g.scope = r.scope AND g.name = r.name AND g.digest = r.digest
      WHERE (r.scope, r.name, r.digest) >= ($1, $2, $3)
        AND (r.scope, r.name, r.digest, COALESCE(g.tag, '')) > ($1, $2, $3, $4)
        AND ($5 = '' OR r.scope = $5)
        AND (g.tag IS NOT NULL OR (NOT ",
    attached!(),
    " AND NOT ",
    named!(),
    ")) ORDER BY r.scope, r.name, r.digest, COALESCE(g.tag, '') LIMIT $6",
);

/// The bytes of what a manifest leads to in its repository, itself among them.
const SIZE: &str = "WITH RECURSIVE reached (digest) AS (
       SELECT CAST($3 AS TEXT)
       UNION
       SELECT e.digest FROM edges AS e JOIN reached AS p ON e.manifest = p.digest)
     SELECT COALESCE(SUM(c.size), 0) FROM reached AS x JOIN contents AS c ON c.digest = x.digest
     WHERE EXISTS (SELECT 1 FROM links AS l WHERE l.scope = $1 AND l.name = $2 AND l.digest = x.digest)
        OR EXISTS (SELECT 1 FROM manifests AS m WHERE m.scope = $1 AND m.name = $2 AND m.digest = x.digest)";

impl Catalog {
    /// Images after `after`, in the order of the catalog; of one scope if it is given.
    pub(crate) async fn images(
        &self,
        after: &ImageCursor,
        scope: Option<&Scope>,
        limit: i64,
    ) -> sqlx::Result<Vec<Image>> {
        let mut conn = self.readers.acquire().await?;
        let rows: Vec<Row> = query_as(IMAGES)
            .bind(&after.scope)
            .bind(&after.name)
            .bind(&after.digest)
            .bind(&after.tag)
            .bind(scope.map(super::key::scope_text).unwrap_or_default())
            .bind(limit)
            .fetch_all(&mut *conn)
            .await?;
        let mut images = Vec::with_capacity(rows.len());
        for row in rows {
            images.push(image(&mut conn, row).await?);
        }
        Ok(images)
    }

    /// Removes a tag, or a manifest with all tags on it, and what is only there for its sake. `claim` is asked for what is
    /// removed; nothing happens if something of it is being used at this moment.
    pub(crate) async fn drop_image(
        &self,
        key: &Key,
        reference: &Reference,
        claim: impl FnMut(&Digest) -> bool,
    ) -> sqlx::Result<Result<(u64, u64), Refused>> {
        let mut transaction = self.transaction().await?;
        let conn = &mut *transaction;
        let Some(digest) = meant(conn, key, reference).await? else { return Ok(Err(Refused::Absent)) };
        if is_pinned_as(conn, key, reference).await? {
            return Ok(Err(Refused::Pinned));
        }
        if let Reference::Tag(tag) = reference {
            query("DELETE FROM tags WHERE scope = $1 AND name = $2 AND tag = $3")
                .bind(&key.scope)
                .bind(&key.name)
                .bind(tag.as_str())
                .execute(&mut *conn)
                .await?;
        }
        let kept = is_pinned(conn, key, &digest).await? || is_held(conn, key, &digest).await?;
        let by_digest = matches!(reference, Reference::Digest(_));
        if kept && by_digest {
            return Ok(Err(Refused::Held));
        }
        let others = !by_digest && is_tagged(conn, key, &digest).await?;
        let mut removed = (0, 0);
        if !kept && !others {
            let root = Place { key: key.clone(), digest };
            match remove_whole(conn, Removal { root: &root, cutoff: i64::MAX }, claim).await? {
                Some(counts) => removed = counts,
                None => return Ok(Err(Refused::Busy)),
            }
        }
        transaction.commit().await?;
        Ok(Ok(removed))
    }
}

async fn image(conn: &mut SqliteConnection, row: Row) -> sqlx::Result<Image> {
    let (scope, name, digest, tag, media_type, used, confirmed, pinned) = row;
    let size: i64 = query_scalar(SIZE).bind(&scope).bind(&name).bind(&digest).fetch_one(&mut *conn).await?;
    let cursor = ImageCursor { scope, name, digest, tag };
    let key = Key { scope: cursor.scope.clone(), name: cursor.name.clone() };
    let (scope, name): (Scope, Name) = key.parse()?;
    let tag: Option<Tag> = (!cursor.tag.is_empty()).then(|| decoded(&cursor.tag)).transpose()?;
    Ok(Image {
        scope,
        name,
        tag,
        digest: decoded(&cursor.digest)?,
        media_type,
        bytes: size as u64,
        used: to_time(used),
        confirmed: confirmed.map(to_time),
        pinned,
        cursor,
    })
}

/// The manifest that is meant, if it is there.
async fn meant(
    conn: &mut SqliteConnection,
    key: &Key,
    reference: &Reference,
) -> sqlx::Result<Option<Digest>> {
    let sql = match reference {
        Reference::Tag(_) => "SELECT digest FROM tags WHERE scope = $1 AND name = $2 AND tag = $3",
        Reference::Digest(_) => "SELECT digest FROM manifests WHERE scope = $1 AND name = $2 AND digest = $3",
    };
    let found: Option<String> = query_scalar(sql)
        .bind(&key.scope)
        .bind(&key.name)
        .bind(reference.to_string())
        .fetch_optional(conn)
        .await?;
    found.map(|digest| decoded(&digest)).transpose()
}

async fn is_pinned_as(conn: &mut SqliteConnection, key: &Key, reference: &Reference) -> sqlx::Result<bool> {
    let sql = "SELECT 1 FROM pins WHERE scope = $1 AND name = $2 AND reference = $3";
    key.has(conn, sql, reference.to_string()).await
}

/// Whether another manifest needs this one, or has it as a referrer.
async fn is_held(conn: &mut SqliteConnection, key: &Key, digest: &Digest) -> sqlx::Result<bool> {
    let sql = concat!(
        "SELECT 1 FROM manifests AS r WHERE r.scope = $1 AND r.name = $2 AND r.digest = $3 AND (",
        attached!(),
        " OR ",
        named!(),
        ")",
    );
    key.has(conn, sql, digest.to_string()).await
}

async fn is_tagged(conn: &mut SqliteConnection, key: &Key, digest: &Digest) -> sqlx::Result<bool> {
    let sql = "SELECT 1 FROM tags WHERE scope = $1 AND name = $2 AND digest = $3 LIMIT 1";
    key.has(conn, sql, digest.to_string()).await
}
