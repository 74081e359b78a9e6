use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_oci::Digest;
use ferry_store::{Error, Kind, Result};

use super::reading::blob_name;
use super::region::{Region, UNFINISHED, blob_path, headers};
use super::scan::{BLOCK, Node, Scanner};
use crate::files::{digest_of, each_chunk};
use crate::temporary::sync_parent;

/// An archive that is being written: a tar file of which every byte belongs to a region, each with a header, so that
/// after a kill whatever is whole is found again. The file is locked while this value lives.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: Arc<File>,
    regions: Mutex<Regions>,
}

#[derive(Debug, Default)]
struct Regions {
    end: u64,
    blobs: HashMap<Digest, Region>,
    /// Regions without use, by where they begin.
    free: BTreeMap<u64, Region>,
    /// Blobs of the run before.
    recovered: HashSet<Digest>,
}

impl Part {
    /// Opens the part file of `target`, or begins one.
    pub(super) fn open(target: &Path) -> Result<Self> {
        let path = path_of(target);
        let failed = |e| Error::io("create archive", path.display(), e);
        let file = loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(failed)?;
            if file.try_lock().is_err() {
                let detail = "another process is writing this archive; wait for it, or end it";
                return Err(Error::new(Kind::Unavailable, "create archive", target.display(), detail));
            }
            // Whoever wrote it before may have given it its name in the meantime.
            if is_still(&path, &file).map_err(failed)? {
                break file;
            }
        };
        let regions = recover(&file).map_err(failed)?;
        // What is behind the last blob was never finished.
        file.set_len(regions.end).map_err(failed)?;
        Ok(Self { path, file: Arc::new(file), regions: Mutex::new(regions) })
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    fn lock(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn blob(&self, digest: &Digest) -> Option<Region> {
        self.lock().blobs.get(digest).copied()
    }

    /// Whether a run before has left the blob, and this one has not put it again.
    pub(super) fn is_recovered(&self, digest: &Digest) -> bool {
        self.lock().recovered.contains(digest)
    }

    /// Whether it holds one of `digests`.
    pub(super) fn holds_any(&self, digests: &HashSet<Digest>) -> bool {
        self.lock().blobs.keys().any(|digest| digests.contains(digest))
    }

    /// A region for `size` bytes under `name`.
    pub(super) fn reserve(&self, name: &str, size: u64) -> Result<Region> {
        let too_large =
            || Error::new(Kind::Full, "reserve space", name, format!("{size} bytes are too many"));
        let failed = |e| Error::io("reserve space", self.path.display(), e);
        let mut regions = self.lock();
        let mut wanted = Region::new(regions.end, name, size).ok_or_else(too_large)?;
        let fitting = regions.free.values().find(|free| free.length == wanted.length).copied();
        match fitting {
            Some(free) => wanted.start = free.start,
            None => self.file.set_len(wanted.end()).map_err(failed)?,
        }
        if let Err(e) = self.mark_free(&wanted) {
            if fitting.is_none() {
                let _ = self.file.set_len(regions.end); // What cannot be cut off is found by the next scan.
            }
            return Err(failed(e));
        }
        regions.free.remove(&wanted.start);
        regions.end = regions.end.max(wanted.end());
        Ok(wanted)
    }

    fn mark_free(&self, region: &Region) -> io::Result<()> {
        self.file.write_all_at(&headers(UNFINISHED, region.length - BLOCK), region.start)
    }

    /// Gives back a region without use.
    pub(super) fn release(&self, region: Region) {
        self.give_back(&mut self.lock(), region);
    }

    fn give_back(&self, regions: &mut Regions, region: Region) {
        if let Err(error) = self.mark_free(&region) {
            tracing::debug!(%error, "a region keeps its name until it is used again");
        }
        regions.free.insert(region.start, Region::free(region.start..region.end()));
        while let Some(last) = regions.free.last_entry().filter(|last| last.get().end() == regions.end) {
            regions.end = last.remove().start;
        }
        if let Err(error) = self.file.set_len(regions.end) {
            tracing::debug!(%error, "the end of a part file is not cut off");
        }
    }

    /// Makes the content of `region`, which was verified, the blob `digest`.
    pub(super) fn keep(&self, region: Region, digest: &Digest) -> Result<()> {
        let mut regions = self.lock();
        if regions.blobs.get(digest).is_some_and(|old| old.size == region.size) {
            regions.recovered.remove(digest);
            self.give_back(&mut regions, region);
            return Ok(());
        }
        // A region that is used again has padding of another size.
        let padding = vec![0; (region.end() - region.content().end) as usize];
        let header = headers(&blob_path(digest), region.size);
        let padded = self.file.write_all_at(&padding, region.content().end);
        let written = padded.and_then(|()| self.file.write_all_at(&header, region.start));
        if let Err(e) = written {
            self.give_back(&mut regions, region);
            return Err(Error::io("write blob", digest, e));
        }
        if let Some(old) = regions.blobs.insert(*digest, region) {
            self.give_back(&mut regions, old);
        }
        Ok(())
    }

    /// Removes a blob; whether there was one.
    pub(super) fn remove(&self, digest: &Digest) -> bool {
        let mut regions = self.lock();
        let found = regions.blobs.remove(digest);
        if let Some(region) = found {
            self.give_back(&mut regions, region);
        }
        found.is_some()
    }

    /// Makes a part of another file the blob `digest`, unless its bytes are not those.
    pub(super) fn copy(&self, from: &File, place: Range<u64>, digest: &Digest) -> Result<()> {
        let region = self.reserve(&blob_path(digest), place.end - place.start)?;
        match self.fill(region, from, place, digest) {
            Ok(()) => self.keep(region, digest),
            Err(e) => {
                self.release(region);
                Err(e)
            }
        }
    }

    fn fill(&self, region: Region, from: &File, place: Range<u64>, digest: &Digest) -> Result<()> {
        let (mut at, mut hasher) = (region.content().start, ferry_oci::Hasher::new(digest.algorithm()));
        let copied = each_chunk(from, place, |bytes| {
            hasher.update(bytes);
            self.file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
            Ok(())
        });
        copied.map_err(|e| Error::io("copy blob", digest, e))?;
        let actual = hasher.finish();
        if actual == *digest {
            return Ok(());
        }
        let detail = format!("the bytes in the archive are {actual}");
        Err(Error::new(Kind::DigestMismatch, "copy blob", digest, detail))
    }

    /// Removes blobs of a run before that are not `wanted`.
    pub(super) fn forget_recovered(&self, wanted: &HashSet<Digest>) {
        let unwanted: Vec<Digest> = self.lock().recovered.difference(wanted).copied().collect();
        for digest in &unwanted {
            self.remove(digest);
        }
    }

    /// Writes `more` behind the blobs, and gives the file the name `target`.
    pub(super) fn finish(&self, target: &Path, more: &[(&str, Vec<u8>)]) -> io::Result<()> {
        let mut regions = self.lock();
        self.compact(&mut regions)?;
        let mut at = regions.end;
        self.file.set_len(at)?;
        for (name, content) in more {
            let mut blocks = headers(name, content.len() as u64);
            blocks.extend(content);
            blocks.resize(blocks.len().next_multiple_of(BLOCK as usize), 0);
            self.file.write_all_at(&blocks, at)?;
            at += blocks.len() as u64;
        }
        self.file.set_len(at + 2 * BLOCK)?;
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        sync_parent(&std::path::absolute(target)?)
    }

    /// Moves regions to the front until there is nothing free between them.
    fn compact(&self, regions: &mut Regions) -> io::Result<()> {
        if regions.free.is_empty() {
            return Ok(());
        }
        let mut used: Vec<(Digest, Region)> = regions.blobs.iter().map(|(d, r)| (*d, *r)).collect();
        used.sort_by_key(|(_, region)| region.start);
        let mut end = 0;
        for (digest, region) in used {
            if region.start > end {
                // Should this be cut short, the region is not found again, but what comes after it is.
                regions.blobs.remove(&digest);
                let moved = Region { start: end, ..region };
                self.move_down(region, moved, &digest)?;
                regions.blobs.insert(digest, moved);
            }
            end += region.length;
        }
        regions.free.clear();
        regions.end = end;
        Ok(())
    }

    /// At every moment each byte up to the end of `from` is part of a region with a header.
    fn move_down(&self, from: Region, to: Region, digest: &Digest) -> io::Result<()> {
        self.mark_free(&Region::free(to.start..from.end()))?;
        let mut at = to.content().start;
        each_chunk(&self.file, from.content(), |bytes| {
            self.file.write_all_at(bytes, at)?;
            at += bytes.len() as u64;
            Ok(())
        })?;
        self.file.write_all_at(&vec![0; (to.end() - at) as usize], at)?; // The padding.
        if from.end() > to.end() {
            self.mark_free(&Region::free(to.end()..from.end()))?;
        }
        self.file.write_all_at(&headers(&blob_path(digest), to.size), to.start)
    }

    /// Removes the file.
    pub(super) fn discard(&self) -> io::Result<()> {
        match is_still(&self.path, &self.file)? {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        }
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().end == 0
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_empty() {
            // Nothing is lost with it.
            let _ = self.discard();
        }
    }
}

/// The part file of `target`.
fn path_of(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".ferry-part");
    target.with_file_name(name)
}

