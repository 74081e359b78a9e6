//! What a [`super::MemoryStore`] holds, and every change to it as one step.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Name, Reference, Tag, media_type};

use crate::{
    Begun, Cursor, Error, Kind, Mount, Page, PageRequest, RepositoryEntry, Result, Scope, TagEntry,
    UploadToken,
};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) scope: Scope,
    pub(super) name: Name,
}

#[derive(Default)]
pub(super) struct State {
    repositories: BTreeMap<Key, Content>,
    uploads: HashMap<UploadToken, Pending>,
    uploads_begun: u64,
    sparse_indexes: bool,
}

/// An unfinished upload.
struct Pending {
    key: Key,
    bytes: Vec<u8>,
    /// Whether someone may write to it now; nobody else may meanwhile.
    held: bool,
}

impl State {
    pub(super) fn content(&self, key: &Key) -> Option<&Content> {
        self.repositories.get(key)
    }

    pub(super) fn take_sparse_indexes(&mut self) {
        self.sparse_indexes = true;
    }

    pub(super) fn content_mut(&mut self, key: &Key) -> Option<&mut Content> {
        self.repositories.get_mut(key)
    }

    pub(super) fn blob(&self, key: &Key, digest: &Digest) -> Option<Bytes> {
        self.content(key)?.blobs.get(digest).cloned()
    }

    pub(super) fn link(&mut self, key: &Key, digest: Digest, bytes: Bytes) {
        self.repositories.entry(key.clone()).or_default().blobs.insert(digest, bytes);
    }

    pub(super) fn hosted(&self, prefix: &str, request: &PageRequest) -> Page<RepositoryEntry> {
        let hosted = self.repositories.keys().filter(|key| key.scope == Scope::Hosted);
        let wanted = hosted.filter(|key| key.name.as_str().starts_with(prefix));
        let entries = wanted.map(|key| RepositoryEntry { name: key.name.clone() });
        page(entries, request, |entry| entry.name.to_string())
    }

    /// Finds a blob that need not be uploaded, and links it into the repository.
    pub(super) fn take_from(&mut self, key: &Key, digest: &Digest, mount: &Mount) -> Option<Begun> {
        if *mount != Mount::No && self.blob(key, digest).is_some() {
            return Some(Begun::Exists);
        }
        let bytes = match mount {
            Mount::No => None,
            Mount::From(names) => names
                .iter()
                .find_map(|name| self.blob(&Key { scope: key.scope.clone(), name: name.clone() }, digest)),
            Mount::Anywhere => {
                let mut peers = self.repositories.iter().filter(|(peer, _)| peer.scope == key.scope);
                peers.find_map(|(_, content)| content.blobs.get(digest).cloned())
            }
        };
        self.link(key, *digest, bytes?);
        Some(Begun::Mounted)
    }

    pub(super) fn put_manifest(&mut self, key: &Key, manifest: &Manifest, tag: Option<&Tag>) -> Result<()> {
        let nothing = Content::default();
        let missing = self.content(key).unwrap_or(&nothing).missing(manifest);
        if let Some(missing) = missing.filter(|_| !self.sparse_indexes || manifest.children().is_empty()) {
            let detail = format!("the repository lacks {}", missing.digest);
            return Err(Error::new(Kind::Incomplete, "push manifest", manifest.digest(), detail));
        }
        let content = self.repositories.entry(key.clone()).or_default();
        content.manifests.insert(manifest.digest(), manifest.clone());
        if let Some(tag) = tag {
            content.tags.insert(tag.clone(), manifest.digest());
        }
        Ok(())
    }

    /// Opens an upload and holds it.
    pub(super) fn begin_upload(&mut self, key: &Key) -> UploadToken {
        self.uploads_begun += 1;
        let token = UploadToken::new(format!("upload-{}", self.uploads_begun));
        let pending = Pending { key: key.clone(), bytes: Vec::new(), held: true };
        self.uploads.insert(token.clone(), pending);
        token
    }

    /// Takes hold of an upload; false if there is none of this repository.
    pub(super) fn hold_upload(&mut self, key: &Key, token: &UploadToken) -> Result<bool> {
        let Some(pending) = self.uploads.get_mut(token).filter(|pending| pending.key == *key) else {
            return Ok(false);
        };
        if std::mem::replace(&mut pending.held, true) {
            let detail = "someone else is writing to it";
            return Err(Error::new(Kind::Unavailable, "resume upload", &key.name, detail));
        }
        Ok(true)
    }

