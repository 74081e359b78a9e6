//! Which lane brings which part of a blob.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// Parts are not smaller, or asking for them takes longer than getting them.
const SMALLEST_PART: u64 = 1 << 20;
/// The size of parts before it is known how fast they come.
const USUAL_PART: u64 = 8 << 20;
/// Parts are not larger, so that others can help with the rest.
const LARGEST_PART: u64 = 64 << 20;
/// So far ahead of the first lane somebody who waits waits for it.
const NEAR: u64 = 2 * SMALLEST_PART;
/// A part is as large as comes in this time.
const PART_TIME: Duration = Duration::from_secs(4);

/// What of a blob is still to come, and who brings it.
///
/// The first lane asks for everything at once, which is all that a fast source needs. When others join they take over the
/// rest of what it asked for, part by part from the lowest on, so that whoever sends in order has to wait least.
pub(crate) struct Work {
    /// Nobody's: the byte after each range by its first.
    unclaimed: BTreeMap<u64, u64>,
    /// The first lane's, without what it has brought.
    first: Range<u64>,
    /// How many extra lanes bring a part.
    extra: u64,
    part: u64,
}

impl Work {
    pub(crate) fn new(missing: Vec<Range<u64>>) -> Self {
        let unclaimed = missing.into_iter().map(|range| (range.start, range.end)).collect();
        Self { unclaimed, first: 0..0, extra: 0, part: USUAL_PART }
    }

    pub(crate) fn has_unclaimed(&self) -> bool {
        !self.unclaimed.is_empty()
    }

    /// Whether there is enough to do for one more lane.
    pub(crate) fn is_worth_sharing(&self) -> bool {
        self.unclaimed_bytes() >= SMALLEST_PART || self.first.end - self.first.start >= 2 * SMALLEST_PART
    }

    fn unclaimed_bytes(&self) -> u64 {
        self.unclaimed.iter().map(|(start, end)| end - start).sum()
    }

    /// A part small enough that all lanes end at about the same time.
    fn share(&self) -> u64 {
        let left = self.unclaimed_bytes() + self.first.end - self.first.start;
        (left / (2 * (self.extra + 1))).clamp(SMALLEST_PART, self.part)
    }

    /// What the first lane asks for next: all that is unclaimed in one piece, or a part if it is not alone. From a
    /// source without ranges everything up to the end.
    pub(crate) fn take_first(&mut self, ranged: bool) -> Option<Range<u64>> {
        let taken = if !ranged {
            let start = *self.unclaimed.first_key_value()?.0;
            let end = *self.unclaimed.last_key_value()?.1;
            self.unclaimed.clear();
            start..end
        } else if self.extra == 0 {
            self.take(u64::MAX)?
        } else {
            self.take(self.share())?
        };
        self.first = taken.clone();
        Some(taken)
    }

    /// A part for one more lane.
    pub(crate) fn take_part(&mut self) -> Option<Range<u64>> {
        let share = self.share();
        if self.unclaimed_bytes() < SMALLEST_PART && self.first.end - self.first.start >= 2 * SMALLEST_PART {
            let middle = self.first.start + share.min((self.first.end - self.first.start) / 2);
            self.give_back(middle..self.first.end);
            self.first.end = middle;
        }
        let part = self.take(share)?;
        self.extra += 1;
        Some(part)
    }

    /// A part for one more lane, from where somebody waits; `None` if the bytes are on their way, or soon will be.
    pub(crate) fn take_wanted(&mut self, at: u64) -> Option<Range<u64>> {
        if self.first.is_empty() {
            return None;
        }
        if self.first.contains(&at) && at - self.first.start > NEAR {
            self.give_back(at..self.first.end);
            self.first.end = at;
        }
        let (start, end) = self.unclaimed.range(..=at).next_back().map(|(start, end)| (*start, *end))?;
        if at >= end {
            return None;
        }
        let middle = at.saturating_add(self.part).min(end);
        self.unclaimed.remove(&start);
        for left in [start..at, middle..end] {
            if !left.is_empty() {
                self.give_back(left);
            }
        }
        self.extra += 1;
        Some(at..middle)
    }

    fn take(&mut self, most: u64) -> Option<Range<u64>> {
        let (start, end) = self.unclaimed.pop_first()?;
        let middle = start.saturating_add(most).min(end);
        if middle < end {
            self.unclaimed.insert(middle, end);
        }
        Some(start..middle)
    }

    /// Somebody did not bring this.
    pub(crate) fn give_back(&mut self, range: Range<u64>) {
        self.unclaimed.insert(range.start, range.end);
    }

    /// The first lane has come so far. True if it may stop: it is done, or others took over the rest.
    pub(crate) fn first_reached(&mut self, at: u64) -> bool {
        self.first.start = at.min(self.first.end);
        self.first.is_empty()
    }