/// The blobs that are whole in the part file of `target`, if there is one, with their sizes.
pub(super) fn whole(target: &Path) -> Result<HashMap<Digest, u64>> {
    let path = path_of(target);
    let found = match File::open(&path) {
        Ok(file) => recover(&file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(e) => Err(e),
    };
    let regions = found.map_err(|e| Error::io("read archive", path.display(), e))?;
    Ok(regions.blobs.into_iter().map(|(digest, region)| (digest, region.size)).collect())
}

/// Whether `path` still names `file`.
fn is_still(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Finds what is whole in a part file. A crash may have lost bytes that were never flushed, so all are hashed.
fn recover(file: &File) -> io::Result<Regions> {
    let mut regions = Regions::default();
    let mut scanner = Scanner::new(file)?;
    while let Ok(Some(entry)) = scanner.next() {
        let blocks = entry.blocks;
        if blocks.end % BLOCK != 0 {
            break;
        }
        regions.end = blocks.end;
        let blob = match (&entry.node, blob_name(&entry.name)) {
            (Node::File(place), Some(digest)) => {
                Region::new(blocks.start, &entry.name, place.end - place.start)
                    .filter(|region| region.content() == *place && region.end() == blocks.end)
                    .map(|region| (digest, region))
            }
            _ => None,
        };
        match blob {
            Some((digest, region))
                if !regions.blobs.contains_key(&digest) && is_whole(file, &digest, region)? =>
            {
                regions.blobs.insert(digest, region);
                regions.recovered.insert(digest);
            }
            _ => {
                regions.free.insert(blocks.start, Region::free(blocks));
            }
        }
    }
    while let Some(last) = regions.free.last_entry().filter(|last| last.get().end() == regions.end) {
        regions.end = last.remove().start;
    }
    Ok(regions)
}

fn is_whole(file: &File, digest: &Digest, region: Region) -> io::Result<bool> {
    Ok(digest_of(file, region.content(), digest.algorithm())? == *digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_that_was_cut_short_costs_one_blob() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("images.tar"));
        let contents: Vec<Vec<u8>> = (1..5u8).map(|fill| vec![fill; 3000 * usize::from(fill)]).collect();
        let digests: Vec<Digest> = contents.iter().map(|content| Digest::sha256(content)).collect();
        let part = Part::open(&target).unwrap();
        for (content, digest) in contents.iter().zip(&digests) {
            fs::write(&source, content).unwrap();
            part.copy(&File::open(&source).unwrap(), 0..content.len() as u64, digest).unwrap();
        }
        // The second blob is on its way to the place of the first: half of it has overwritten its own header.
        let (first, second) = (part.blob(&digests[0]).unwrap(), part.blob(&digests[1]).unwrap());
        part.remove(&digests[0]);
        part.mark_free(&Region::free(first.start..second.end())).unwrap();
        part.file.write_all_at(&vec![2; 4000], first.content().start).unwrap();
        drop(part);

        let again = Part::open(&target).unwrap();
        assert_eq!(
            digests.iter().map(|digest| again.blob(digest).is_some()).collect::<Vec<_>>(),
            [false, false, true, true]
        );
        again.finish(&target, &[]).unwrap();
        let [third, fourth] = [2, 3].map(|at: usize| again.blob(&digests[at]).unwrap());
        assert_eq!((third.start, fourth.start), (0, third.end()), "moved to the front");
        for (at, region) in [(2, third), (3, fourth)] {
            assert!(is_whole(&again.file, &digests[at], region).unwrap());
        }
        assert_eq!(fs::metadata(&target).unwrap().len(), fourth.end() + 2 * BLOCK);
    }
}
