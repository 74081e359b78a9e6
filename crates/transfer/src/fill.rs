//! Filling a staged blob from its source, over one connection or several.

use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ferry_oci::Descriptor;
use ferry_store::{Error, Kind, Partial, Result, Side};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::lanes::Seat;
use crate::reader::{Origin, Reader};
use crate::wants::Wants;
use crate::work::Work;

/// So many bytes are written to staging at once: network chunks are small, and each write costs a thread hop.
const BATCH: usize = 256 * 1024;
/// So many are written rather than kept waiting while the network has nothing: a kill loses less.
const EARLY: usize = 64 * 1024;

/// How often it is looked whether more connections would be of use.
const TICK: Duration = Duration::from_millis(100);

/// Fetches what `partial` lacks and compares the whole with its digest. `slots` bounds the connections of the run; what is
/// waited for comes earlier.
pub(crate) async fn fill(
    partial: &dyn Partial,
    origin: &Origin,
    blob: &Descriptor,
    slots: &Arc<Semaphore>,
    wants: &Wants,
) -> Result<()> {
    if partial.is_sealed() {
        return Ok(());
    }
    let work = Mutex::new(Work::new(partial.extents().gaps(0..blob.size)));
    Fill { partial, origin, blob, work, wants }.run(slots).await?;
    partial.seal(&blob.digest).await.map_err(|error| match error.kind() {
        Kind::DigestMismatch => error.on(Side::Source),
        _ => error,
    })
}

struct Fill<'a> {
    partial: &'a dyn Partial,
    origin: &'a Origin,
    blob: &'a Descriptor,
    work: Mutex<Work>,
    wants: &'a Wants,
}

/// How a lane ended, and whether it was the first one.
type Ended = (bool, Result<()>);

impl Fill<'_> {
    async fn run(&self, slots: &Arc<Semaphore>) -> Result<()> {
        let mut lanes: FuturesUnordered<BoxFuture<'_, Ended>> = FuturesUnordered::new();
        let mut first_runs = false;
        loop {
            if !first_runs && self.work().has_unclaimed() {
                first_runs = true;
                lanes.push(self.first_lane().map(|result| (true, result)).boxed());
            }
            while self.work().is_worth_sharing()
                && let Some(seat) = self.origin.lanes.seat(slots)
                && let Some(part) = self.work().take_part()
            {
                lanes.push(self.extra_lane(part, seat).map(|result| (false, result)).boxed());
            }
            tokio::select! {
                ended = lanes.next() => match ended {
                    None => return Ok(()),
                    Some((true, result)) => {
                        result?;
                        first_runs = false;
                    }
                    Some((false, Ok(()))) => {}
                    Some((false, Err(error))) => self.lane_failed(error)?,
                },
                at = self.wants.next() => {
                    if let Some(seat) = self.origin.lanes.urgent_seat(slots)
                        && let Some(part) = self.work().take_wanted(at)
                    {
                        lanes.push(self.extra_lane(part, seat).map(|result| (false, result)).boxed());
                    }
                }
                () = sleep(TICK) => {}
            }
            self.origin.lanes.tick(Instant::now());
        }
    }

    /// The lane that a blob always has: it ends when nothing is left to ask for.
    async fn first_lane(&self) -> Result<()> {
        loop {
            // A source that begins where it likes is read once, through to the end.
            let ranged = self.origin.lanes.has_ranges();
            let Some(part) = self.work().take_first(ranged) else { return Ok(()) };
            self.fetch(part, None).await?;
        }
    }

    /// A lane for one part, after which others may have its place.
    async fn extra_lane(&self, part: Range<u64>, mut seat: Seat) -> Result<()> {
        let (length, begun) = (part.end - part.start, Instant::now());
        let result = self.fetch(part, Some(&mut seat)).await;
        let mut work = self.work();
        work.part_ended();
        if result.is_ok() {
            work.learn_rate(length, begun.elapsed());
        }
        result
    }

    /// What an extra lane meets is no failure of the blob: the first lane will come to the same bytes.
    fn lane_failed(&self, error: Error) -> Result<()> {
        match (error.side(), error.kind()) {
            (Some(Side::Source), Kind::DigestMismatch) | (None, _) => Err(error),
            _ => {
                tracing::debug!(digest = %self.blob.digest, %error, "fewer connections from now on");
                self.origin.lanes.overloaded(Instant::now());
                Ok(())
            }
        }
    }

    /// Brings a part; what does not come is unclaimed again.
    async fn fetch(&self, part: Range<u64>, seat: Option<&mut Seat>) -> Result<()> {
        let is_first = seat.is_none();
        let mut batch = Batch { partial: self.partial, at: part.start, bytes: BytesMut::new() };
        let result = self.bring(&mut batch, part.clone(), seat).await;
        let flushed = batch.flush().await;
        let mut work = self.work();
        let end = if is_first { work.first_ended() } else { part.end };
        if batch.at < end {
            work.give_back(batch.at..end);
        }
        result.and(flushed)
    }

    async fn bring(
        &self,
        batch: &mut Batch<'_>,
        part: Range<u64>,
        mut seat: Option<&mut Seat>,
    ) -> Result<()> {
        let ranged = self.origin.lanes.has_ranges();
        let begun = part.start;
        let mut reader = Reader::new(self.origin, self.blob, part);
        let skipped = reader.begin().await?;
        if skipped > 0 && (ranged || seat.is_some()) {
            // Nothing was read yet: let the first lane read it all at once.
            return Ok(());
        }
        loop {
            let next = {
                let mut next = pin!(reader.next());
                match next.as_mut().now_or_never() {
                    Some(next) => next,
                    None => {
                        // The very first bytes do not wait: somebody may be reading.
                        let enough = if batch.at == begun { 1 } else { EARLY };
                        batch.write_from(enough).await?;
                        next.await
                    }
                }
            };
            let Some(bytes) = next? else { return Ok(()) };
            batch.push(bytes).await?;
            match seat.as_mut() {
                Some(seat) => seat.started(),
                // Others may have taken over the rest of what it asked for.
                None if self.work().first_reached(batch.end()) => return Ok(()),
                None => {}
            }
        }
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes on their way into staging.
struct Batch<'a> {
    partial: &'a dyn Partial,
    /// Where the first of `bytes` belongs; what is before is written.
    at: u64,
    bytes: BytesMut,
}

impl Batch<'_> {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    async fn push(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes.extend_from_slice(&bytes);
        self.write_from(BATCH).await
    }

    async fn write_from(&mut self, length: usize) -> Result<()> {
        if self.bytes.len() >= length { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = self.bytes.split().freeze();
        let end = self.at + bytes.len() as u64;
        self.partial.write_at(self.at, bytes).await?;
        self.at = end;
        Ok(())
    }
}
