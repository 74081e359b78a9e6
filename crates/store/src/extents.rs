use std::ops::Range;

/// Which bytes of something are there: sorted, disjoint, non-adjacent ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extents(Vec<Range<u64>>);

impl Extents {
    /// No bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range, joining it with those that it touches.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|have| have.end < range.start);
        let last = self.0.partition_point(|have| have.start <= range.end);
        let joined = self.0[first..last]
            .iter()
            .fold(range, |sum, have| sum.start.min(have.start)..sum.end.max(have.end));
        self.0.splice(first..last, [joined]);
    }

    /// How many bytes are there from the beginning without a gap.
    pub fn prefix(&self) -> u64 {
        self.0.first().filter(|range| range.start == 0).map_or(0, |range| range.end)
    }

    /// How many bytes are there in all.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all of `range` is there.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.0.iter().any(|have| have.start <= range.start && range.end <= have.end)
    }

    /// What of `range` is not there, in order.
    pub fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for have in self.0.iter().filter(|have| have.start < range.end && range.start < have.end) {
            if at < have.start {
                gaps.push(at..have.start);
            }
            at = have.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }
}

impl FromIterator<Range<u64>> for Extents {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut extents = Self::new();
        for range in ranges {
            extents.insert(range);
        }
        extents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_join() {
        let mut extents: Extents = [10..20, 30..40].into_iter().collect();
        assert_eq!(extents.prefix(), 0);
        extents.insert(20..30);
        assert!(extents.iter().eq(std::iter::once(&(10..40))));
        extents.insert(0..5);
        assert_eq!((extents.prefix(), extents.len()), (5, 35));
        assert!(extents.covers(&(12..40)) && !extents.covers(&(4..6)));
    }

    #[test]
    fn gaps_are_what_is_not_there() {
        let extents: Extents = [10..20, 30..40].into_iter().collect();
        for (range, expected) in [
            (0..50, vec![(0, 10), (20, 30), (40, 50)]),
            (12..35, vec![(20, 30)]),
            (30..40, vec![]),
            (20..30, vec![(20, 30)]),
            (5..5, vec![]),
        ] {
            let found: Vec<_> = extents.gaps(range).iter().map(|gap| (gap.start, gap.end)).collect();
            assert_eq!(found, expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn equals_a_set_of_bytes(ranges in proptest::collection::vec((0u64..60, 0u64..20), 0..12)) {
            let extents: Extents = ranges.iter().map(|(start, length)| *start..start + length).collect();
            let mut bytes = [false; 100];
            for (start, length) in ranges {
                bytes[start as usize..(start + length) as usize].fill(true);
            }
            proptest::prop_assert_eq!(extents.len(), bytes.iter().filter(|b| **b).count() as u64);
            proptest::prop_assert_eq!(extents.prefix(), bytes.iter().take_while(|b| **b).count() as u64);
            let ordered: Vec<_> = extents.iter().cloned().collect();
            proptest::prop_assert!(ordered.windows(2).all(|w| w[0].end < w[1].start));
        }
    }
}
