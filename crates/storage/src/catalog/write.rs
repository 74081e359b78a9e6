use ferry_oci::{Digest, Manifest, Tag};
use sqlx::{Sqlite, SqliteConnection, Transaction, query};

use super::{Catalog, Key, Needed, needed, needs};

impl Catalog {
    /// Takes the write lock at once: a transaction that reads first and writes later could find it taken.
    pub(super) async fn transaction(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    /// Links a blob into the repository, and forgets the upload that it came from.
    pub(crate) async fn link(
        &self,
        key: &Key,
        digest: &Digest,
        size: u64,
        upload: Option<&str>,
    ) -> sqlx::Result<()> {
        let mut transaction = self.transaction().await?;
        make_repository(&mut transaction, key).await?;
        query(
            "INSERT INTO links (scope, name, digest, size) VALUES ($1, $2, $3, $4)
             ON CONFLICT (scope, name, digest) DO UPDATE SET size = excluded.size",
        )
        .bind(&key.scope)
        .bind(&key.name)
        .bind(digest.to_string())
        .bind(size as i64)
        .execute(&mut *transaction)
        .await?;
        mark_placed(&mut transaction, digest, self.clock.seconds()).await?;
        if let Some(id) = upload {
            query("DELETE FROM uploads WHERE id = $1").bind(id).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// Removes a link; false if there was none.
    pub(crate) async fn unlink(&self, key: &Key, digest: &Digest) -> sqlx::Result<bool> {
        let removed = query("DELETE FROM links WHERE scope = $1 AND name = $2 AND digest = $3")
            .bind(&key.scope)
            .bind(&key.name)
            .bind(digest.to_string())
            .execute(&self.writer)
            .await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Adds a manifest whose bytes are in place and, if given, points the tag at it; nothing happens if the repository
    /// lacks something that it needs.
    pub(crate) async fn put_manifest(
        &self,
        key: &Key,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> sqlx::Result<Needed> {
        let mut transaction = self.transaction().await?;
        let needed = needed(&mut transaction, key, manifest).await?;
        if needed.is_ok() {
            let now = self.clock.seconds();
            add_manifest(&mut transaction, key, manifest, now).await?;
            if let Some(tag) = tag {
                point_tag(&mut transaction, key, tag, (&manifest.digest(), now)).await?;
            }
            transaction.commit().await?;
        }
        Ok(needed)
    }

    /// Removes a tag; false if there was none.
    pub(crate) async fn delete_tag(&self, key: &Key, tag: &Tag) -> sqlx::Result<bool> {
        let mut transaction = self.transaction().await?;
        mark_untagged(&mut transaction, key, tag, self.clock.seconds()).await?;
        let removed = query("DELETE FROM tags WHERE scope = $1 AND name = $2 AND tag = $3")
            .bind(&key.scope)
            .bind(&key.name)
            .bind(tag.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Removes a manifest with the tags on it; false if there was none.
    pub(crate) async fn delete_manifest(&self, key: &Key, digest: &Digest) -> sqlx::Result<bool> {
        let removed = query("DELETE FROM manifests WHERE scope = $1 AND name = $2 AND digest = $3")
            .bind(&key.scope)
            .bind(&key.name)
            .bind(digest.to_string())
            .execute(&self.writer)
            .await?;
        Ok(removed.rows_affected() > 0)
    }

    /// Binds an upload to its repository.
    pub(crate) async fn add_upload(&self, key: &Key, id: &str) -> sqlx::Result<()> {
        query("INSERT INTO uploads (id, scope, name) VALUES ($1, $2, $3)")
            .bind(id)
            .bind(&key.scope)
            .bind(&key.name)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Forgets an upload.
    pub(crate) async fn remove_upload(&self, id: &str) -> sqlx::Result<()> {
        query("DELETE FROM uploads WHERE id = $1").bind(id).execute(&self.writer).await?;
        Ok(())
    }
}

/// Adds a manifest whose bytes are in place, and what it names.
pub(super) async fn add_manifest(
    conn: &mut SqliteConnection,
    key: &Key,
    manifest: &Manifest,
    now: i64,
) -> sqlx::Result<()> {
    make_repository(conn, key).await?;
    insert_manifest(conn, key, manifest).await?;
    let digest = manifest.digest();
    mark_placed(conn, &digest, now).await?;
    needs::list(conn, &digest, &needs::named(manifest)).await
}

async fn make_repository(conn: &mut SqliteConnection, key: &Key) -> sqlx::Result<()> {
    query("INSERT INTO repositories (scope, name) VALUES ($1, $2) ON CONFLICT (scope, name) DO NOTHING")
        .bind(&key.scope)
        .bind(&key.name)
        .execute(conn)
        .await?;
    Ok(())
}

async fn insert_manifest(conn: &mut SqliteConnection, key: &Key, manifest: &Manifest) -> sqlx::Result<()> {
    let shown = manifest.referrer_descriptor();
    let annotations = shown.annotations.map(|annotations| serde_json::json!(annotations).to_string());
    // The same bytes may come again under another media type, if they do not name their own: the last one counts.
    query(
        "INSERT INTO manifests (scope, name, digest, media_type, size, subject, artifact_type, annotations)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (scope, name, digest) DO UPDATE SET
           media_type = excluded.media_type, size = excluded.size, subject = excluded.subject,
           artifact_type = excluded.artifact_type, annotations = excluded.annotations",
    )
    .bind(&key.scope)
    .bind(&key.name)
    .bind(manifest.digest().to_string())
    .bind(manifest.media_type())
    .bind(shown.size as i64)
    .bind(manifest.subject().map(|subject| subject.digest.to_string()))
    .bind(shown.artifact_type)
    .bind(annotations)
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that content was put in place: that is a use, too.
async fn mark_placed(conn: &mut SqliteConnection, digest: &Digest, now: i64) -> sqlx::Result<()> {
    query(
        "UPDATE contents SET used = $1, placed = CASE WHEN placed = 0 THEN $1 ELSE placed END WHERE digest = $2",
    )
    .bind(now)
    .bind(digest.to_string())
    .execute(conn)
    .await?;
    Ok(())
}

/// A tag is taken from what it points at: the age of an untagged manifest counts from here.
async fn mark_untagged(conn: &mut SqliteConnection, key: &Key, tag: &Tag, now: i64) -> sqlx::Result<()> {
    query(
        "UPDATE contents SET used = $1
         WHERE digest = (SELECT digest FROM tags WHERE scope = $2 AND name = $3 AND tag = $4)",
    )
    .bind(now)
    .bind(&key.scope)
    .bind(&key.name)
    .bind(tag.as_str())
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the tag from what it points at and points it at a manifest that is there. No upstream has confirmed that.
pub(super) async fn point_tag(
    conn: &mut SqliteConnection,
    key: &Key,
    tag: &Tag,
    (digest, now): (&Digest, i64),
) -> sqlx::Result<()> {
    mark_untagged(conn, key, tag, now).await?;
    query(
        "INSERT INTO tags (scope, name, tag, digest, pushed) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (scope, name, tag) DO UPDATE SET
           digest = excluded.digest, pushed = excluded.pushed, confirmed = NULL, withdrawn = NULL",
    )
    .bind(&key.scope)
    .bind(&key.name)
    .bind(tag.as_str())
    .bind(digest.to_string())
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}
