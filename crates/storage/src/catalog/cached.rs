//! What is known of tags of upstreams.

use ferry_oci::{Descriptor, Digest, Manifest, Tag};
use ferry_store::CachedTag;
use sqlx::{SqliteConnection, query, query_as};

use super::write::{add_manifest, point_tag};
use super::{Catalog, Key, decoded, manifest_size};
use crate::options::to_time;

type TagRow = (String, String, i64, Option<i64>, Option<i64>, Option<i64>);

impl Catalog {
    /// A tag, and what its upstream said of it.
    pub(crate) async fn cached_tag(&self, key: &Key, tag: &Tag) -> sqlx::Result<Option<CachedTag>> {
        let row: Option<TagRow> = query_as(
            "SELECT m.digest, m.media_type, m.size, t.confirmed, t.pushed, t.withdrawn FROM tags AS t
             JOIN manifests AS m ON m.scope = t.scope AND m.name = t.name AND m.digest = t.digest
             WHERE t.scope = $1 AND t.name = $2 AND t.tag = $3",
        )
        .bind(&key.scope)
        .bind(&key.name)
        .bind(tag.as_str())
        .fetch_optional(&self.readers)
        .await?;
        let cached = |(digest, media_type, size, confirmed, pushed, withdrawn): TagRow| {
            let descriptor = Descriptor::new(media_type, decoded(&digest)?, size as u64);
            let confirmed = to_time(confirmed.or(pushed).unwrap_or_default());
            Ok(CachedTag { descriptor, confirmed, withdrawn: withdrawn.map(to_time) })
        };
        row.map(cached).transpose()
    }

    /// Adds a manifest whose bytes are in place, whatever is missing of what it names, and points the tag at it as
    /// confirmed at that time.
    pub(crate) async fn keep_manifest(
        &self,
        key: &Key,
        manifest: &Manifest,
        tag: Option<(&Tag, i64)>,
    ) -> sqlx::Result<()> {
        let mut transaction = self.transaction().await?;
        let now = self.clock.seconds();
        add_manifest(&mut transaction, key, manifest, now).await?;
        if let Some((tag, at)) = tag {
            let digest = manifest.digest();
            point_tag(&mut transaction, key, tag, (&digest, now)).await?;
            mark_confirmed(&mut transaction, key, tag, (&digest, at)).await?;
        }
        transaction.commit().await
    }

    /// Points the tag at a manifest as confirmed at that time; false if the manifest is not there.
    pub(crate) async fn confirm_tag(
        &self,
        key: &Key,
        tag: &Tag,
        (digest, at): (&Digest, i64),
    ) -> sqlx::Result<bool> {
        let mut transaction = self.transaction().await?;
        if !mark_confirmed(&mut transaction, key, tag, (digest, at)).await? {
            if manifest_size(&mut transaction, key, digest).await?.is_none() {
                return Ok(false);
            }
            point_tag(&mut transaction, key, tag, (digest, self.clock.seconds())).await?;
            mark_confirmed(&mut transaction, key, tag, (digest, at)).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Notes since when the upstream refuses the tag.
    pub(crate) async fn withdraw_tag(&self, key: &Key, tag: &Tag, at: i64) -> sqlx::Result<()> {
        query(
            "UPDATE tags SET withdrawn = $1
             WHERE scope = $2 AND name = $3 AND tag = $4 AND withdrawn IS NULL",
        )
        .bind(at)
        .bind(&key.scope)
        .bind(&key.name)
        .bind(tag.as_str())
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}

/// False if the tag does not point at `digest`.
async fn mark_confirmed(
    conn: &mut SqliteConnection,
    key: &Key,
    tag: &Tag,
    (digest, at): (&Digest, i64),
) -> sqlx::Result<bool> {
    let done = query(
        "UPDATE tags SET confirmed = $1, withdrawn = NULL
         WHERE scope = $2 AND name = $3 AND tag = $4 AND digest = $5",
    )
    .bind(at)
    .bind(&key.scope)
    .bind(&key.name)
    .bind(tag.as_str())
    .bind(digest.to_string())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}
