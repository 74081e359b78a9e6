use std::collections::HashMap;
use std::hash::Hash;

/// So many clients are remembered of each kind. A hundred bytes each, that is a few megabytes.
pub(super) const CLIENTS: usize = 1 << 16;

/// What is remembered of clients, of at most so many.
///
/// When it is full, the eighth that has taken least is forgotten: they lose little by it, and whoever fills the table from
/// many addresses does not make us forget those that it limits.
pub(super) struct Table<K, V> {
    most: usize,
    /// How much a client has taken, or how recently.
    weight: fn(&V) -> u64,
    entries: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Table<K, V> {
    /// A table of `most` clients, of which at least one is needed.
    pub(super) fn new(most: usize, weight: fn(&V) -> u64) -> Self {
        Self { most, weight, entries: HashMap::new() }
    }

    /// What is remembered of a client, else what `fresh` makes.
    pub(super) fn entry(&mut self, key: K, fresh: impl FnOnce() -> V) -> &mut V {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            self.forget_some();
        }
        self.entries.entry(key).or_insert_with(fresh)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    fn forget_some(&mut self) {
        let mut weights: Vec<u64> = self.entries.values().map(self.weight).collect();
        let mut left = (weights.len() / 8).max(1);
        let Some(last) = left.checked_sub(1).filter(|last| *last < weights.len()) else { return };
        let (_, highest, _) = weights.select_nth_unstable(last);
        let (highest, weight) = (*highest, self.weight);
        self.entries.retain(|_, value| {
            let goes = left > 0 && weight(value) <= highest;
            left -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lightest_are_forgotten() {
        let mut table = Table::new(16, |weight: &u64| *weight);
        for key in 0..16u64 {
            *table.entry(key, || 0) = key + 1;
        }
        *table.entry(99, || 0) = 50;
        let get = |key| table.entries.get(&key);
        assert!(get(0).is_none() && get(1).is_none());
        assert_eq!((get(2), get(99)), (Some(&3), Some(&50)));
        assert_eq!(table.iter().count(), 15);
    }

    #[test]
    fn it_never_grows_beyond_its_bound() {
        for most in [1, 2, 100] {
            let mut table = Table::new(most, |_: &()| 7);
            for key in 0..10_000 {
                table.entry(key, || ());
                assert!(table.iter().count() <= most);
            }
            assert!(table.entries.contains_key(&9_999));
        }
    }
}
