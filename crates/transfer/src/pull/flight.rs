//! Blobs on their way from the upstream into the cache.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::{Descriptor, Digest, Name};
use ferry_store::{ByteRange, Error, Kind, Partial, Repository, Result, Side};
use futures_util::FutureExt;
use tokio::sync::watch;

use super::primed::Primed;
use super::tasks::stopped;
use super::{FlightFigures, Pulled};
use crate::reader::Origin;
use crate::spool::Spool;
use crate::wants::Wants;

/// What a blob's bytes are called where nobody says.
const BYTES: &str = "application/octet-stream";

type Key = (Name, Digest);

/// The flights under way: one for each blob and repository. A blob that several repositories want is fetched once, after
/// the upstream has confirmed it in each of them.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Arc<Flight>>>);

/// A blob on its way. Its task belongs to no reader.
pub(super) struct Flight {
    name: Name,
    digest: Digest,
    status: watch::Sender<Status>,
    readers: AtomicUsize,
}

#[derive(Default)]
struct Status {
    opened: Option<Opened>,
    landed: Option<Landed>,
}

/// How the blob can be read.
#[derive(Clone)]
pub(super) enum Opened {
    /// From the cache.
    Kept,
    /// From staging, as it arrives.
    Staged(Arc<Room>, Descriptor),
    /// From the upstream, by each reader for itself.
    Unkept(Origin, Descriptor),
}

/// How a flight ended.
#[derive(Clone)]
pub(super) enum Landed {
    /// Everything is there and verified.
    Whole,
    /// There is no room for it.
    Unkept,
    /// The upstream failed, or sent something else.
    Failed(Arc<Error>),
}

/// The place of a blob in staging. It is given back when nobody reads from it any more, if it is of no use.
pub(super) struct Room {
    pub(super) partial: Arc<dyn Partial>,
    /// Whoever fills it looks here.
    pub(super) wants: Arc<Wants>,
    useless: AtomicBool,
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.useless.load(Ordering::Relaxed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let partial = Arc::clone(&self.partial);
            runtime.spawn(async move {
                if let Err(error) = partial.discard().await {
                    tracing::warn!(%error, "staged bytes stay behind");
                }
            });
        }
    }
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        // A panic elsewhere cannot leave the map half-written, so the poison is of no account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<Arc<Flight>> {
        self.lock().get(key).cloned()
    }

    /// The flight of the blob to this repository, which begins unless it is under way.
    pub(super) fn join(pulled: &Pulled, digest: &Digest) -> Arc<Flight> {
        let flights = &pulled.core.flights;
        let key = (pulled.name.clone(), *digest);
        let flight = {
            let mut under_way = flights.lock();
            if let Some(flight) = under_way.get(&key) {
                return Arc::clone(flight);
            }
            let (status, readers) = (watch::Sender::default(), AtomicUsize::default());
            let flight = Arc::new(Flight { name: key.0.clone(), digest: key.1, status, readers });
            under_way.insert(key.clone(), Arc::clone(&flight));
            flight
        };
        let run = Run { flights: Arc::clone(flights), key, flight: Arc::clone(&flight) };
        let pulled = pulled.clone();
        pulled.core.clone().tasks.spawn(async move {
            let landed = run.flight.fly(&pulled).await;
            run.over(landed);
        });
        flight
    }

    pub(super) fn is_under_way(&self, name: &Name, digest: &Digest) -> bool {
        self.lock().contains_key(&(name.clone(), *digest))
    }

    /// The size of a blob that is on its way to this repository.
    pub(super) fn size(&self, name: &Name, digest: &Digest) -> Option<u64> {
        self.get(&(name.clone(), *digest))?.figures().size
    }

    pub(super) fn figures(&self) -> Vec<FlightFigures> {
        let under_way: Vec<_> = self.lock().values().cloned().collect();
        under_way.iter().map(|flight| flight.figures()).collect()
    }
}

/// The task of a flight. When it ends, in whatever way, the flight is over.
struct Run {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
}

impl Run {
    /// First it is over, then those who wait are told: whoever asks again begins another one.
    fn over(&self, landed: Landed) {
        self.flights.lock().remove(&self.key);
        self.flight.status.send_modify(|status| status.landed = Some(landed));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.flight.status.borrow().landed.is_none() {
            self.over(Landed::Failed(Arc::new(stopped())));
        }
    }
}

impl Flight {
    /// How the blob can be read, once that is known.
    pub(super) async fn opened(&self) -> std::result::Result<Opened, Arc<Error>> {
        let mut status = self.status.subscribe();
        // The sender lives as long as `self`.
        match status.wait_for(|status| status.opened.is_some() || status.landed.is_some()).await.as_deref() {
            Ok(Status { opened: Some(opened), .. }) => Ok(opened.clone()),
            Ok(Status { landed: Some(Landed::Failed(error)), .. }) => Err(Arc::clone(error)),
            _ => Err(Arc::new(stopped())),
        }
    }

