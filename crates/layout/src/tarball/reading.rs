use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::{Content as Of, Descriptor, Digest, Manifest};
use ferry_store::{Error, Expect, FileSlice, Kind, Result};

use super::names::{Names, open};
use super::saved;
use super::scan::{Damage, Scanned};
use crate::files::{Content, Files, Sink};
use crate::index::Index;
use crate::{manifests, mark};

/// The longest `index.json` or `manifest.json`, in bytes.
const MAX_JSON: u64 = 16 * 1024 * 1024;

/// An archive that is only read.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    pub(super) index: Index,
    pub(super) blobs: HashMap<Digest, Range<u64>>,
    /// Manifests of images that were saved without.
    made: HashMap<Digest, Bytes>,
    /// Whether it is an image layout, not what `docker save` wrote before it knew them.
    pub(super) is_layout: bool,
    /// Its `manifest.json`.
    pub(super) saved: Option<Bytes>,
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let error = |kind, detail: &str| Error::new(kind, "open archive", path.display(), detail);
        let file = match open(path) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(error(Kind::Invalid, "it is not a file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(error(Kind::NotFound, "no such file"));
            }
            Err(e) => return Err(Error::io("open archive", path.display(), e)),
        };
        Self::read(path, file).map_err(|damage| match damage {
            Damage::Io(e) => Error::io("open archive", path.display(), e),
            Damage::Invalid(reason) => error(Kind::Invalid, &reason),
        })
    }

    fn read(path: &Path, file: File) -> Scanned<Self> {
        let names = Names::scan(&file)?;
        let saved = names.read(&file, "manifest.json", MAX_JSON)?;
        let mut archive = Self {
            path: path.to_owned(),
            file: Arc::new(file),
            index: Index::empty(),
            blobs: HashMap::new(),
            made: HashMap::new(),
            is_layout: false,
            saved,
        };
        if let Some(index) = names.read(&archive.file, "index.json", MAX_JSON)? {
            archive.read_layout(&names, &index)?;
        } else if let Some(saved) = archive.saved.clone() {
            archive.read_saved(&names, &saved)?;
        } else {
            let reason = "it is no archive of images: it has neither index.json nor manifest.json";
            return Err(Damage::Invalid(reason.to_owned()));
        }
        Ok(archive)
    }

    fn read_layout(&mut self, names: &Names, index: &[u8]) -> Scanned<()> {
        let Some(mark) = names.read(&self.file, mark::FILE, MAX_JSON)? else {
            return Err(Damage::Invalid("it has index.json, but no file oci-layout".to_owned()));
        };
        mark::check(&mark).map_err(Damage::Invalid)?;
        self.index =
            Index::parse(index).map_err(|reason| Damage::Invalid(format!("index.json: {reason}")))?;
        self.is_layout = true;
        for name in names.iter() {
            let Some(digest) = blob_name(name) else { continue };
            if let Some(place) = names.file(name).map_err(Damage::Invalid)? {
                self.blobs.insert(digest, place);
            }
        }
        if let Some(saved) = self.saved.clone()
            && self.index.labelled().all(|(label, _)| label.tag.is_none())
        {
            self.name_as_saved(&saved)?;
        }
        Ok(())
    }

    /// Gives images without names those of `manifest.json`, which tells them by their configurations.
    fn name_as_saved(&mut self, saved: &[u8]) -> Scanned<()> {
        let images = saved::parse(saved).map_err(Damage::Invalid)?;
        let (mut by_config, mut seen) = (HashMap::new(), HashSet::new());
        for entry in self.index.descriptors() {
            let mut wanted = vec![entry.clone()];
            while let Some(next) = wanted.pop() {
                // Each is read once, however often it is named.
                if seen.insert(next.digest)
                    && let Ok(Some(manifest)) = manifests::read(self, &next.digest, Some(&next.media_type))
                {
                    wanted.extend(manifest.children().iter().cloned());
                    if let Some(config) = config_of(&manifest) {
                        by_config.insert(config.digest, entry.digest);
                    }
                }
            }
        }
        for image in images {
            let config = blob_name(&image.config);
            let Some(root) = config.and_then(|config| by_config.get(&config)) else { continue };
            for label in image.labels() {
                self.index.call(root, &label);
            }
        }
        Ok(())
    }

    fn read_saved(&mut self, names: &Names, saved: &[u8]) -> Scanned<()> {
        let file = Arc::clone(&self.file);
        let mut maker = saved::Maker::new(names, &file);
        for image in saved::parse(saved).map_err(Damage::Invalid)? {
            let made = maker.make(&image)?;
            self.blobs.extend(made.blobs);
            let digest = made.manifest.digest();
            self.index.put(&made.manifest, None, None);
            for label in image.labels() {
                self.index.call(&digest, &label);
            }
            self.made.insert(digest, made.manifest.bytes().clone());
        }
        Ok(())
    }

    /// All blobs in the order in which they stand in the file.
    pub(super) fn in_order(&self) -> Vec<(Digest, Range<u64>)> {
        let mut blobs: Vec<_> = self.blobs.iter().map(|(digest, place)| (*digest, place.clone())).collect();
        blobs.sort_by_key(|(digest, place)| (place.start, *digest));
        blobs
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    fn read_only<T>(&self, operation: &'static str) -> Result<T> {
        Err(Error::new(Kind::Denied, operation, self.path.display(), "this archive was opened for reading"))
    }
}

fn config_of(manifest: &Manifest) -> Option<&Descriptor> {
    match manifest.content() {
        Of::Image { config, .. } => Some(config),
        Of::Index(_) => None,
    }
}

/// The digest in `blobs/ALGORITHM/HEX`.
pub(super) fn blob_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

impl Files for Archive {
    fn path(&self) -> &Path {
        &self.path
    }

    fn index(&self) -> Result<Index> {
        Ok(self.index.clone())
    }

    fn edit_index(&self, _edit: &mut dyn FnMut(&mut Index) -> bool) -> Result<bool> {
        self.read_only("write index.json")
    }

    fn size_of(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.read(digest)?.map(|content| content.size()))
    }

    fn counts_as(&self, digest: &Digest) -> Result<Option<u64>> {
        self.size_of(digest)
    }

    fn read(&self, digest: &Digest) -> Result<Option<Content>> {
        if let Some(bytes) = self.made.get(digest) {
            return Ok(Some(Content::Memory(bytes.clone())));
        }
        let place = self.blobs.get(digest);
        Ok(place.map(|range| Content::File(FileSlice { file: Arc::clone(&self.file), range: range.clone() })))
    }

    fn is_left_over(&self, _digest: &Digest) -> bool {
        false
    }

    fn sink(self: Arc<Self>, _expect: &Expect) -> Result<Box<dyn Sink>> {
        self.read_only("begin upload")
    }

    fn place_manifest(&self, _manifest: &Manifest) -> Result<()> {
        self.read_only("put manifest")
    }

    fn remove(&self, _digest: &Digest) -> Result<()> {
        self.read_only("delete")
    }
}
