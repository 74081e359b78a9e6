//! What must be readable in one repository, as far as its only client can know.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ferry_oci::{Digest, Manifest};

use crate::upkeep_fixtures::Time;

/// Seconds that a blob without manifest stays.
pub const GRACE: u64 = 300;
/// Seconds that what was used is not evicted.
pub const IN_USE: u64 = 300;
/// Seconds that an untagged manifest stays.
pub const UNTAGGED: u64 = 400;

/// What the client has stored and not removed, and when it last relied on it: by the clock before the operation, so
/// never later than the storage has it.
pub struct Model {
    /// Whether this is an upstream's repository, whose content may be evicted.
    pub evictable: bool,
    pub tags: BTreeMap<String, Digest>,
    pub manifests: HashMap<Digest, (Manifest, u64)>,
    pub blobs: HashMap<Digest, u64>,
    time: Time,
}

impl Model {
    pub fn new(evictable: bool, time: &Time) -> Self {
        let (tags, manifests, blobs) = Default::default();
        Self { evictable, tags, manifests, blobs, time: time.clone() }
    }

    /// The storage was made to rely on a manifest again: a tag was taken from it.
    pub fn rely_on(&mut self, digest: Option<Digest>, since: u64) {
        if let Some((_, before)) = digest.and_then(|digest| self.manifests.get_mut(&digest)) {
            *before = (*before).max(since);
        }
    }

    pub fn is_named(&self, digest: &Digest) -> bool {
        self.manifests.values().any(|(manifest, _)| named(manifest).contains(digest))
    }

    /// Whether something that was relied on at `since` has been for less than `seconds` until now.
    fn within(&self, since: u64, seconds: u64) -> bool {
        self.time.passed() - since < seconds
    }

    /// Whether the manifest must be there at this moment.
    pub fn must_have(&self, digest: &Digest) -> bool {
        self.must_have_all().contains(digest)
    }

    /// All manifests that must be there at this moment.
    pub fn must_have_all(&self) -> BTreeSet<Digest> {
        let fresh = if self.evictable { IN_USE.min(UNTAGGED) } else { UNTAGGED };
        let fresh = self.manifests.iter().filter(|(_, (_, since))| self.within(*since, fresh));
        let mut all: BTreeSet<Digest> = fresh.map(|(digest, _)| *digest).collect();
        if !self.evictable {
            all.extend(self.reachable());
        }
        all
    }

    pub fn tags_on(&self, digest: &Digest) -> Vec<String> {
        self.tags.iter().filter(|(_, at)| *at == digest).map(|(tag, _)| tag.clone()).collect()
    }

    /// Why a manifest must be there.
    fn reason(&self, digest: &Digest) -> String {
        let kind = if self.evictable { "evictable" } else { "hosted" };
        let since = self.manifests.get(digest).map(|(_, since)| *since);
        let tags = self.tags_on(digest);
        let reachable = self.reachable().contains(digest);
        format!("{kind}, {tags:?}, reachable: {reachable}, used {since:?} of {}", self.time.passed())
    }

    /// Whether the blob must be there at this moment.
    pub fn must_have_blob(&self, digest: &Digest) -> bool {
        let fresh = self.blobs.get(digest).is_some_and(|since| self.within(*since, GRACE.min(IN_USE)));
        let holds = |(manifest, _): &(Manifest, u64)| {
            named(manifest).contains(digest) && self.must_have(&manifest.digest())
        };
        fresh || self.manifests.values().any(holds)
    }

    /// What tags lead to: children and referrers, and theirs.
    fn reachable(&self) -> BTreeSet<Digest> {
        let mut found = BTreeSet::new();
        let mut waiting: Vec<Digest> = self.tags.values().copied().collect();
        while let Some(digest) = waiting.pop() {
            let Some((manifest, _)) = self.manifests.get(&digest) else { continue };
            if found.insert(digest) {
                waiting.extend(manifest.children().iter().map(|child| child.digest));
                let refers = |(m, _): &&(Manifest, u64)| m.subject().is_some_and(|s| s.digest == digest);
                waiting.extend(self.manifests.values().filter(refers).map(|(m, _)| m.digest()));
            }
        }
        found
    }

    /// A manifest turned out to be gone, and it may be.
    pub fn forget(&mut self, digest: &Digest) {
        assert!(!self.must_have(digest), "the manifest {digest} is lost: {}", self.reason(digest));
        self.manifests.remove(digest);
        self.tags.retain(|_, at| at != digest);
    }
}

pub fn named(manifest: &Manifest) -> Vec<Digest> {
    let children = manifest.children().iter().map(|child| child.digest);
    manifest.blobs().into_iter().map(|blob| blob.digest).chain(children).collect()
}
