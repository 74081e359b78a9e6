//! Images as those see them who look after a mirror: what there is, what stays whatever happens, what shall go.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferry_oci::{Digest, Name, Reference, Tag};
use ferry_store::{Cursor, Error, Kind, Page, PageRequest, Result, Scope, Told};
use tokio_util::sync::CancellationToken;

use crate::catalog::{self, Key};
use crate::repository::limit;
use crate::storage::Storage;
use crate::upkeep::{step, sweep};

/// How often it is tried to remove what somebody is opening at the same moment.
const TRIES: u32 = 50;

/// How long after each.
const PAUSE: Duration = Duration::from_millis(20);

/// Where an image is, and what it is called there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImagePlace {
    /// On whose behalf it is kept.
    pub scope: Scope,
    /// The repository.
    pub name: Name,
    /// Its tag, or its digest.
    pub reference: Reference,
}

/// A tag, or a manifest without tag that no other manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// On whose behalf it is kept.
    pub scope: Scope,
    /// The repository.
    pub name: Name,
    /// The tag, if it has one.
    pub tag: Option<Tag>,
    /// The manifest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Bytes of it and of what it names, as far as they are here; what images share counts for each of them.
    pub bytes: u64,
    /// The last use, as far as it was written down: up to [`crate::StorageOptions::use_resolution`] too early.
    pub used: SystemTime,
    /// When the upstream last confirmed the tag, or when it was pushed.
    pub confirmed: Option<SystemTime>,
    /// It is never evicted.
    pub pinned: bool,
    pub(crate) cursor: ImageCursor,
}

/// A place in the listing of images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageCursor {
    pub(crate) scope: String,
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) tag: String,
}

impl ImageCursor {
    fn parse(text: &str) -> Option<Self> {
        let [scope, name, digest, tag] = serde_json::from_str::<[String; 4]>(text).ok()?;
        Some(Self { scope, name, digest, tag })
    }

    fn to_text(&self) -> String {
        serde_json::json!([self.scope, self.name, self.digest, self.tag]).to_string()
    }
}

/// Why an image is not removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no such image.
    Absent,
    /// It is pinned.
    Pinned,
    /// Another image needs it.
    Held,
    /// Somebody is opening it.
    Busy,
}

/// What [`Storage::drop_image`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Manifests of the repository; none if only a tag went, because another one still leads to the image.
    pub manifests: u64,
    /// Blobs of the repository.
    pub links: u64,
    /// Bytes of files that nothing else needed.
    pub bytes: u64,
}

fn failed(operation: &'static str, place: &ImagePlace) -> impl Fn(sqlx::Error) -> Error {
    let subject = format!("{} {}", place.name, place.reference);
    move |e| catalog::error(operation, &subject, e)
}

impl Storage {
    /// Keeps an image from ever being evicted or collected as untagged, whether it is here yet or not. A pinned tag keeps
    /// what it points at, also after it has moved. False if it was pinned before.
    ///
    /// # Errors
    /// Whatever the catalog says.
    pub async fn pin(&self, place: &ImagePlace) -> Result<bool> {
        let key = Key::new(&place.scope, &place.name);
        self.inner.catalog.pin(&key, &place.reference).await.map_err(failed("pin image", place))
    }

    /// Takes a pin away. False if there was none.
    ///
    /// # Errors
    /// Whatever the catalog says.
    pub async fn unpin(&self, place: &ImagePlace) -> Result<bool> {
        let key = Key::new(&place.scope, &place.name);
        self.inner.catalog.unpin(&key, &place.reference).await.map_err(failed("unpin image", place))
    }

    /// What is pinned.
    ///
    /// # Errors
    /// Whatever the catalog says.
    pub async fn pins(&self) -> Result<Vec<ImagePlace>> {
        self.inner.catalog.pins().await.map_err(|e| catalog::error("list pins", "storage", e))
    }

    /// The images that are here, of one scope if it is given; grouped by repository, in no order that means anything.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if the cursor is none of this listing; whatever the catalog says.
    pub async fn images(&self, scope: Option<&Scope>, request: PageRequest) -> Result<Page<Image>> {
        let after = match &request.after {
            Some(cursor) => ImageCursor::parse(cursor.as_str()).ok_or_else(|| {
                Error::new(Kind::Invalid, "list images", "cursor", "it is none of this listing")
            })?,
            None => ImageCursor::default(),
        };
        let most = limit(&request);
        let images = self.inner.catalog.images(&after, scope, most + 1).await;
        let mut images = images.map_err(|e| catalog::error("list images", "storage", e))?;
        let more = images.len() as i64 > most;
        images.truncate(most as usize);
        let next = images.last().filter(|_| more).map(|last| Cursor::after(last.cursor.to_text()));
        Ok(Page { items: images, next, told: Told::default() })
    }

    /// Removes an image: a tag, and what it points at unless something else leads there, or a manifest with all its tags;
    /// with children, referrers and blobs that are only there for its sake. Whoever reads them reads on to the end.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it is not here; [`Kind::Denied`] if it is pinned, or another image needs it;
    /// [`Kind::Unavailable`] if it is in constant use or cannot be judged yet; whatever the catalog or the file system says.
    pub async fn drop_image(&self, place: &ImagePlace, stop: &CancellationToken) -> Result<Dropped> {
        const OPERATION: &str = "drop image";
        let key = Key::new(&place.scope, &place.name);
        let refuse = |kind, why: &str| Err(Error::new(kind, OPERATION, &place.reference, why));
        if self.inner.prepare(stop).await?.contains(&key) {
            return refuse(
                Kind::Unavailable,
                "a manifest beside it cannot be read, so it is unknown what is needed",
            );
        }
        for _ in 0..TRIES {
            match self.try_to_drop(&key, place).await? {
                Ok((manifests, links)) => {
                    let (_, bytes) = sweep(&self.inner, stop).await?;
                    return Ok(Dropped { manifests, links, bytes });
                }
                Err(Refused::Absent) => return Err(Error::not_found(OPERATION, &place.reference)),
                Err(Refused::Pinned) => return refuse(Kind::Denied, "it is pinned; unpin it first"),
                Err(Refused::Held) => {
                    return refuse(Kind::Denied, "another image needs it, or it is pinned by a tag");
                }
                Err(Refused::Busy) => tokio::time::sleep(PAUSE).await,
            }
        }
        refuse(Kind::Unavailable, "it is being used all the time; try again")
    }

    async fn try_to_drop(
        &self,
        key: &Key,
        place: &ImagePlace,
    ) -> Result<std::result::Result<(u64, u64), Refused>> {
        let (inner, key, place) = (Arc::clone(&self.inner), key.clone(), place.clone());
        step(async move {
            let mut claims = HashMap::new();
            let claim = |digest: &Digest| inner.claim_into(&mut claims, digest, i64::MAX);
            let dropped = inner.catalog.drop_image(&key, &place.reference, claim).await;
            dropped.map_err(failed("drop image", &place))
        })
        .await
    }
}
