//! Manifests, wherever the files are.

use std::collections::HashSet;

use ferry_oci::{Descriptor, Digest, MAX_MANIFEST_SIZE, Manifest, Reference};
use ferry_store::{Error, Kind, Result};

use crate::files::Files;
use crate::name::ImageName;

/// The manifest that `reference` means. One that has no entry, such as a child of an index, is found by its file; but not
/// what is only left over, because whoever finds it would not put it again, and then nothing would reach it.
pub(crate) fn find(files: &dyn Files, name: Option<&ImageName>, reference: &Reference) -> Result<Manifest> {
    let index = files.index()?;
    let (digest, entry) = match reference {
        Reference::Tag(tag) => {
            let found = index.by_tag(name, tag);
            let entry = found.ok_or_else(|| Error::not_found("read manifest", tag))?;
            (entry.digest, Some(entry))
        }
        Reference::Digest(digest) => (*digest, index.by_digest(digest)),
    };
    if entry.is_none() && files.is_left_over(&digest) {
        return Err(Error::not_found("read manifest", reference));
    }
    let label = entry.map(|entry| entry.media_type);
    let found = read(files, &digest, label.as_deref())?;
    found.ok_or_else(|| Error::not_found("read manifest", reference))
}

/// The manifest `digest` of the type `label`. A file without label that is not a manifest is a blob and thus no
/// manifest at all.
pub(crate) fn read(files: &dyn Files, digest: &Digest, label: Option<&str>) -> Result<Option<Manifest>> {
    let invalid = |reason: String| match label {
        Some(_) => Err(Error::new(Kind::Invalid, "read manifest", digest, reason)),
        None => Ok(None),
    };
    let Some(content) = files.read(digest)? else { return Ok(None) };
    if content.size() > MAX_MANIFEST_SIZE {
        return invalid(format!("{} bytes are too many for a manifest", content.size()));
    }
    let bytes = content.bytes().map_err(|e| Error::io("read manifest", digest, e))?;
    let actual = Digest::of(digest.algorithm(), &bytes);
    if actual != *digest {
        let detail = format!("the file holds {actual}");
        return Err(Error::new(Kind::DigestMismatch, "read manifest", digest, detail));
    }
    match Manifest::parse_as(digest.algorithm(), label, bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(malformed) => invalid(malformed.reason),
    }
}

/// Removes a manifest's file; whether there was one.
pub(crate) fn remove(files: &dyn Files, digest: &Digest) -> Result<bool> {
    match find(files, None, &Reference::Digest(*digest)) {
        Ok(_) => {}
        Err(e) if e.kind() == Kind::NotFound => return Ok(false),
        // Nothing is lost with a file that is not what its name says.
        Err(e) if e.kind() == Kind::DigestMismatch => {}
        Err(e) => return Err(e),
    }
    files.remove(digest).map(|()| true)
}

/// The manifests among the entries and, at any depth, their children, each once. What cannot be read is left out:
/// platforms that are not here, entries of unknown types, damage.
pub(crate) struct Walk<'a> {
    files: &'a dyn Files,
    seen: HashSet<Digest>,
    wanted: Vec<Descriptor>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(files: &'a dyn Files) -> Result<Self> {
        Ok(Self { files, seen: HashSet::new(), wanted: files.index()?.descriptors().collect() })
    }

    /// How many manifests were looked for.
    pub(crate) fn looked_for(&self) -> usize {
        self.seen.len()
    }
}

impl Iterator for Walk<'_> {
    type Item = Manifest;

    fn next(&mut self) -> Option<Manifest> {
        while let Some(next) = self.wanted.pop() {
            if self.seen.insert(next.digest)
                && let Ok(Some(manifest)) = read(self.files, &next.digest, Some(&next.media_type))
            {
                self.wanted.extend(manifest.children().iter().cloned());
                return Some(manifest);
            }
        }
        None
    }
}
