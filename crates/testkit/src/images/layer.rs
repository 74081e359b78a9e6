use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use ferry_oci::Digest;
use flate2::{Compression, GzBuilder};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tar::{EntryType, Header};

/// One layer: a tar archive compressed with gzip.
#[derive(Debug, Clone)]
pub struct Layer {
    bytes: Bytes,
    digest: Digest,
    diff_id: Digest,
}

impl Layer {
    /// A layer with one file of `size` incompressible bytes, so that the blob is about that large.
    pub fn random(seed: u64, size: usize) -> Self {
        let mut content = vec![0; size];
        StdRng::seed_from_u64(seed).fill_bytes(&mut content);
        let path = format!("random/{seed:016x}");
        // Stored, not deflated: nothing is to be gained, and an unoptimised test build would take long over it.
        from_archive(&archive(&[(path.as_str(), content.as_slice())]), Compression::none())
    }

    /// A layer with these files.
    pub fn of_files(files: &[(&str, &[u8])]) -> Self {
        from_archive(&archive(files), Compression::default())
    }

    /// A layer of the regular files, links and directories below `dir`, in the order of their names, until about
    /// `limit` bytes are taken.
    ///
    /// # Errors
    /// Whatever reading `dir` yields.
    pub fn of_tree(dir: &Path, limit: u64) -> io::Result<Self> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut left = limit;
        append_tree(&mut builder, dir, dir, &mut left)?;
        Ok(from_archive(&builder.into_inner()?, Compression::default()))
    }

    /// The compressed bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The digest of the compressed bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest of the archive before compression, as the configuration lists it (image-spec `config.md`).
    pub fn diff_id(&self) -> Digest {
        self.diff_id
    }
}

fn from_archive(tar: &[u8], compression: Compression) -> Layer {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::with_capacity(tar.len() / 2), compression);
    let Ok(bytes) = gzip.write_all(tar).and_then(|()| gzip.finish()) else {
        unreachable!("writing to memory does not fail")
    };
    Layer { digest: Digest::sha256(&bytes), diff_id: Digest::sha256(tar), bytes: Bytes::from(bytes) }
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = header(EntryType::Regular, content.len() as u64);
        if let Err(e) = builder.append_data(&mut header, path, *content) {
            unreachable!("{path} cannot stand in an archive: {e}");
        }
    }
    match builder.into_inner() {
        Ok(bytes) => bytes,
        Err(e) => unreachable!("writing to memory does not fail: {e}"),
    }
}

/// Owner, time and permissions are fixed so that the digest depends on names and content only.
fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append_tree(
    builder: &mut tar::Builder<Vec<u8>>,
    root: &Path,
    dir: &Path,
    left: &mut u64,
) -> io::Result<()> {
    let mut entries = std::fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap_or(&path);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            builder.append_data(&mut header(EntryType::Directory, 0), name, io::empty())?;
            append_tree(builder, root, &path, left)?;
        } else if kind.is_symlink() {
            builder.append_link(&mut header(EntryType::Symlink, 0), name, std::fs::read_link(&path)?)?;
        } else if kind.is_file() {
            let content = std::fs::read(&path)?;
            let size = content.len() as u64;
            if size <= *left {
                *left -= size;
                builder.append_data(&mut header(EntryType::Regular, size), name, content.as_slice())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn unpack(layer: &Layer) -> Vec<u8> {
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&layer.bytes()[..]).read_to_end(&mut tar).unwrap();
        tar
    }

    #[test]
    fn a_seed_means_the_same_bytes() {
        let layer = Layer::random(7, 100_000);
        assert_eq!(layer.digest(), Layer::random(7, 100_000).digest());
        assert_ne!(layer.digest(), Layer::random(8, 100_000).digest());
        assert!((100_000..110_000).contains(&layer.bytes().len()), "{}", layer.bytes().len());
        assert_eq!(Digest::sha256(&unpack(&layer)), layer.diff_id());
        // Fixed: a change here changes every measurement that is compared over time.
        assert_eq!(
            Layer::of_files(&[("etc/motd", b"hello\n")]).diff_id().to_string(),
            "sha256:44e418d3c6ccc42ad9311a9509a374857284c2693187d645130731ecaceb8b8b"
        );
    }

    #[test]
    fn a_tree_keeps_names_links_and_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/a"), b"12345").unwrap();
        std::fs::write(dir.path().join("sub/b"), b"123456").unwrap();
        std::os::unix::fs::symlink("sub/a", dir.path().join("z")).unwrap();
        let tar = unpack(&Layer::of_tree(dir.path(), 10).unwrap());
        let mut archive = tar::Archive::new(&tar[..]);
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["sub", "sub/a", "z"], "sub/b is beyond the limit");
    }
}
