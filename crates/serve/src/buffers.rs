//! Memory for what is read from files: reused, and bounded where it is much.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// A reader that is slow, or of whom nothing is known yet, is given pieces of so many bytes: thousands of them must fit into
/// memory.
pub(crate) const SMALL: usize = 32 * 1024;
/// Larger pieces are not faster.
pub(crate) const LARGE: usize = 256 * 1024;
/// So many large pieces there may be at once, 24 MiB: a few for each of some dozens of readers that are as fast as can be. Others
/// are given small ones.
const MOST_LARGE: usize = 96;
/// So many of each size are kept for whoever comes next, 18 MiB together.
const KEPT: usize = 64;

/// Memory of both sizes.
pub(crate) struct Buffers {
    small: Pool,
    large: Pool,
}

/// Those that everything shares.
pub(crate) static SHARED: Buffers = Buffers::new();

impl Buffers {
    pub(crate) const fn new() -> Self {
        Self { small: Pool::new(SMALL), large: Pool::new(LARGE) }
    }

    /// Memory for the next piece; a large one if it is `wanted` and there is room.
    pub(crate) fn take(&'static self, wanted: Size) -> Buffer {
        let large = (wanted == Size::Large).then(|| self.large.take_within(MOST_LARGE)).flatten();
        large.unwrap_or_else(|| self.small.take())
    }
}

/// What a reader would make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
}

/// Buffers of one size.
struct Pool {
    size: usize,
    held: Mutex<Held>,
}

struct Held {
    /// How many are in use.
    out: usize,
    free: Vec<Vec<u8>>,
}

impl Pool {
    const fn new(size: usize) -> Self {
        Self { size, held: Mutex::new(Held { out: 0, free: Vec::new() }) }
    }

    fn take(&'static self) -> Buffer {
        self.hand_out(self.held())
    }

    /// `None` if so many are in use.
    fn take_within(&'static self, most: usize) -> Option<Buffer> {
        let held = self.held();
        (held.out < most).then(|| self.hand_out(held))
    }

    fn hand_out(&'static self, mut held: MutexGuard<'_, Held>) -> Buffer {
        held.out += 1;
        let free = held.free.pop();
        drop(held);
        Buffer { bytes: free.unwrap_or_else(|| vec![0; self.size]), pool: self }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that is in use until this is dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: &'static Pool,
}

impl Buffer {
    /// The first bytes; the memory is in use as long as there is any part of them.
    pub(crate) fn into_bytes(self, length: usize) -> Bytes {
        Bytes::from_owner(self).slice(..length)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut held = self.pool.held();
        held.out -= 1;
        if held.free.len() < KEPT {
            held.free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_ones_are_bounded_and_memory_is_reused() {
        static BUFFERS: Buffers = Buffers::new();
        let length = |buffer: &Buffer| buffer.as_ref().len();
        let taken: Vec<Buffer> = (0..1000).map(|_| BUFFERS.take(Size::Large)).collect();
        let large = taken.iter().filter(|buffer| length(buffer) == LARGE).count();
        let all: usize = taken.iter().map(length).sum();
        assert_eq!((large, all), (MOST_LARGE, MOST_LARGE * LARGE + (1000 - MOST_LARGE) * SMALL));
        let shown: Vec<Bytes> = taken.into_iter().map(|buffer| buffer.into_bytes(10)).collect();
        assert_eq!(length(&BUFFERS.take(Size::Large)), SMALL);
        let part = shown[0].slice(3..5);
        drop(shown);
        // All but the one of which a part is still shown.
        let free = |pool: &Pool| {
            let held = pool.held();
            (held.out, held.free.len())
        };
        assert_eq!(free(&BUFFERS.large), (1, KEPT));
        assert_eq!(free(&BUFFERS.small), (0, KEPT));
        drop(part);
        assert_eq!(free(&BUFFERS.large), (0, KEPT));
        assert_eq!(length(&BUFFERS.take(Size::Large)), LARGE);
        assert_eq!(length(&BUFFERS.take(Size::Small)), SMALL);
    }
}
