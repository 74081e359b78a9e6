use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::scan::{Damage, Node, Scanned, Scanner, normal};
use crate::files::read_at;

/// The most bytes of names that are kept.
const MAX_NAMES: usize = 64 * 1024 * 1024;

/// The longest way over links from a name to its file.
const MAX_LINKS: usize = 16;

/// What compressed files begin with, and the program that makes a tar file of them.
const COMPRESSED: [(&[u8], &str, &str); 4] = [
    (b"\x1f\x8b", "gzip", "gunzip"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (b"\xfd7zXZ\0", "xz", "unxz"),
    (b"BZh", "bzip2", "bunzip2"),
];

/// All names of a tar file with what they stand for. Of several entries of a name the last one counts, as if they were
/// unpacked.
#[derive(Debug)]
pub(crate) struct Names {
    nodes: HashMap<String, Node>,
}

impl Names {
    pub(crate) fn scan(file: &File) -> Scanned<Self> {
        refuse_compressed(file)?;
        let mut scanner = Scanner::new(file)?;
        let (mut nodes, mut kept) = (HashMap::new(), 0);
        while let Some(entry) = scanner.next()? {
            kept += entry.name.len() + entry.node.link().map_or(0, str::len);
            if kept > MAX_NAMES {
                return Err(Damage::Invalid("the names in it are too long".to_owned()));
            }
            nodes.insert(entry.name, entry.node);
        }
        Ok(Self { nodes })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// Where the bytes of the file `name` are; `None` if there is no such file.
    ///
    /// # Errors
    /// If a link leads in a circle or out of the archive.
    pub(crate) fn file(&self, name: &str) -> Result<Option<Range<u64>>, String> {
        let mut name = normal("", name)?;
        for _ in 0..MAX_LINKS {
            let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
            name = match self.nodes.get(&name) {
                Some(Node::File(place)) => return Ok(Some(place.clone())),
                Some(Node::Hard(to)) => normal("", to)?,
                Some(Node::Symbolic(to)) => normal(directory, to)?,
                Some(Node::Other) | None => return Ok(None),
            };
        }
        Err(format!("the link {name:?} in it leads in a circle"))
    }

    /// The bytes of the file `name`, if there is one, which must not be longer than `limit`.
    pub(crate) fn read(&self, file: &File, name: &str, limit: u64) -> Scanned<Option<Bytes>> {
        let Some(place) = self.file(name).map_err(Damage::Invalid)? else { return Ok(None) };
        let size = place.end - place.start;
        if size > limit {
            return Err(Damage::Invalid(format!("its file {name:?} has {size} bytes, more than {limit}")));
        }
        Ok(Some(read_at(file, place)?))
    }
}

impl Node {
    fn link(&self) -> Option<&str> {
        match self {
            Self::Hard(to) | Self::Symbolic(to) => Some(to),
            Self::File(_) | Self::Other => None,
        }
    }
}

fn refuse_compressed(file: &File) -> Scanned<()> {
    let length = file.metadata()?.len().min(6);
    let start = read_at(file, 0..length)?;
    if start.is_empty() {
        return Err(Damage::Invalid("it is empty".to_owned()));
    }
    let found = COMPRESSED.iter().find(|(magic, ..)| start.starts_with(magic));
    match found {
        Some((_, name, program)) => Err(Damage::Invalid(format!(
            "it is compressed with {name}, and blobs can only be found in a plain tar file; unpack it first: {program} FILE"
        ))),
        None => Ok(()),
    }
}

/// The archive `file`, which must be a regular file: blobs are read from any place of it.
pub(crate) fn open(path: &std::path::Path) -> io::Result<Option<File>> {
    let file = File::open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}
