//! Which contents are in the bucket, and which bucket that is.

use ferry_oci::Digest;
use sqlx::{query, query_as, query_scalar};

use super::Catalog;

/// The bucket of a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketRow {
    /// How the catalog shows itself in the bucket.
    pub(crate) owner: String,
    /// Which bucket it is.
    pub(crate) location: String,
    /// Whether everything that was there before is known.
    pub(crate) listed: bool,
}

impl Catalog {
    /// The size of content that is in the bucket, and since when that is known.
    pub(crate) async fn object(&self, digest: &Digest) -> sqlx::Result<Option<(u64, i64)>> {
        let row: Option<(i64, i64)> = query_as("SELECT size, stored FROM objects WHERE digest = $1")
            .bind(digest.to_string())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.map(|(size, stored)| (size as u64, stored)))
    }

    /// Notes that objects are in the bucket, whole; what was known of them stays if it is the same.
    pub(crate) async fn add_objects(&self, objects: &[(Digest, u64)]) -> sqlx::Result<()> {
        let mut transaction = self.transaction().await?;
        let now = self.clock.seconds();
        for (digest, size) in objects {
            query(
                "INSERT INTO objects (digest, size, stored) VALUES ($1, $2, $3)
                 ON CONFLICT (digest) DO UPDATE SET size = excluded.size, stored = excluded.stored
                 WHERE objects.size <> excluded.size",
            )
            .bind(digest.to_string())
            .bind(*size as i64)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }

    /// Notes that an object is not in the bucket any more.
    pub(crate) async fn forget_object(&self, digest: &Digest) -> sqlx::Result<()> {
        query("DELETE FROM objects WHERE digest = $1").bind(digest.to_string()).execute(&self.writer).await?;
        Ok(())
    }

    /// Whether anything is in the bucket.
    pub(crate) async fn has_objects(&self) -> sqlx::Result<bool> {
        let row: Option<i64> =
            query_scalar("SELECT 1 FROM objects LIMIT 1").fetch_optional(&self.readers).await?;
        Ok(row.is_some())
    }

    /// The bucket, if there ever was one.
    pub(crate) async fn bucket(&self) -> sqlx::Result<Option<BucketRow>> {
        let row: Option<(String, String, i64)> =
            query_as("SELECT owner, location, listed FROM bucket WHERE id = 1")
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.map(|(owner, location, listed)| BucketRow { owner, location, listed: listed != 0 }))
    }

    /// From now on this is the bucket.
    pub(crate) async fn set_bucket(&self, bucket: &BucketRow) -> sqlx::Result<()> {
        query(
            "INSERT INTO bucket (id, owner, location, listed) VALUES (1, $1, $2, $3)
             ON CONFLICT (id) DO UPDATE SET
               owner = excluded.owner, location = excluded.location, listed = excluded.listed",
        )
        .bind(&bucket.owner)
        .bind(&bucket.location)
        .bind(i64::from(bucket.listed))
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}
