//! The blocks of a tar file that ferry writes.

use std::ops::Range;

use ferry_oci::Digest;
use tar::{EntryType, Header};

use super::scan::{BLOCK, padded};

/// The longest name that a header holds itself, in bytes; there is an extension for longer ones.
const SHORT_NAME: usize = 100;

/// The name of a region whose content is not verified yet, or of one that holds nothing any more.
pub(super) const UNFINISHED: &str = "ferry-unfinished";

/// A place in the tar file for the headers and the content of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) start: u64,
    /// With headers and padding.
    pub(super) length: u64,
    /// How much of it are headers.
    pub(super) headers: u64,
    /// The length of the content, in bytes.
    pub(super) size: u64,
}

impl Region {
    /// A region at `start` for `size` bytes under `name`; `None` if there are no such numbers.
    pub(super) fn new(start: u64, name: &str, size: u64) -> Option<Self> {
        let headers = if name.len() > SHORT_NAME { 3 * BLOCK } else { BLOCK };
        let length = padded(size)?.checked_add(headers)?;
        start.checked_add(length)?;
        Some(Self { start, length, headers, size })
    }

    /// A region of any content, which an entry of the name `UNFINISHED` covers.
    pub(super) fn free(blocks: Range<u64>) -> Self {
        let length = blocks.end - blocks.start;
        Self { start: blocks.start, length, headers: BLOCK, size: length.saturating_sub(BLOCK) }
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.length
    }

    pub(super) fn content(&self) -> Range<u64> {
        let start = self.start + self.headers;
        start..start + self.size
    }
}

/// The name of a blob in a layout.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// The headers of a file: always the same ones for the same name and size.
pub(super) fn headers(name: &str, size: u64) -> Vec<u8> {
    let mut blocks = Vec::new();
    let mut short = name.as_bytes();
    if short.len() > SHORT_NAME {
        let long = [short, b"\0"].concat();
        blocks.extend(header(b"././@LongLink", long.len() as u64, EntryType::GNULongName));
        blocks.extend(&long);
        blocks.resize(2 * BLOCK as usize, 0);
        short = &short[..SHORT_NAME];
    }
    blocks.extend(header(short, size, EntryType::Regular));
    blocks
}

fn header(name: &[u8], size: u64, kind: EntryType) -> [u8; BLOCK as usize] {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ferry_oci::Algorithm;

    use super::super::scan::{Node, Scanner};
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written() {
        let content = b"content";
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let name = blob_path(&Digest::of(algorithm, content));
            let region = Region::new(0, &name, content.len() as u64).unwrap();
            let mut bytes = headers(&name, region.size);
            assert_eq!(bytes.len() as u64, region.headers);
            bytes.extend(content);
            bytes.resize(region.length as usize, 0);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let mut scanner = Scanner::new(&file).unwrap();
            let entry = scanner.next().unwrap().unwrap();
            assert_eq!(entry.name, name);
            assert_eq!(entry.node, Node::File(region.content()));
            assert_eq!(entry.blocks, 0..region.end());
            assert!(scanner.next().unwrap().is_none());
        }
    }

    #[test]
    fn sizes_beyond_eight_gigabytes_are_written() {
        let size = 50 << 30;
        let blocks = headers("large", size);
        assert_eq!(Header::from_byte_slice(&blocks).entry_size().unwrap(), size);
        assert!(Region::new(0, "absurd", u64::MAX - 3).is_none());
        assert!(Region::new(u64::MAX - 512, "absurd", 512).is_none());
    }
}
