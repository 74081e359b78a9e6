//! Files as bytes, for connections that cannot be sent files as they are.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ferry_store::{ByteStream, Error, FileSlice, Result};
use futures_util::stream;
use rustix::io::{ReadWriteFlags, preadv2};

/// The first piece of a file, so that its bytes go out early, and all pieces where memory is short.
const SMALL: usize = 32 * 1024;

/// The other pieces; larger ones are not faster.
const LARGE: usize = 256 * 1024;

/// So many large pieces are on their way at most: thousands of slow clients must fit into memory.
const MOST_LARGE: usize = 256;

/// So many are kept for the next who read, as memory that is new costs more than the reading.
const MOST_KEPT: usize = 32;

/// That of all connections.
static POOL: LazyLock<Pool> = LazyLock::new(Pool::default);

/// The memory of large pieces.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Pieces>>);

#[derive(Default)]
struct Pieces {
    under_way: usize,
    kept: Vec<Vec<u8>>,
}

/// Memory for a piece. What is large goes back to where it came from.
struct Piece {
    memory: Vec<u8>,
    length: usize,
    pool: Option<Pool>,
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Pieces> {
        // A panic elsewhere cannot leave the list half-written, so the poison is of no account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A large piece, if there may be one more.
    fn large(&self) -> Option<Piece> {
        let mut pieces = self.lock();
        if pieces.under_way == MOST_LARGE {
            return None;
        }
        pieces.under_way += 1;
        let memory = pieces.kept.pop().unwrap_or_else(|| vec![0; LARGE]);
        Some(Piece { memory, length: LARGE, pool: Some(self.clone()) })
    }

    fn read(&self, slice: FileSlice) -> ByteStream {
        let first = Reading { pool: self.clone(), slice, begun: false };
        Box::pin(stream::try_unfold(first, Reading::next))
    }
}

impl Piece {
    fn small() -> Self {
        Self { memory: vec![0; SMALL], length: SMALL, pool: None }
    }

    /// Reads what is in memory already, without waiting; false if not all is.
    fn fill_at_once(&mut self, file: &File, at: u64) -> bool {
        let mut parts = [IoSliceMut::new(&mut self.memory[..self.length])];
        preadv2(file, &mut parts, at, ReadWriteFlags::NOWAIT) == Ok(self.length)
    }

    fn fill(mut self, file: &File, at: u64) -> io::Result<Self> {
        file.read_exact_at(&mut self.memory[..self.length], at)?;
        Ok(self)
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            let mut pieces = pool.lock();
            pieces.under_way -= 1;
            if pieces.kept.len() < MOST_KEPT {
                pieces.kept.push(std::mem::take(&mut self.memory));
            }
        }
    }
}

/// The bytes of a file.
pub(crate) fn read(slice: FileSlice) -> ByteStream {
    POOL.read(slice)
}

/// What is still to be read of a file.
struct Reading {
    pool: Pool,
    slice: FileSlice,
    begun: bool,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        let FileSlice { file, range } = &mut self.slice;
        let left = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        let large = if self.begun && left > SMALL { self.pool.large() } else { None };
        let mut piece = large.unwrap_or_else(Piece::small);
        piece.length = piece.length.min(left);
        let at = range.start;
        if !piece.fill_at_once(file, at) {
            let file = Arc::clone(file);
            let read = tokio::task::spawn_blocking(move || piece.fill(&file, at)).await;
            let read = read.map_err(io::Error::other).flatten();
            piece = read.map_err(|e| Error::io("read file", "blob", e))?;
        }
        range.start += piece.length as u64;
        self.begun = true;
        Ok(Some((Bytes::from_owner(piece), self)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn many_who_read_slowly_take_little_memory() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..1_000_000u32).map(|i| (i ^ (i >> 8)) as u8).collect();
        file.write_all(&content).unwrap();
        let (file, pool) = (Arc::new(file), Pool::default());
        let mut readers = Vec::new();
        let mut held = Vec::new();
        for _ in 0..MOST_LARGE + 100 {
            let mut reader = pool.read(FileSlice { file: Arc::clone(&file), range: 7..1_000_000 });
            let mut read = reader.next().await.unwrap().unwrap().to_vec();
            let second = reader.next().await.unwrap().unwrap();
            read.extend_from_slice(&second);
            assert!(read == content[7..7 + read.len()]);
            held.push(second);
            readers.push(reader);
        }
        let bytes: usize = held.iter().map(Bytes::len).sum();
        assert!(bytes <= MOST_LARGE * LARGE + held.len() * SMALL, "{bytes} bytes");
        assert_eq!(held.last().unwrap().len(), SMALL, "large pieces have run out");
        drop(held);
        let mut reader = readers.pop().unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap().len(), LARGE, "they have come back");
        assert!(pool.lock().kept.len() <= MOST_KEPT);
    }
}
