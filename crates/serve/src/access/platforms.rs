//! Which platform a manifest is for, as the indexes that were served here said.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferry_oci::{Digest, Manifest, Name, Platform, Registry};

/// So many are remembered for certain, and up to twice as many in all.
const REMEMBERED: usize = 16_384;

/// A manifest of a repository.
type Key = (Option<Registry>, Name, Digest);

/// What was learnt. What is forgotten is allowed again until its index is served, as policy says of what is not known.
#[derive(Default)]
pub(super) struct Platforms(Mutex<Two>);

/// When the younger is full it becomes the older one, which is forgotten.
#[derive(Default)]
struct Two {
    young: HashMap<Key, Platform>,
    old: HashMap<Key, Platform>,
}

impl Platforms {
    /// Remembers what an index says of its manifests. One that is there for two platforms is of the first.
    pub(super) fn learn(&self, upstream: Option<&Registry>, name: &Name, index: &Manifest) {
        let mut two = self.two();
        for child in index.children() {
            let Some(platform) = &child.platform else { continue };
            if two.young.len() >= REMEMBERED {
                two.old = std::mem::take(&mut two.young);
            }
            let key = (upstream.cloned(), name.clone(), child.digest);
            two.young.entry(key).or_insert_with(|| platform.clone());
        }
    }

    /// The platform of a manifest, if an index said it.
    pub(super) fn of(&self, upstream: Option<&Registry>, name: &Name, digest: &Digest) -> Option<Platform> {
        let key = (upstream.cloned(), name.clone(), *digest);
        let two = self.two();
        two.young.get(&key).or_else(|| two.old.get(&key)).cloned()
    }

    fn two(&self) -> MutexGuard<'_, Two> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ferry_oci::media_type;

    use super::*;

    fn index(numbers: std::ops::Range<usize>, platform: &str) -> (Manifest, Vec<Digest>) {
        let digests: Vec<Digest> = numbers.map(|number| Digest::sha256(&number.to_le_bytes())).collect();
        let child = |digest: &Digest| {
            format!(
                r#"{{"mediaType":"{}","digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"{platform}"}}}}"#,
                media_type::OCI_MANIFEST
            )
        };
        let children: Vec<String> = digests.iter().map(child).collect();
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, children.join(","));
        (Manifest::parse(Some(media_type::OCI_INDEX), text.into()).unwrap(), digests)
    }

    #[test]
    fn what_an_index_said_is_known_in_its_repository() {
        let (platforms, quay) = (Platforms::default(), "quay.io".parse().unwrap());
        let name: Name = "a/b".parse().unwrap();
        let (manifest, digests) = index(0..2, "arm64");
        platforms.learn(Some(&quay), &name, &manifest);
        platforms.learn(Some(&quay), &name, &index(1..3, "amd64").0);
        let of = |upstream, name: &str, digest| {
            platforms.of(upstream, &name.parse().unwrap(), digest).map(|platform| platform.architecture)
        };
        assert_eq!(of(Some(&quay), "a/b", &digests[0]).as_deref(), Some("arm64"));
        assert_eq!(of(Some(&quay), "a/b", &digests[1]).as_deref(), Some("arm64"), "the first that was said");
        assert_eq!(of(None, "a/b", &digests[0]), None);
        assert_eq!(of(Some(&quay), "a/c", &digests[0]), None);
        assert_eq!(of(Some(&quay), "a/b", &manifest.digest()), None);
    }

    #[test]
    fn memory_is_bounded_and_the_latest_stays() {
        let (platforms, name) = (Platforms::default(), "a".parse().unwrap());
        for from in (0..REMEMBERED * 3).step_by(5000) {
            platforms.learn(None, &name, &index(from..from + 5000, "amd64").0);
        }
        let two = platforms.two();
        assert!(two.young.len() <= REMEMBERED && two.old.len() <= REMEMBERED);
        drop(two);
        let last = index(REMEMBERED * 2..REMEMBERED * 2 + 1, "amd64").1[0];
        assert!(platforms.of(None, &name, &last).is_some());
        assert!(platforms.of(None, &name, &index(0..1, "amd64").1[0]).is_none());
    }
}
