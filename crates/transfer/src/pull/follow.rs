//! Reading a blob while it is fetched.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_oci::{Descriptor, Hasher};
use ferry_store::{ByteStream, Partial, Result};
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use super::flight::{Flight, Landed, Room};
use super::tasks::again;
use super::through::{shown_unverified, through};
use crate::reader::Origin;

/// So many bytes are read from staging at once.
const READ: u64 = 256 * 1024;

/// So many if many read the blob: thousands of slow readers must fit into memory.
const READ_OF_MANY: u64 = 32 * 1024;

/// More are many.
const FEW: usize = 16;

/// After so long a reader says once more what it waits for.
const AGAIN: Duration = Duration::from_secs(1);

/// What a reader follows.
pub(super) struct Followed {
    pub(super) flight: Arc<Flight>,
    pub(super) room: Arc<Room>,
    /// Where to go on if the blob cannot be kept.
    pub(super) origin: Origin,
    pub(super) blob: Descriptor,
}

/// The bytes of `range` as they arrive, the last ones of the blob when it is verified.
pub(super) fn follow(followed: Followed, range: Range<u64>) -> ByteStream {
    followed.flight.reader_comes();
    let whole = range == (0..followed.blob.size);
    let follower = Follower { followed, at: range.start, end: range.end, whole, rest: None };
    Box::pin(stream::try_unfold(follower, Follower::next))
}

struct Follower {
    followed: Followed,
    at: u64,
    end: u64,
    /// Whether it reads all of the blob.
    whole: bool,
    /// What comes from elsewhere because the blob cannot be kept.
    rest: Option<ByteStream>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.followed.flight.reader_leaves();
    }
}

impl Follower {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        loop {
            if let Some(rest) = &mut self.rest {
                let next = rest.next().await.transpose()?;
                return Ok(next.map(|bytes| (bytes, self)));
            }
            if self.at == self.end && (self.end < self.followed.blob.size || self.partial().is_sealed()) {
                return Ok(None);
            }
            let ready = self.ready();
            if self.at < ready {
                let bytes = self.read(ready).await?;
                return Ok(Some((bytes, self)));
            }
            self.wait().await?;
        }
    }

    fn partial(&self) -> &dyn Partial {
        &*self.followed.room.partial
    }

    /// Up to where there are bytes that may be shown.
    fn ready(&self) -> u64 {
        if self.partial().is_sealed() {
            return self.end;
        }
        let extents = self.partial().extents();
        let there =
            extents.iter().find(|extent| extent.contains(&self.at)).map_or(self.at, |extent| extent.end);
        there.min(self.end).min(shown_unverified(self.followed.blob.size))
    }

    async fn read(&mut self, ready: u64) -> Result<Bytes> {
        let most = if self.followed.flight.readers() > FEW { READ_OF_MANY } else { READ };
        let length = most.min(ready - self.at) as usize;
        match self.partial().read_at(self.at, length).await {
            Ok(bytes) => {
                self.at += bytes.len() as u64;
                Ok(bytes)
            }
            // It was discarded a moment ago, most likely because it is wrong; the flight knows.
            Err(error) => match self.followed.flight.landed().await {
                Landed::Failed(cause) => Err(again(&cause)),
                Landed::Whole | Landed::Unkept => Err(error),
            },
        }
    }

    /// Waits until there is more to read, or what there is comes from elsewhere.
    async fn wait(&mut self) -> Result<()> {
        let size = self.followed.blob.size;
        // Bytes that are held back may be there already.
        let wanted = if self.at < shown_unverified(size) { self.at } else { size };
        self.followed.room.wants.want(wanted);
        tokio::select! {
            () = self.partial().changed(wanted) => {}
            _ = self.followed.flight.landed() => {}
            // There may have been no connection to spare.
            () = sleep(AGAIN) => return Ok(()),
        }
        if self.at < self.ready() || self.partial().is_sealed() {
            return Ok(());
        }
        match self.followed.flight.landed().await {
            Landed::Whole => Ok(()),
            Landed::Failed(cause) => Err(again(&cause)),
            Landed::Unkept => {
                self.rest = Some(self.go_on().await?);
                Ok(())
            }
        }
    }

    /// Goes on without staging. What was read from it is hashed once more, so that the whole can be verified.
    async fn go_on(&mut self) -> Result<ByteStream> {
        let Followed { origin, blob, .. } = &self.followed;
        let mut hashed = None;
        if self.whole {
            let (mut hasher, mut at) = (Hasher::new(blob.digest.algorithm()), 0);
            while at < self.at {
                let bytes = self.partial().read_at(at, READ.min(self.at - at) as usize).await?;
                hasher.update(&bytes);
                at += bytes.len() as u64;
            }
            hashed = Some(hasher);
        }
        through(origin, blob, self.at..self.end, hashed).await
    }
}