    /// The first lane ends; returns the end of what it had to bring.
    pub(crate) fn first_ended(&mut self) -> u64 {
        let end = self.first.end;
        self.first = 0..0;
        end
    }

    /// An extra lane ends.
    pub(crate) fn part_ended(&mut self) {
        self.extra -= 1;
    }

    /// Makes later parts as large as suits a lane that brought `bytes` in `time`.
    pub(crate) fn learn_rate(&mut self, bytes: u64, time: Duration) {
        let rate = bytes as f64 / time.as_secs_f64().max(1e-6);
        self.part = ((rate * PART_TIME.as_secs_f64()) as u64).clamp(SMALLEST_PART, LARGEST_PART);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn work(ranges: &[(u64, u64)]) -> Work {
        Work::new(ranges.iter().map(|(start, end)| start * MIB..end * MIB).collect())
    }

    fn mib(range: Option<Range<u64>>) -> Option<(u64, u64)> {
        range.map(|range| (range.start / MIB, range.end / MIB))
    }

    #[test]
    fn alone_one_request_brings_all_that_is_in_one_piece() {
        let mut work = work(&[(0, 100), (200, 300)]);
        assert_eq!(mib(work.take_first(true)), Some((0, 100)));
        assert!(work.first_reached(100 * MIB));
        assert_eq!(work.first_ended(), 100 * MIB);
        assert_eq!(mib(work.take_first(true)), Some((200, 300)));
        assert!(!work.has_unclaimed());
    }

    #[test]
    fn a_source_without_ranges_is_read_once_through() {
        let mut work = work(&[(10, 20), (50, 60)]);
        assert_eq!(mib(work.take_first(false)), Some((10, 60)));
        assert_eq!(work.take_first(false), None);
    }

    #[test]
    fn others_take_over_from_the_first() {
        let mut work = work(&[(0, 128)]);
        work.take_first(true);
        assert!(!work.first_reached(8 * MIB));
        assert!(work.is_worth_sharing());
        assert_eq!(mib(work.take_part()), Some((16, 24)));
        assert_eq!(mib(work.take_part()), Some((24, 32)));
        assert!(work.first_reached(17 * MIB), "it stops where the others began");
        assert_eq!(work.first_ended(), 16 * MIB);
        assert_eq!(mib(work.take_first(true)), Some((32, 40)), "no longer everything");
    }

    #[test]
    fn parts_get_smaller_towards_the_end_but_not_tiny() {
        let mut work = work(&[(0, 64)]);
        let mut sizes = Vec::new();
        while let Some(part) = work.take_part() {
            sizes.push(part.end - part.start);
            if work.extra > 7 {
                work.part_ended();
            }
        }
        assert_eq!(sizes.iter().sum::<u64>(), 64 * MIB);
        assert_eq!(sizes[0], 8 * MIB);
        let (last, before) = sizes.split_last().unwrap();
        assert!(*last <= MIB && before.iter().all(|size| *size >= MIB), "{sizes:?}");
        assert!(before.is_sorted_by(|a, b| a >= b), "{sizes:?}");
    }

    #[test]
    fn what_was_not_brought_is_anybodys() {
        let mut work = work(&[(0, 4)]);
        work.take_first(true);
        work.first_reached(MIB);
        let end = work.first_ended();
        work.give_back(MIB..end);
        assert_eq!(mib(work.take_first(true)), Some((1, 4)));
        assert!(work.is_worth_sharing());
        assert!(!work.first_reached(3 * MIB));
        assert!(!work.is_worth_sharing(), "too little is left");
    }

    #[test]
    fn who_waits_far_ahead_gets_a_lane() {
        let mut work = work(&[(0, 100)]);
        assert_eq!(work.take_wanted(50 * MIB), None, "nothing is going on yet");
        work.take_first(true);
        work.first_reached(10 * MIB);
        assert_eq!(work.take_wanted(12 * MIB), None, "the first lane is about to come there");
        assert_eq!(work.take_wanted(5 * MIB), None, "that is there");
        assert_eq!(mib(work.take_wanted(50 * MIB)), Some((50, 58)));
        assert_eq!(work.take_wanted(51 * MIB), None, "on its way");
        assert_eq!(mib(work.take_wanted(95 * MIB)), Some((95, 100)));
        assert_eq!(mib(work.take_wanted(58 * MIB)), Some((58, 66)), "the next part of the same reader");
        assert!(work.first_reached(50 * MIB), "others have the rest");
        work.first_ended();
        assert_eq!(mib(work.take_first(false)), Some((66, 95)), "and nothing is left out");
    }

    #[test]
    fn fast_lanes_get_larger_parts() {
        let mut work = work(&[(0, 10_000)]);
        work.take_first(true);
        work.learn_rate(8 * MIB, Duration::from_millis(800));
        assert_eq!(mib(work.take_part()), Some((40, 80)));
        work.learn_rate(1, Duration::from_secs(5));
        assert_eq!(mib(work.take_part()), Some((80, 81)));
    }
}