    pub(super) fn release_upload(&mut self, token: &UploadToken) {
        if let Some(pending) = self.uploads.get_mut(token) {
            pending.held = false;
        }
    }

    /// The bytes of an upload that the caller holds.
    pub(super) fn upload_bytes(&mut self, token: &UploadToken) -> Option<&mut Vec<u8>> {
        self.uploads.get_mut(token).map(|pending| &mut pending.bytes)
    }

    /// Ends an upload.
    pub(super) fn end_upload(&mut self, token: &UploadToken) -> Option<(Key, Bytes)> {
        self.uploads.remove(token).map(|pending| (pending.key, Bytes::from(pending.bytes)))
    }
}

/// What one repository holds.
#[derive(Default)]
pub(super) struct Content {
    blobs: HashMap<Digest, Bytes>,
    manifests: BTreeMap<Digest, Manifest>,
    tags: BTreeMap<Tag, Digest>,
}

impl Content {
    pub(super) fn manifest(&self, reference: &Reference) -> Option<&Manifest> {
        self.manifests.get(match reference {
            Reference::Digest(digest) => digest,
            Reference::Tag(tag) => self.tags.get(tag)?,
        })
    }

    /// The first thing that `manifest` names and the repository lacks.
    fn missing<'a>(&self, manifest: &'a Manifest) -> Option<&'a Descriptor> {
        let blob = manifest.blobs().into_iter().find(|blob| !self.blobs.contains_key(&blob.digest));
        blob.or_else(|| manifest.children().iter().find(|child| !self.holds_child(child)))
    }

    /// An index may list blobs too: BuildKit keeps its cache so.
    fn holds_child(&self, child: &Descriptor) -> bool {
        let is_blob = !media_type::is_manifest(&child.media_type) && self.blobs.contains_key(&child.digest);
        is_blob || self.manifests.contains_key(&child.digest)
    }

    pub(super) fn tags(&self, request: &PageRequest) -> Page<TagEntry> {
        let entries = self.tags.iter().map(|(tag, digest)| TagEntry {
            tag: tag.clone(),
            digest: Some(*digest),
            pushed: None,
        });
        page(entries, request, |entry| entry.tag.to_string())
    }

    pub(super) fn referrers(
        &self,
        subject: &Digest,
        artifact_type: Option<&str>,
        request: &PageRequest,
    ) -> Page<Descriptor> {
        let all = self.manifests.values().filter(|m| m.subject().is_some_and(|s| s.digest == *subject));
        let wanted = all.map(Manifest::referrer_descriptor).filter(|shown| {
            artifact_type.is_none_or(|wanted| shown.artifact_type.as_deref() == Some(wanted))
        });
        page(wanted, request, |shown| shown.digest.to_string())
    }

    /// Removes a tag, or a manifest with the tags on it; false if there is none.
    pub(super) fn remove(&mut self, reference: &Reference) -> bool {
        match reference {
            Reference::Tag(tag) => self.tags.remove(tag).is_some(),
            Reference::Digest(digest) => {
                self.tags.retain(|_, target| target != digest);
                self.manifests.remove(digest).is_some()
            }
        }
    }

    /// Removes a blob; false if there is none.
    pub(super) fn unlink(&mut self, digest: &Digest) -> bool {
        self.blobs.remove(digest).is_some()
    }
}

/// Cuts a page out of items that come in the byte order of their keys. A page without items has no successor, so
/// that nobody asks for empty pages for ever.
fn page<T>(items: impl Iterator<Item = T>, request: &PageRequest, key: impl Fn(&T) -> String) -> Page<T> {
    let after = request.after.as_ref().map(Cursor::as_str);
    let mut rest = items.skip_while(|item| after.is_some_and(|after| key(item).as_str() <= after));
    let items: Vec<T> = rest.by_ref().take(request.limit.unwrap_or(usize::MAX)).collect();
    let next = items.last().filter(|_| rest.next().is_some()).map(|last| Cursor::after(key(last)));
    Page::new(items, next)
}
