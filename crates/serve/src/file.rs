//! Reading files for answers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_store::{ByteStream, Error, FileSlice};
use futures_util::stream;
use tokio::time::Instant;

use crate::buffers::{Buffer, Buffers, Size};

/// A reader that comes back for more within this time is given large pieces.
const SOON: Duration = Duration::from_millis(50);

/// The bytes of a part of a file. First a small piece, so that the first bytes go out early and small blobs take little
/// memory, then pieces as large as the reader makes use of.
pub(crate) fn read(slice: FileSlice, buffers: &'static Buffers) -> ByteStream {
    let reading = Reading { slice, buffers, given: None };
    Box::pin(stream::try_unfold(reading, Reading::next))
}

struct Reading {
    slice: FileSlice,
    buffers: &'static Buffers,
    /// When the last piece was given.
    given: Option<Instant>,
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        let range = &mut self.slice.range;
        let left = range.end.saturating_sub(range.start);
        if left == 0 {
            return Ok(None);
        }
        let soon = self.given.is_some_and(|given| given.elapsed() < SOON);
        let buffer = self.buffers.take(if soon { Size::Large } else { Size::Small });
        let bytes = read_at(&self.slice.file, range.start, buffer, left).await;
        let bytes = bytes.map_err(|e| Error::io("read file", "blob", e))?;
        range.start += bytes.len() as u64;
        self.given = Some(Instant::now());
        Ok(Some((bytes, self)))
    }
}

/// Fills the buffer, with at most `left` bytes; what is in memory already comes at once, and perhaps alone.
async fn read_at(file: &Arc<File>, at: u64, mut buffer: Buffer, left: u64) -> io::Result<Bytes> {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.as_ref().len());
    let cached = read_cached(file, at, &mut buffer.as_mut()[..length]);
    if cached > 0 {
        return Ok(buffer.into_bytes(cached));
    }
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        file.read_exact_at(&mut buffer.as_mut()[..length], at)?;
        Ok(buffer.into_bytes(length))
    });
    read.await.map_err(io::Error::other).flatten()
}

/// As much as can be read without waiting for the disk. None if the kernel or the file system cannot tell, and at the end of
/// the file; then it is read in the usual way.
#[cfg(target_os = "linux")]
fn read_cached(file: &File, at: u64, into: &mut [u8]) -> usize {
    use rustix::io::{ReadWriteFlags, preadv2};
    preadv2(file, &mut [io::IoSliceMut::new(into)], at, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

/// Elsewhere nobody can tell.
#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: u64, _: &mut [u8]) -> usize {
    0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures_util::StreamExt;

    use super::*;
    use crate::buffers::{LARGE, SMALL};

    fn of_file(content: &[u8]) -> FileSlice {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        FileSlice { file: Arc::new(file), range: 0..content.len() as u64 }
    }

    #[tokio::test(start_paused = true)]
    async fn fast_readers_are_given_large_pieces() {
        static BUFFERS: Buffers = Buffers::new();
        let mut stream = read(of_file(&vec![0; 8 * LARGE]), &BUFFERS);
        let mut most = Vec::new();
        for wait in [0, 0, 0, 60, 60, 0] {
            tokio::time::advance(Duration::from_millis(wait)).await;
            most.push(stream.next().await.unwrap().unwrap().len());
        }
        assert_eq!(most, [SMALL, LARGE, LARGE, SMALL, SMALL, LARGE]);
    }

    #[tokio::test]
    async fn thousands_of_readers_that_stand_still_fit_into_memory() {
        static BUFFERS: Buffers = Buffers::new();
        let slice = of_file(&vec![0; 2 * LARGE]);
        let mut held = 0;
        let mut streams = Vec::new();
        for _ in 0..2000 {
            let slice = FileSlice { file: Arc::clone(&slice.file), range: slice.range.clone() };
            let mut stream = read(slice, &BUFFERS);
            stream.next().await.unwrap().unwrap();
            let piece = stream.next().await.unwrap().unwrap();
            held += piece.len();
            streams.push((stream, piece));
        }
        assert!(held <= 88 << 20, "{held}");
    }
}
