use ferry_oci::{Descriptor, Digest, Manifest, Reference};
use ferry_store::{RepositoryEntry, Scope, TagEntry};
use sqlx::{query_as, query_scalar};

use super::key::scope_text;
use super::{Catalog, Key, Needed, blob_size, decoded, needed};
use crate::options::to_time;

/// Greater than anything that a name can go on with, so that a prefix is a range and needs no pattern.
const BEYOND: char = char::MAX;

/// A row of `manifests` as a referrers listing needs it.
type ReferrerRow = (String, String, i64, Option<String>, Option<String>);

impl Catalog {
    /// Type, digest and size of a manifest.
    pub(crate) async fn manifest(
        &self,
        key: &Key,
        reference: &Reference,
    ) -> sqlx::Result<Option<Descriptor>> {
        let query = match reference {
            Reference::Digest(digest) => query_as(
                "SELECT digest, media_type, size FROM manifests
                 WHERE scope = $1 AND name = $2 AND digest = $3",
            )
            .bind(&key.scope)
            .bind(&key.name)
            .bind(digest.to_string()),
            Reference::Tag(tag) => query_as(
                "SELECT m.digest, m.media_type, m.size FROM tags AS t
                 JOIN manifests AS m ON m.scope = t.scope AND m.name = t.name AND m.digest = t.digest
                 WHERE t.scope = $1 AND t.name = $2 AND t.tag = $3",
            )
            .bind(&key.scope)
            .bind(&key.name)
            .bind(tag.as_str()),
        };
        let row: Option<(String, String, i64)> = query.fetch_optional(&self.readers).await?;
        row.map(|(digest, media_type, size)| Ok(Descriptor::new(media_type, decoded(&digest)?, size as u64)))
            .transpose()
    }

    /// The size of a blob that is linked into the repository.
    pub(crate) async fn blob(&self, key: &Key, digest: &Digest) -> sqlx::Result<Option<u64>> {
        let mut conn = self.readers.acquire().await?;
        blob_size(&mut conn, key, digest).await
    }

    /// The size of a blob that is linked into any repository of the same scope.
    pub(crate) async fn blob_anywhere(&self, key: &Key, digest: &Digest) -> sqlx::Result<Option<u64>> {
        let size = query_scalar("SELECT size FROM links WHERE scope = $1 AND digest = $2 LIMIT 1")
            .bind(&key.scope)
            .bind(digest.to_string())
            .fetch_optional(&self.readers)
            .await?;
        Ok(size.map(|size: i64| size as u64))
    }

    /// What `manifest` needs of the repository, as of now.
    pub(crate) async fn needed(&self, key: &Key, manifest: &Manifest) -> sqlx::Result<Needed> {
        let mut conn = self.readers.acquire().await?;
        needed(&mut conn, key, manifest).await
    }

    /// Whether anything was ever put into the repository.
    pub(crate) async fn exists(&self, key: &Key) -> sqlx::Result<bool> {
        let row: Option<i64> = query_scalar("SELECT 1 FROM repositories WHERE scope = $1 AND name = $2")
            .bind(&key.scope)
            .bind(&key.name)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_some())
    }

    /// The tags after `after`, in byte order.
    pub(crate) async fn tags(&self, key: &Key, after: &str, limit: i64) -> sqlx::Result<Vec<TagEntry>> {
        let rows: Vec<(String, String, Option<i64>)> = query_as(
            "SELECT tag, digest, pushed FROM tags WHERE scope = $1 AND name = $2 AND tag > $3 ORDER BY tag LIMIT $4",
        )
        .bind(&key.scope)
        .bind(&key.name)
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let entry = |(tag, digest, pushed): (String, String, Option<i64>)| {
            let (tag, digest) = (decoded(&tag)?, Some(decoded(&digest)?));
            Ok(TagEntry { tag, digest, pushed: pushed.map(to_time) })
        };
        rows.into_iter().map(entry).collect()
    }

    /// The referrers of `subject` whose digest comes after `after`, by digest.
    pub(crate) async fn referrers(
        &self,
        key: &Key,
        subject: &Digest,
        artifact_type: Option<&str>,
        (after, limit): (&str, i64),
    ) -> sqlx::Result<Vec<Descriptor>> {
        let rows: Vec<ReferrerRow> = query_as(
            "SELECT digest, media_type, size, artifact_type, annotations FROM manifests
             WHERE scope = $1 AND name = $2 AND subject = $3 AND digest > $4
               AND (CAST($5 AS TEXT) IS NULL OR artifact_type = $5)
             ORDER BY digest LIMIT $6",
        )
        .bind(&key.scope)
        .bind(&key.name)
        .bind(subject.to_string())
        .bind(after)
        .bind(artifact_type)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(referrer).collect()
    }

    /// The hosted repositories whose name begins with `prefix` and comes after `after`, in byte order.
    pub(crate) async fn hosted(
        &self,
        prefix: &str,
        after: &str,
        limit: i64,
    ) -> sqlx::Result<Vec<RepositoryEntry>> {
        let rows: Vec<String> = query_scalar(
            "SELECT name FROM repositories
             WHERE scope = $1 AND name >= $2 AND name < $3 AND name > $4 ORDER BY name LIMIT $5",
        )
        .bind(scope_text(&Scope::Hosted))
        .bind(prefix)
        .bind(format!("{prefix}{BEYOND}"))
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|name| Ok(RepositoryEntry { name: decoded(name)? })).collect()
    }

    /// Whether there is such an upload of this repository.
    pub(crate) async fn has_upload(&self, key: &Key, id: &str) -> sqlx::Result<bool> {
        let row: Option<i64> =
            query_scalar("SELECT 1 FROM uploads WHERE id = $1 AND scope = $2 AND name = $3")
                .bind(id)
                .bind(&key.scope)
                .bind(&key.name)
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.is_some())
    }

    /// All uploads.
    pub(crate) async fn uploads(&self) -> sqlx::Result<Vec<String>> {
        query_scalar("SELECT id FROM uploads").fetch_all(&self.readers).await
    }
}

fn referrer((digest, media_type, size, artifact_type, annotations): ReferrerRow) -> sqlx::Result<Descriptor> {
    let annotations = annotations
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
    let descriptor = Descriptor::new(media_type, decoded(&digest)?, size as u64);
    Ok(Descriptor { artifact_type, annotations, ..descriptor })
}
