//! What is never evicted.

use ferry_oci::{Digest, Reference};
use sqlx::{SqliteConnection, query, query_as};

use super::{Catalog, Key, decoded};
use crate::images::ImagePlace;

impl Catalog {
    /// Pins an image; false if it was pinned.
    pub(crate) async fn pin(&self, key: &Key, reference: &Reference) -> sqlx::Result<bool> {
        let done = query(
            "INSERT INTO pins (scope, name, reference, since) VALUES ($1, $2, $3, $4)
             ON CONFLICT (scope, name, reference) DO NOTHING",
        )
        .bind(&key.scope)
        .bind(&key.name)
        .bind(reference.to_string())
        .bind(self.clock.seconds())
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Takes the pin from an image; false if it had none.
    pub(crate) async fn unpin(&self, key: &Key, reference: &Reference) -> sqlx::Result<bool> {
        let done = query("DELETE FROM pins WHERE scope = $1 AND name = $2 AND reference = $3")
            .bind(&key.scope)
            .bind(&key.name)
            .bind(reference.to_string())
            .execute(&self.writer)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// All pins.
    pub(crate) async fn pins(&self) -> sqlx::Result<Vec<ImagePlace>> {
        let rows: Vec<(String, String, String)> =
            query_as("SELECT scope, name, reference FROM pins ORDER BY scope, name, reference")
                .fetch_all(&self.readers)
                .await?;
        let pin = |(scope, name, reference): (String, String, String)| {
            let (scope, name) = Key { scope, name }.parse()?;
            Ok(ImagePlace { scope, name, reference: decoded(&reference)? })
        };
        rows.into_iter().map(pin).collect()
    }
}

/// Whether something keeps the manifest from being removed as if nobody wanted it.
pub(super) async fn is_pinned(conn: &mut SqliteConnection, key: &Key, digest: &Digest) -> sqlx::Result<bool> {
    let sql = concat!(
        "SELECT 1 FROM manifests AS r WHERE r.scope = $1 AND r.name = $2 AND r.digest = $3 AND ",
        pinned!(),
    );
    key.has(conn, sql, digest.to_string()).await
}