    /// How it ended, once it has.
    pub(super) async fn landed(&self) -> Landed {
        let mut status = self.status.subscribe();
        let landed = status.wait_for(|status| status.landed.is_some()).await;
        let landed = landed.ok().and_then(|status| status.landed.clone());
        landed.unwrap_or_else(|| Landed::Failed(Arc::new(stopped())))
    }

    pub(super) fn reader_comes(&self) {
        self.readers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn reader_leaves(&self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    fn figures(&self) -> FlightFigures {
        let (size, present) = match &self.status.borrow().opened {
            Some(Opened::Staged(room, blob)) => (Some(blob.size), room.partial.extents().len()),
            Some(Opened::Unkept(_, blob)) => (Some(blob.size), 0),
            Some(Opened::Kept) | None => (None, 0),
        };
        let (repository, digest, readers) = (self.name.clone(), self.digest, self.readers());
        FlightFigures { repository, digest, size, present, readers }
    }

    fn tell(&self, opened: Opened) {
        self.status.send_modify(|status| status.opened = Some(opened));
    }

    async fn fly(&self, pulled: &Pulled) -> Landed {
        let (origin, blob) = match self.ask(pulled).await {
            Ok(Some(asked)) => asked,
            Ok(None) => {
                self.tell(Opened::Kept);
                return Landed::Whole;
            }
            Err(error) => return Landed::Failed(Arc::new(error)),
        };
        let Some(spool) = pulled.core.spools.spool(&blob).await else {
            self.tell(Opened::Unkept(origin, blob));
            return Landed::Unkept;
        };
        let (partial, wants) = (Arc::clone(&spool.partial), Arc::clone(&spool.wants));
        let room = Arc::new(Room { partial, wants, useless: AtomicBool::new(false) });
        let landed = {
            let mut landing = pin!(self.land(pulled, &spool, (&origin, &blob)));
            // It begins to fill before anybody else can: the answer to its question is at hand.
            let landed = landing.as_mut().now_or_never();
            self.tell(Opened::Staged(Arc::clone(&room), blob.clone()));
            match landed {
                Some(landed) => landed,
                None => landing.await,
            }
        };
        if matches!(landed, Landed::Unkept) {
            room.useless.store(true, Ordering::Relaxed);
        }
        // Without the bytes of a flight that failed there would be nothing to go on from.
        pulled.core.spools.close(&self.digest, spool, false).await;
        landed
    }

    /// Lets the upstream confirm that this repository holds the blob, in one request. `None` if the cache can show it now.
    async fn ask(&self, pulled: &Pulled) -> Result<Option<(Origin, Descriptor)>> {
        let digest = &self.digest;
        if pulled.cached.stat(digest).await.is_ok_and(|size| size.is_some()) {
            // Another flight has ended since somebody looked.
            return Ok(None);
        }
        let (repository, size): (Arc<dyn Repository>, u64) = if pulled.has_some_of(digest).await {
            let size = pulled.confirmed_size(digest).await?;
            let size = size.ok_or_else(|| Error::not_found("read blob", digest))?;
            if pulled.cached.stat(digest).await.is_ok_and(|size| size.is_some()) {
                return Ok(None);
            }
            (Arc::clone(&pulled.upstream), size)
        } else {
            let opened = pulled.upstream.blob(digest, ByteRange::ALL).await?;
            let size = opened.size;
            (Primed::new(Arc::clone(&pulled.upstream), opened), size)
        };
        Ok(Some((pulled.core.origin(repository), Descriptor::new(BYTES, *digest, size))))
    }

    /// Brings what is missing, and makes the whole a blob of the cache.
    async fn land(&self, pulled: &Pulled, spool: &Spool, (origin, blob): (&Origin, &Descriptor)) -> Landed {
        match spool.fill(origin, blob, &pulled.core.slots).await {
            Ok(()) => {}
            Err(error) if error.side() == Some(Side::Source) => {
                if error.kind() == Kind::DigestMismatch {
                    pulled.core.spools.forget(&self.digest);
                }
                return Landed::Failed(Arc::new(error));
            }
            Err(error) => {
                tracing::warn!(%error, "a blob is passed on without being kept");
                return Landed::Unkept;
            }
        }
        if let Err(error) = pulled.cached.adopt(&self.digest, &*spool.partial).await {
            // It stays in staging, from where the next who asks for it is served.
            tracing::warn!(%error, "a blob is not kept");
        }
        Landed::Whole
    }
}
