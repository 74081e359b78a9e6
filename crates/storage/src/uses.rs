use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferry_oci::Digest;

/// How many contents are remembered; about 100 bytes each.
const CAPACITY: usize = 100_000;

/// When contents were used last, as far as the catalog does not know it exactly.
///
/// Reads only write here. Now and then everything is brought to the catalog, which writes down what it knows no
/// better than its resolution; what was used within the resolution stays here, so that recent uses are known exactly.
#[derive(Default)]
pub(crate) struct Uses(Mutex<HashMap<Digest, i64>>);

impl Uses {
    /// Notes a use; true if it is time to bring everything to the catalog.
    pub(crate) fn note(&self, digest: &Digest, now: i64) -> bool {
        let mut uses = self.uses();
        let before = uses.len();
        // Where the catalog cannot be written nothing is removed either, and memory stays bounded.
        if before < 2 * CAPACITY || uses.contains_key(digest) {
            uses.insert(*digest, now);
        }
        // Once at the mark, and not for every read that follows until the writing is done.
        uses.len() > before && uses.len() == CAPACITY
    }

    /// The last use that is remembered here.
    pub(crate) fn last(&self, digest: &Digest) -> Option<i64> {
        self.uses().get(digest).copied()
    }

    /// Everything that is remembered, and whether it is so much that the catalog must know it exactly. Nothing was used
    /// after `now`: a clock that said so was wrong.
    pub(crate) fn all(&self, now: i64) -> (Vec<(Digest, i64)>, bool) {
        let mut uses = self.uses();
        for used in uses.values_mut() {
            *used = now.min(*used);
        }
        let all: Vec<_> = uses.iter().map(|(digest, used)| (*digest, *used)).collect();
        let many = all.len() >= CAPACITY / 2;
        (all, many)
    }

    /// Forgets what the catalog knows now, if it was used at `until` or before and not again since.
    pub(crate) fn forget(&self, written: &[(Digest, i64)], until: i64) {
        let mut uses = self.uses();
        for (digest, used) in written {
            if *used <= until && uses.get(digest) == Some(used) {
                uses.remove(digest);
            }
        }
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<Digest, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_again_or_lately_stays() {
        let uses = Uses::default();
        let digests = [b"a", b"b", b"c"].map(|text| Digest::sha256(text));
        for (digest, used) in digests.iter().zip([10, 10, 90]) {
            assert!(!uses.note(digest, used));
        }
        let (written, many) = uses.all(100);
        assert!(written.len() == 3 && !many);
        uses.note(&digests[1], 11);
        uses.forget(&written, 50);
        assert_eq!(digests.map(|digest| uses.last(&digest)), [None, Some(11), Some(90)]);
    }

    #[test]
    fn memory_is_bounded_by_asking_for_a_flush() {
        let uses = Uses::default();
        let asked = (0..CAPACITY).filter(|n| uses.note(&Digest::sha256(&n.to_ne_bytes()), 1)).count();
        assert_eq!(asked, 1);
        let (written, many) = uses.all(100);
        assert!(many);
        uses.forget(&written, i64::MAX);
        assert!(uses.all(100).0.is_empty());
    }
}
