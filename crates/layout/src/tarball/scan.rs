use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use tar::{EntryType, Header, PaxExtensions};

use crate::files::read_at;

/// The unit that a tar file is made of, in bytes.
pub(crate) const BLOCK: u64 = 512;

/// The most entries that are looked at; an archive of a thousand images has some ten thousand.
const MAX_ENTRIES: usize = 200_000;

/// The most bytes of a header that extends another one: long names, pax records.
const MAX_EXTENSION: u64 = 64 * 1024;

/// The longest name, in bytes, as the usual limit of the operating system.
const MAX_NAME: usize = 4096;

/// What stands in a tar file under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// The bytes of a file, as offsets into the tar file.
    File(Range<u64>),
    /// Another name of a file, which is given from the root of the archive.
    Hard(String),
    /// A path from the directory of this entry to another one.
    Symbolic(String),
    /// A directory, or something else without content.
    Other,
}

/// An entry of a tar file.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name from the root of the archive, without `./` in front; may be empty for that root.
    pub(crate) name: String,
    pub(crate) node: Node,
    /// All its blocks, with those of the headers that extend its own.
    pub(crate) blocks: Range<u64>,
}

/// Why a tar file could not be read further.
#[derive(Debug)]
pub(crate) enum Damage {
    /// The operating system failed.
    Io(io::Error),
    /// The archive is not what it should be.
    Invalid(String),
}

/// What reading a tar file gives.
pub(crate) type Scanned<T> = Result<T, Damage>;

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn invalid<T>(reason: impl Into<String>) -> Scanned<T> {
    Err(Damage::Invalid(reason.into()))
}

/// Reads the headers of a tar file one after the other, and none of the content (POSIX.1-2001 pax, GNU tar).
pub(crate) struct Scanner<'a> {
    file: &'a File,
    length: u64,
    at: u64,
    entries: usize,
}

/// What headers before that of an entry say of it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self { file, length: file.metadata()?.len(), at: 0, entries: 0 })
    }

    /// The next entry; `None` at the end.
    pub(crate) fn next(&mut self) -> Scanned<Option<Entry>> {
        let start = self.at;
        let mut extension = Extension::default();
        loop {
            let Some(header) = self.header()? else {
                return match self.at == start {
                    true => Ok(None),
                    false => invalid("a header that extends another one stands at its end"),
                };
            };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return invalid(format!("it has more than {MAX_ENTRIES} entries"));
            }
            match header.entry_type() {
                EntryType::GNULongName => extension.name = Some(self.extension(&header)?),
                EntryType::GNULongLink => extension.link = Some(self.extension(&header)?),
                EntryType::XHeader => extension.read_pax(&self.extension(&header)?)?,
                EntryType::XGlobalHeader => drop(self.extension(&header)?),
                _ => return self.entry(start, &header, extension).map(Some),
            }
        }
    }

    /// The header at this position, behind which the position is then; `None` at the end of the archive.
    fn header(&mut self) -> Scanned<Option<Header>> {
        if self.at == self.length {
            return Ok(None);
        }
        if self.length - self.at < BLOCK && self.at == 0 {
            return invalid("it is no tar file");
        }
        if self.length - self.at < BLOCK {
            return invalid("it is cut short: it ends in the middle of a header");
        }
        let mut header = Header::new_old();
        self.file.read_exact_at(header.as_mut_bytes(), self.at)?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let others = bytes[..148].iter().chain(&bytes[156..]);
        let sum = others.fold(8 * u32::from(b' '), |sum, byte| sum + u32::from(*byte));
        if header.cksum().ok() != Some(sum) && self.at == 0 {
            return invalid("it is no tar file");
        }
        if header.cksum().ok() != Some(sum) {
            return invalid(format!("there is no header of a tar entry at byte {}", self.at));
        }
        self.at += BLOCK;
        Ok(Some(header))
    }

    /// The place of `size` bytes of content at this position, behind which the position is then.
    fn content(&mut self, size: u64) -> Scanned<Range<u64>> {
        let start = self.at;
        let (Some(end), Some(next)) =
            (start.checked_add(size), padded(size).and_then(|p| start.checked_add(p)))
        else {
            return invalid("an entry is of impossible size");
        };
        if end > self.length {
            return invalid(format!("it is cut short: {} bytes are missing", end - self.length));
        }
        // Padding of the last entry may be missing.
        self.at = next.min(self.length);
        Ok(start..end)
    }

    fn extension(&mut self, header: &Header) -> Scanned<Vec<u8>> {
        let size = header.entry_size().or_else(|e| invalid(e.to_string()))?;
        if size > MAX_EXTENSION {
            return invalid(format!("a header of {size} bytes is too long"));
        }
        let place = self.content(size)?;
        Ok(read_at(self.file, place)?.to_vec())
    }

    fn entry(&mut self, start: u64, header: &Header, extension: Extension) -> Scanned<Entry> {
        let name = extension.name.unwrap_or_else(|| header.path_bytes().into_owned());
        let is_directory = name.last() == Some(&b'/');
        let name = normal("", &text(name)?).map_err(Damage::Invalid)?;
        let link = || {
            text(extension.link.or_else(|| Some(header.link_name_bytes()?.into_owned())).unwrap_or_default())
        };
        let node = match header.entry_type() {
            EntryType::Link => Node::Hard(link()?),
            EntryType::Symlink => Node::Symbolic(link()?),
            EntryType::Char | EntryType::Block | EntryType::Directory | EntryType::Fifo => Node::Other,
            EntryType::GNUSparse => return invalid(SPARSE),
            kind => {
                let of_header = || header.entry_size().or_else(|e| invalid(e.to_string()));
                let place = self.content(extension.size.map_or_else(of_header, Ok)?)?;
                let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous) && !is_directory;
                if is_file { Node::File(place) } else { Node::Other }
            }
        };
        Ok(Entry { name, node, blocks: start..self.at })
    }
}

const SPARSE: &str = "it has sparse entries; write it again without --sparse";

impl Extension {
    fn read_pax(&mut self, records: &[u8]) -> Scanned<()> {
        for record in PaxExtensions::new(records) {
            let Ok(record) = record else { return invalid("a pax header is malformed") };
            match record.key_bytes() {
                b"path" => self.name = Some(record.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                b"size" => match record.value().ok().and_then(|size| size.parse().ok()) {
                    Some(size) => self.size = Some(size),
                    None => return invalid("a pax header has a size that is no number"),
                },
                key if key.starts_with(b"GNU.sparse.") => return invalid(SPARSE),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A name up to its first zero byte. What is not UTF-8 is nothing that ferry looks for.
fn text(name: Vec<u8>) -> Scanned<String> {
    if name.len() > MAX_NAME {
        return invalid(format!("a name of {} bytes is too long", name.len()));
    }
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// `size` and the padding to the next block.
pub(crate) fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK)
}

/// The path `path`, which is meant from the directory `base`, from the root of the archive.
///
/// # Errors
/// If it is absolute or leaves the archive.
pub(crate) fn normal(base: &str, path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        return Err(format!("the name {path:?} in it is absolute"));
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if base.is_empty() || parts.pop().is_none() => {
                return Err(format!("the name {path:?} in it leads out of it"));
            }
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}
