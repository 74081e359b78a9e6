//! Whose a bucket is.
//!
//! What is in a bucket means something only to the catalog that put it there: another one would take it for left over and
//! remove it. So a document in the bucket says which catalog that is, and whether it is in use, which its process
//! confirms again and again. Only who has confirmed that it is still the owner writes or removes anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_store::{Error, Kind, Result};
use serde_json::{Value, json};

use super::bucket::{Bucket, Document};
use super::failure::failure;
use crate::catalog::{self, BucketRow, Catalog};
use crate::options::{Clock, to_seconds};

/// How long nobody else may take a bucket after its owner was heard of.
pub(super) const TERM: Duration = Duration::from_secs(60);

/// How often the owner is heard of.
pub(super) const RENEW: Duration = Duration::from_secs(20);

/// What the document says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Claim {
    /// Which catalog it is.
    owner: String,
    /// Which process has it open.
    process: String,
    /// The same for people.
    holder: String,
    /// When it was heard of last, in seconds since 1970; 0 once it has ended.
    renewed: i64,
}

impl Claim {
    fn read(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let text = |field: &str| value[field].as_str().map(str::to_owned);
        let (owner, process, holder) = (text("owner")?, text("process")?, text("holder")?);
        Some(Self { owner, process, holder, renewed: value["renewed"].as_i64()? })
    }

    fn write(&self) -> Vec<u8> {
        let Self { owner, process, holder, renewed } = self;
        json!({"owner": owner, "process": process, "holder": holder, "renewed": renewed})
            .to_string()
            .into_bytes()
    }

    /// Clocks differ, so a time that is to come counts as well.
    fn is_live(&self, now: i64) -> bool {
        (now - self.renewed).abs() < to_seconds(TERM)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nobody has been asked, or nobody answered.
    Unknown,
    /// Ours since that time.
    Ours(i64),
    /// Somebody else took it.
    Lost(String),
}

/// The sole use of a bucket.
pub(super) struct Owner {
    bucket: Arc<Bucket>,
    row: Mutex<BucketRow>,
    process: String,
    take_over: bool,
    clock: Clock,
    state: Mutex<State>,
    /// Whether what the document said before was looked at.
    taken: AtomicBool,
}

/// The row of the catalog for this bucket; a new one if there was none.
///
/// # Errors
/// [`Kind::Invalid`] if content of the catalog is in another one.
pub(super) async fn row(catalog: &Catalog, location: &str) -> Result<BucketRow> {
    let failed = |e| catalog::error("open storage", location, e);
    let known = catalog.bucket().await.map_err(failed)?;
    if let Some(known) = known {
        if known.location == location {
            return Ok(known);
        }
        if catalog.has_objects().await.map_err(failed)? {
            return Err(elsewhere(&known.location, location));
        }
    }
    let owner = format!("{:032x}", rand::random::<u128>());
    let row = BucketRow { owner, location: location.to_owned(), listed: false };
    catalog.set_bucket(&row).await.map_err(failed)?;
    Ok(row)
}

/// The error if a storage whose content is in a bucket is opened without it.
pub(crate) async fn refuse_without(catalog: &Catalog) -> Result<()> {
    let failed = |e| catalog::error("open storage", "storage", e);
    match catalog.bucket().await.map_err(failed)? {
        Some(row) if catalog.has_objects().await.map_err(failed)? => Err(elsewhere(&row.location, "none")),
        _ => Ok(()),
    }
}

fn elsewhere(known: &str, wanted: &str) -> Error {
    let detail = format!(
        "its content is in the bucket {known}, not in {wanted}; configure that one, or use another storage directory"
    );
    Error::new(Kind::Invalid, "open storage", "bucket", detail)
}

impl Owner {
    pub(super) fn new(bucket: Arc<Bucket>, row: BucketRow, take_over: bool, clock: Clock) -> Self {
        Self {
            bucket,
            row: Mutex::new(row),
            process: format!("{:032x}", rand::random::<u128>()),
            take_over,
            clock,
            state: Mutex::new(State::Unknown),
            taken: AtomicBool::new(false),
        }
    }

    pub(super) fn is_listed(&self) -> bool {
        self.row().listed
    }

    /// Everything that was in the bucket before is known from now on.
    pub(super) async fn set_listed(&self, catalog: &Catalog) -> Result<()> {
        let row = BucketRow { listed: true, ..self.row().clone() };
        let set = catalog.set_bucket(&row).await;
        set.map_err(|e| catalog::error("note bucket", &row.location, e))?;
        *self.row() = row;
        Ok(())
    }

