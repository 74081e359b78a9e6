//! What has not been used for longest.

use ferry_oci::Digest;
use ferry_store::Scope;
use sqlx::{SqliteConnection, query, query_as, query_scalar};

use super::key::scope_text;
use super::{Catalog, Key, Place, decoded};

/// A manifest that may be evicted, as far as can be told without a claim.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) used: i64,
    pub(crate) place: Place,
}

impl Catalog {
    /// Manifests that no other manifest of their repository holds, by last use, after `after` and not after `cutoff`;
    /// those that were pushed here only if asked for.
    pub(crate) async fn evictable(
        &self,
        after: Option<&Candidate>,
        cutoff: i64,
        hosted: bool,
        limit: i64,
    ) -> sqlx::Result<Vec<Candidate>> {
        let (used, place) = after.map_or((i64::MIN, None), |c| (c.used, Some(&c.place)));
        let (scope, name, digest) = Place::parts(place);
        let rows: Vec<(i64, String, String, String)> = query_as(concat!(
            "SELECT c.used, r.scope, r.name, r.digest FROM contents AS c CROSS JOIN manifests AS r
             WHERE c.manifests > 0 AND c.used >= $1 AND c.used <= $5 AND r.digest = c.digest
               AND (c.used, c.digest, r.scope, r.name) > ($1, $2, $3, $4) AND r.scope <> $6 AND NOT ",
            attached!(),
            " AND NOT ",
            named!(),
            " AND NOT ",
            pinned!(),
            " ORDER BY c.used, c.digest, r.scope, r.name LIMIT $7",
        ))
        .bind(used)
        .bind(digest)
        .bind(scope)
        .bind(name)
        .bind(cutoff)
        .bind(if hosted { String::new() } else { scope_text(&Scope::Hosted) })
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let candidate = |(used, scope, name, digest): (i64, String, String, String)| {
            Ok(Candidate { used, place: Place { key: Key { scope, name }, digest: decoded(&digest)? } })
        };
        rows.into_iter().map(candidate).collect()
    }

    /// Removes a manifest with the tags on it and what is only there for its sake: children and referrers that have no
    /// tag of their own, and blobs. Returns how many manifests and how many blobs went.
    ///
    /// `claim` is asked for everything. If something of the manifests is in use, nothing happens and the answer is
    /// `None`; a blob that is in use stays.
    pub(crate) async fn evict(
        &self,
        root: &Place,
        cutoff: i64,
        claim: impl FnMut(&Digest) -> bool,
    ) -> sqlx::Result<Option<(u64, u64)>> {
        let mut transaction = self.transaction().await?;
        if !may_go(&mut transaction, root, cutoff).await? {
            return Ok(None);
        }
        let removed = remove_whole(&mut transaction, Removal { root, cutoff }, claim).await?;
        if removed.is_some() {
            transaction.commit().await?;
        }
        Ok(removed)
    }
}

/// A manifest that is removed, with what was not used after the cut-off.
pub(super) struct Removal<'a> {
    pub(super) root: &'a Place,
    pub(super) cutoff: i64,
}

/// Removes a manifest and what is only there for its sake; how many manifests and blobs. `None` if something of the
/// manifests is in use: then nothing may be committed.
pub(super) async fn remove_whole(
    conn: &mut SqliteConnection,
    Removal { root, cutoff }: Removal<'_>,
    mut claim: impl FnMut(&Digest) -> bool,
) -> sqlx::Result<Option<(u64, u64)>> {
    let (mut waiting, mut manifests, mut named) = (vec![root.digest], 0, Vec::new());
    while let Some(digest) = waiting.pop() {
        if !claim(&digest) {
            return Ok(None);
        }
        let Some(released) = remove_manifest(conn, &root.key, &digest, cutoff).await? else {
            return Ok(None);
        };
        manifests += 1;
        waiting.extend(released);
        named.extend(edges(conn, &digest).await?);
    }
    let mut links = 0;
    for digest in named {
        if claim(&digest) {
            links += remove_link(conn, &root.key, &digest, cutoff).await?;
        }
    }
    Ok(Some((manifests, links)))
}

/// Whether a manifest is there, at rest, and not held by others.
async fn may_go(conn: &mut SqliteConnection, place: &Place, cutoff: i64) -> sqlx::Result<bool> {
    let row: Option<i64> = query_scalar(concat!(
        "SELECT 1 FROM manifests AS r WHERE r.scope = $1 AND r.name = $2 AND r.digest = $3 AND ",
        rested!("$4"),
        " AND NOT ",
        attached!(),
        " AND NOT ",
        named!(),
        " AND NOT ",
        pinned!(),
    ))
    .bind(&place.key.scope)
    .bind(&place.key.name)
    .bind(place.digest.to_string())
    .bind(cutoff)
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Removes the manifest; returns the children and referrers that nothing holds any more. `None` if one of them is in use.
async fn remove_manifest(
    conn: &mut SqliteConnection,
    key: &Key,
    digest: &Digest,
    cutoff: i64,
) -> sqlx::Result<Option<Vec<Digest>>> {
    let text = digest.to_string();
    query("DELETE FROM manifests WHERE scope = $1 AND name = $2 AND digest = $3")
        .bind(&key.scope)
        .bind(&key.name)
        .bind(&text)
        .execute(&mut *conn)
        .await?;
    let mut released = Vec::new();
    for sql in [CHILDREN, REFERRERS] {
        let rows: Vec<(String, bool)> = query_as(sql)
            .bind(&key.scope)
            .bind(&key.name)
            .bind(&text)
            .bind(cutoff)
            .fetch_all(&mut *conn)
            .await?;
        for (digest, at_rest) in rows {
            if !at_rest {
                return Ok(None);
            }
            released.push(decoded(&digest)?);
        }
    }
    Ok(Some(released))
}

const CHILDREN: &str = concat!(
    "SELECT r.digest, ",
    rested!("$4"),
    " FROM edges AS x CROSS JOIN manifests AS r
      WHERE x.manifest = $3 AND r.scope = $1 AND r.name = $2 AND r.digest = x.digest AND NOT ",
    tagged!(),
    " AND NOT ",
    attached!(),
    " AND NOT ",
    named!(),
    " AND NOT ",
    pinned!(),
);

// What is both child and referrer has been found as a child.
const REFERRERS: &str = concat!(
    "SELECT r.digest, ",
    rested!("$4"),
    " FROM manifests AS r WHERE r.scope = $1 AND r.name = $2 AND r.subject = $3 AND NOT ",
    tagged!(),
    " AND NOT ",
    named!(),
    " AND NOT ",
    pinned!(),
    " AND NOT EXISTS (SELECT 1 FROM edges AS x WHERE x.manifest = $3 AND x.digest = r.digest)",
);

/// What a manifest names.
pub(super) async fn edges(conn: &mut SqliteConnection, manifest: &Digest) -> sqlx::Result<Vec<Digest>> {
    let rows: Vec<String> = query_scalar("SELECT digest FROM edges WHERE manifest = $1")
        .bind(manifest.to_string())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|digest| decoded(digest)).collect()
}

async fn remove_link(
    conn: &mut SqliteConnection,
    key: &Key,
    digest: &Digest,
    cutoff: i64,
) -> sqlx::Result<u64> {
    let done = query(concat!(
        "DELETE FROM links AS r WHERE r.scope = $1 AND r.name = $2 AND r.digest = $3 AND ",
        rested!("$4"),
        " AND NOT ",
        named!(),
    ))
    .bind(&key.scope)
    .bind(&key.name)
    .bind(digest.to_string())
    .bind(cutoff)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
