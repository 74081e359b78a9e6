//! Answers of the catalog that stay in memory while nobody writes to it: manifests and tags that clients ask for all the time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferry_oci::{Digest, Manifest, Tag};
use ferry_store::CachedTag;

use super::Key;

/// Bytes of manifests, at most; what is parsed of them takes about as much again.
const BYTES: usize = 4 << 20;

/// Manifests that are larger stay where they are.
const LARGE: usize = 256 << 10;

/// Tags, at most.
const TAGS: usize = 10_000;

/// What was read since the last time that something was written.
///
/// From when a writer has got its connection until that is back, however the writing ended, everything is read from the
/// catalog; then memory begins anew. So an answer from here is one that the catalog would give.
#[derive(Default)]
pub(crate) struct Memory {
    /// Odd while somebody may be writing, and never the same again.
    version: AtomicU64,
    known: Mutex<Known>,
}

/// A time at which nobody was writing.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Quiet(u64);

#[derive(Default)]
struct Known {
    since: Quiet,
    repositories: HashMap<Key, Repository>,
    tags: usize,
    bytes: usize,
}

#[derive(Default)]
struct Repository {
    tags: HashMap<Tag, CachedTag>,
    manifests: HashMap<Digest, Manifest>,
}

impl Memory {
    /// Somebody may write from now on.
    pub(super) fn writing(&self) {
        self.version.fetch_or(1, Ordering::SeqCst);
    }

    /// What was written can be read.
    pub(super) fn written(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// To be asked before the catalog is, by whoever wants to keep the answer here. `None` while somebody may be writing.
    pub(crate) fn quiet(&self) -> Option<Quiet> {
        let version = self.version.load(Ordering::SeqCst);
        version.is_multiple_of(2).then_some(Quiet(version))
    }

    pub(crate) fn tag(&self, key: &Key, tag: &Tag) -> Option<CachedTag> {
        let known = self.known(self.quiet()?);
        known.repositories.get(key)?.tags.get(tag).cloned()
    }

    pub(crate) fn manifest(&self, key: &Key, digest: &Digest) -> Option<Manifest> {
        let known = self.known(self.quiet()?);
        known.repositories.get(key)?.manifests.get(digest).cloned()
    }

    /// Keeps what was read since `quiet`.
    pub(crate) fn keep_tag(&self, quiet: Option<Quiet>, key: &Key, tag: &Tag, found: &CachedTag) {
        if let Some(mut known) = quiet.map(|quiet| self.known(quiet))
            && Some(known.since) == quiet
        {
            known.make_room(1, 0);
            let before = known.of(key).tags.insert(tag.clone(), found.clone());
            known.tags += usize::from(before.is_none());
        }
    }

    /// Keeps what was read since `quiet`.
    pub(crate) fn keep_manifest(&self, quiet: Option<Quiet>, key: &Key, manifest: &Manifest) {
        let size = manifest.bytes().len();
        if let Some(mut known) = quiet.filter(|_| size <= LARGE).map(|quiet| self.known(quiet))
            && Some(known.since) == quiet
        {
            known.make_room(0, size);
            let before = known.of(key).manifests.insert(manifest.digest(), manifest.clone());
            known.bytes += if before.is_none() { size } else { 0 };
        }
    }

    /// What is known, since then or a later time.
    fn known(&self, quiet: Quiet) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.since.0 < quiet.0 {
            *known = Known { since: quiet, ..Known::default() };
        }
        known
    }
}

impl Known {
    /// What is asked for all the time is back soon.
    fn make_room(&mut self, tags: usize, bytes: usize) {
        if self.tags + tags > TAGS || self.bytes + bytes > BYTES {
            *self = Self { since: self.since, ..Self::default() };
        }
    }

    fn of(&mut self, key: &Key) -> &mut Repository {
        self.repositories.entry(key.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use ferry_oci::{Descriptor, Name};
    use ferry_store::Scope;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(&Scope::Hosted, &name.parse::<Name>().unwrap())
    }

    fn tag(text: &str) -> CachedTag {
        let descriptor = Descriptor::new("a/b", Digest::sha256(text.as_bytes()), 1);
        CachedTag { descriptor, confirmed: SystemTime::UNIX_EPOCH, withdrawn: None }
    }

    #[test]
    fn nothing_is_kept_of_a_time_in_which_somebody_wrote() {
        let (memory, v1) = (Memory::default(), "v1".parse().unwrap());
        let keep = |quiet, text| memory.keep_tag(quiet, &key("a"), &v1, &tag(text));
        let known = || memory.tag(&key("a"), &v1).map(|known| known.descriptor.digest);
        keep(memory.quiet(), "one");
        assert_eq!(known(), Some(Digest::sha256(b"one")));
        assert!(memory.tag(&key("b"), &v1).is_none());

        let before = memory.quiet();
        memory.writing();
        assert_eq!(known(), None, "the catalog may say otherwise by now");
        assert!(memory.quiet().is_none());
        keep(before, "one");
        memory.written();
        assert_eq!(known(), None);
        keep(before, "one");
        assert_eq!(known(), None, "it was read before");
        keep(memory.quiet(), "two");
        assert_eq!(known(), Some(Digest::sha256(b"two")));
    }

    #[test]
    fn a_writer_that_never_gave_its_connection_back_is_followed_by_one_that_does() {
        let memory = Memory::default();
        memory.writing();
        memory.writing();
        assert!(memory.quiet().is_none());
        memory.written();
        assert!(memory.quiet().is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Memory::default();
        for n in 0..3 * TAGS {
            let name = format!("v{n}").parse().unwrap();
            memory.keep_tag(memory.quiet(), &key("a"), &name, &tag("one"));
            memory.keep_tag(memory.quiet(), &key("a"), &name, &tag("one"));
            assert!(memory.tag(&key("a"), &name).is_some(), "the last one is there");
        }
        let known = memory.known.lock().unwrap();
        let kept: usize = known.repositories.values().map(|one| one.tags.len()).sum();
        assert!(kept == known.tags && kept <= TAGS, "{kept}");
    }

    #[test]
    fn manifests_are_counted_in_bytes() {
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        let memory = Memory::default();
        let manifest = |n: usize, size: usize| {
            let annotations = format!(r#""annotations":{{"n":"{n}"}}"#);
            let text = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[],{annotations}}}"#);
            let padding = " ".repeat(size - text.len());
            Manifest::parse(None, (text + &padding).into()).unwrap()
        };
        for n in 0..50 {
            let manifest = manifest(n, LARGE);
            memory.keep_manifest(memory.quiet(), &key("a"), &manifest);
            assert!(memory.manifest(&key("a"), &manifest.digest()).is_some(), "{n}");
        }
        let kept = memory.known.lock().unwrap().repositories[&key("a")].manifests.len();
        assert!(kept <= BYTES / LARGE, "{kept}");
        let large = manifest(0, LARGE + 1);
        memory.keep_manifest(memory.quiet(), &key("a"), &large);
        assert!(memory.manifest(&key("a"), &large.digest()).is_none());
    }
}