    /// Refuses to write to a bucket that may be somebody else's by now.
    pub(super) fn check(&self) -> Result<()> {
        let detail = match &*self.state() {
            State::Ours(since) if self.clock.seconds() - since < to_seconds(TERM) => return Ok(()),
            State::Lost(holder) => format!("it is used by {holder} now; stop that, and start this one again"),
            State::Ours(_) | State::Unknown => "it does not answer, so nothing is changed there".to_owned(),
        };
        Err(Error::new(Kind::Unavailable, "use bucket", self.bucket.location(), detail))
    }

    /// Takes the bucket, or confirms that it is ours.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if it is another catalog's, [`Kind::Denied`] if the keys are refused, and in both cases trying again
    /// does not help; [`Kind::Unavailable`] if somebody uses it at present or it does not answer.
    pub(super) async fn take(&self) -> Result<()> {
        if let State::Lost(_) = &*self.state() {
            return self.check();
        }
        let document = self.bucket.owner().await.map_err(|e| self.failed(e))?;
        let now = self.clock.seconds();
        self.may_take(document.as_ref(), now)?;
        self.write(document, now).await?;
        // A store without conditions may have let two in: the last one is who it is.
        let found = self.bucket.owner().await.map_err(|e| self.failed(e))?;
        let found = found.and_then(|found| Claim::read(&found.bytes));
        if found.as_ref().is_none_or(|found| found.process != self.process) {
            return Err(self.lose(found));
        }
        *self.state() = State::Ours(now);
        self.taken.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn may_take(&self, document: Option<&Document>, now: i64) -> Result<()> {
        let Some(claim) = document.and_then(|document| Claim::read(&document.bytes)) else { return Ok(()) };
        if claim.process == self.process {
            return Ok(());
        }
        if self.taken.load(Ordering::Relaxed) {
            return Err(self.lose(Some(claim)));
        }
        // A process of this directory that was killed: the directory's lock says that there is no other.
        if claim.owner == self.row().owner {
            return Ok(());
        }
        let refused = |kind, detail| Err(Error::new(kind, "open storage", self.bucket.location(), detail));
        if claim.is_live(now) {
            let detail = format!(
                "{} is using this bucket; stop it and wait a minute, or choose another bucket or prefix",
                claim.holder
            );
            return refused(Kind::Unavailable, detail);
        }
        if self.take_over {
            tracing::warn!(
                bucket = self.bucket.location(),
                holder = claim.holder,
                "the bucket is taken over"
            );
            return Ok(());
        }
        let detail = format!(
            "this bucket belongs to another storage directory, last used by {}; choose another bucket or prefix, or set \
             take_over: true if that directory is gone for good, since what is not in the catalog of this one is \
             removed after a time",
            claim.holder
        );
        refused(Kind::Invalid, detail)
    }

    async fn write(&self, document: Option<Document>, renewed: i64) -> Result<()> {
        let claim = Claim {
            owner: self.row().owner.clone(),
            process: self.process.clone(),
            holder: holder(),
            renewed,
        };
        let version = document.map(|document| document.version);
        let replaced = self.bucket.replace_owner(version, claim.write().into()).await;
        replaced.map_err(|e| self.failed(e))
    }

    /// Says that the bucket is not in use any more, if it is ours. It stays ours.
    pub(super) async fn release(&self) -> Result<()> {
        if self.check().is_err() {
            return Ok(());
        }
        *self.state() = State::Unknown;
        let document = self.bucket.owner().await.map_err(|e| self.failed(e))?;
        let claim = document.as_ref().and_then(|document| Claim::read(&document.bytes));
        match claim {
            Some(claim) if claim.process == self.process => self.write(document, 0).await,
            _ => Ok(()),
        }
    }

    fn lose(&self, by: Option<Claim>) -> Error {
        let holder = by.map_or_else(|| "somebody else".to_owned(), |claim| claim.holder);
        let error = Error::new(
            Kind::Unavailable,
            "use bucket",
            self.bucket.location(),
            format!("{holder} has taken it"),
        );
        *self.state() = State::Lost(holder);
        error
    }

    fn failed(&self, error: object_store::Error) -> Error {
        use object_store::Error as Failed;
        let detail = match &error {
            Failed::PermissionDenied { .. } | Failed::Unauthenticated { .. } => {
                "the bucket refuses the access key: look at access_key, secret_key and region, and whether the key may \
                 read, write, list and delete there"
            }
            Failed::NotFound { .. } => {
                "there is no such bucket; make it first, and look at endpoint, region and style"
            }
            _ => return failure("use bucket", self.bucket.location(), error),
        };
        Error::new(Kind::Denied, "use bucket", self.bucket.location(), detail).caused_by(error)
    }

    fn row(&self) -> MutexGuard<'_, BucketRow> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who we are, for people who have to find us.
fn holder() -> String {
    let name = rustix::system::uname();
    format!("process {} on {}", std::process::id(), name.nodename().to_string_lossy())
}
