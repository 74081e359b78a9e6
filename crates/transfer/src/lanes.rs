//! How many connections at once bring more from a source than fewer do.
//!
//! The answer is found by trying: double, look, and go back if it was of no use. On a link that is slow for each
//! connection (a long way, a shaper) more of them bring more; where the whole link is full, or the disk or the processor
//! is what holds things up, they only cost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a rate is measured.
const PERIOD: Duration = Duration::from_secs(1);
/// How long connections run before they are measured: at first they are slow.
const SETTLE: Duration = Duration::from_millis(500);
/// How long a connection may take to bring its first byte before the attempt counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause after an attempt that brought nothing; each later one is twice as long.
const REST: Duration = Duration::from_secs(10);
/// The longest such pause.
const LONGEST_REST: Duration = Duration::from_secs(80);
/// The part of the ideal gain (twice the connections, twice the rate) that more connections must bring to stay.
const WORTH: f64 = 0.25;

/// The connections to one source, and how many more than one for each blob are of use.
pub(crate) struct Lanes(Mutex<Inner>);

struct Inner {
    control: Control,
    seen: Seen,
    /// Lanes beside the first one of each blob.
    extra: usize,
    /// The source sends everything from the beginning, whatever range is asked for.
    ranges_ignored: bool,
}

/// What is going on at a source.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Bytes that came so far.
    bytes: u64,
    /// Bodies that are being read.
    streams: usize,
    /// Extra lanes that have not brought a byte yet.
    starting: usize,
    /// Somebody would use more lanes.
    wanted: bool,
}

impl Lanes {
    /// For a source from which at most `most` extra lanes read at a time.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let control = Control::new(most);
        let inner = Inner { control, seen: Seen::default(), extra: 0, ranges_ignored: false };
        Arc::new(Self(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot leave the numbers half-written, so the poison is of no account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes that came from the source.
    pub(crate) fn add(&self, bytes: usize) {
        self.lock().seen.bytes += bytes as u64;
    }

    /// Counts a body that is being read, until the guard is dropped.
    pub(crate) fn reading(self: &Arc<Self>) -> Reading {
        self.lock().seen.streams += 1;
        Reading(Arc::clone(self))
    }

    /// A further lane, if one is allowed now and `slots` has a free place.
    pub(crate) fn seat(self: &Arc<Self>, slots: &Arc<Semaphore>) -> Option<Seat> {
        let mut inner = self.lock();
        if inner.ranges_ignored {
            return None;
        }
        inner.seen.wanted = true;
        if inner.extra >= inner.control.extra {
            return None;
        }
        self.sit(&mut inner, slots)
    }

    /// A further lane for bytes that somebody waits for, whether or not more of them bring more.
    pub(crate) fn urgent_seat(self: &Arc<Self>, slots: &Arc<Semaphore>) -> Option<Seat> {
        let mut inner = self.lock();
        if inner.ranges_ignored {
            return None;
        }
        self.sit(&mut inner, slots)
    }

    fn sit(self: &Arc<Self>, inner: &mut Inner, slots: &Arc<Semaphore>) -> Option<Seat> {
        let permit = Arc::clone(slots).try_acquire_owned().ok()?;
        inner.extra += 1;
        inner.seen.starting += 1;
        Some(Seat { lanes: Arc::clone(self), starting: true, _permit: permit })
    }

    /// To be called several times a second by whoever fills a blob.
    pub(crate) fn tick(&self, now: Instant) {
        let mut inner = self.lock();
        let seen = inner.seen;
        inner.control.observe(now, seen);
        inner.seen.wanted = false;
    }

    /// The source said or showed that it is asked too much.
    pub(crate) fn overloaded(&self, now: Instant) {
        self.lock().control.back_off(now);
    }

    /// The source does not begin where it is asked to.
    pub(crate) fn ranges_are_ignored(&self) {
        self.lock().ranges_ignored = true;
    }

    /// Whether parts of a blob can be asked for, as far as is known.
    pub(crate) fn has_ranges(&self) -> bool {
        !self.lock().ranges_ignored
    }

    /// Bytes that came from the source so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().seen.bytes
    }
}

/// A body that is being read.
pub(crate) struct Reading(Arc<Lanes>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.lock().seen.streams -= 1;
    }
}

/// The place of an extra lane, free again when dropped.
pub(crate) struct Seat {
    lanes: Arc<Lanes>,
    starting: bool,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    /// The lane has brought something.
    pub(crate) fn started(&mut self) {
        if std::mem::take(&mut self.starting) {
            self.lanes.lock().seen.starting -= 1;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.started();
        self.lanes.lock().extra -= 1;
    }
}

/// Decides how many extra lanes are allowed. Knows no clock and no network.
struct Control {
    most: usize,
    extra: usize,
    phase: Phase,
    rest: Duration,
}

/// How many connections brought how much.
#[derive(Debug, Clone, Copy)]
struct Level {
    extra: usize,
    streams: usize,
    rate: f64,
}

enum Phase {
    /// Nobody wants more.
    Idle,
    /// Finding out what there is now, with so many bytes at its beginning.
    Measuring { since: Instant, begun: Seen },
    /// More lanes are on their way.
    Starting { since: Instant, before: Level },
    /// Finding out what they bring.
    Probing { since: Instant, begun: Seen, before: Level },
    /// Nothing is tried before then.
    Resting { until: Instant },
}

impl Control {
    fn new(most: usize) -> Self {
        Self { most, extra: 0, phase: Phase::Idle, rest: REST }
    }

    fn observe(&mut self, now: Instant, seen: Seen) {
        match self.phase {
            Phase::Resting { until } if now < until => {}
            Phase::Idle | Phase::Resting { .. } => {
                self.phase = if seen.wanted { measuring(now, seen) } else { Phase::Idle };
            }
            Phase::Measuring { since, begun } => self.measure(now, seen, since, begun),
            Phase::Starting { since, before } => {
                if seen.starting == 0 && now >= since + SETTLE {
                    self.phase = Phase::Probing { since: now, begun: seen, before };
                } else if now >= since + PATIENCE {
                    self.go_back(now, before);
                }
            }
            Phase::Probing { since, begun, before } if now >= since + PERIOD => {
                let level = self.level(now, seen, since, begun);
                self.judge(now, level, before, seen.wanted);
            }
            Phase::Probing { .. } => {}
        }
    }

    fn measure(&mut self, now: Instant, seen: Seen, since: Instant, begun: Seen) {
        if seen.streams != begun.streams || !seen.wanted {
            // A rate of other connections says nothing about these.
            self.phase = Phase::Idle;
        } else if now >= since + PERIOD {
            let level = self.level(now, seen, since, begun);
            self.try_more(now, level);
        }
    }

    fn level(&self, now: Instant, seen: Seen, since: Instant, begun: Seen) -> Level {
        let rate = (seen.bytes - begun.bytes) as f64 / (now - since).as_secs_f64();
        Level { extra: self.extra, streams: seen.streams.max(1), rate }
    }

    fn try_more(&mut self, now: Instant, before: Level) {
        if self.extra >= self.most {
            self.phase = Phase::Resting { until: now + REST };
            return;
        }
        self.extra = (self.extra + before.streams).min(self.most);
        self.phase = Phase::Starting { since: now, before };
    }

    fn judge(&mut self, now: Instant, level: Level, before: Level, wanted: bool) {
        if level.streams <= before.streams {
            // Others took the places, or the blob is nearly done: nothing was learnt.
            self.extra = before.extra;
            self.phase = Phase::Idle;
            return;
        }
        let ideal = level.streams as f64 / before.streams as f64;
        if level.rate < before.rate * (1.0 + WORTH * (ideal - 1.0)) {
            self.go_back(now, before);
            return;
        }
        self.rest = REST;
        if wanted { self.try_more(now, level) } else { self.phase = Phase::Idle }
    }

    fn go_back(&mut self, now: Instant, before: Level) {
        self.extra = before.extra;
        self.phase = Phase::Resting { until: now + self.rest };
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }

    fn back_off(&mut self, now: Instant) {
        self.extra /= 2;
        self.phase = Phase::Resting { until: now + self.rest };
        self.rest = (self.rest * 2).min(LONGEST_REST);
    }
}

fn measuring(now: Instant, begun: Seen) -> Phase {
    Phase::Measuring { since: now, begun }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// A source that brings `rate(streams)` bytes per second, read by `blobs` blobs and as many extra lanes as are
    /// allowed.
    struct Line {
        control: Control,
        now: Instant,
        bytes: f64,
        blobs: usize,
    }

    impl Line {
        fn new(most: usize, blobs: usize) -> Self {
            Self { control: Control::new(most), now: Instant::now(), bytes: 0.0, blobs }
        }

        fn run(&mut self, seconds: u64, rate: impl Fn(usize) -> f64) {
            for _ in 0..seconds * 10 {
                let streams = self.blobs + self.control.extra;
                self.bytes += rate(streams) * TICK.as_secs_f64();
                self.now += TICK;
                let seen = Seen { bytes: self.bytes as u64, streams, starting: 0, wanted: true };
                self.control.observe(self.now, seen);
            }
        }
    }

    #[test]
    fn where_each_connection_is_slow_there_are_soon_many() {
        let mut line = Line::new(7, 1);
        line.run(7, |streams| 2.5e6 * streams as f64);
        assert_eq!(line.control.extra, 7);
        line.run(600, |streams| 2.5e6 * streams as f64);
        assert_eq!(line.control.extra, 7, "and they stay");
    }

    #[test]
    fn where_the_whole_link_is_full_there_is_one_nearly_all_the_time() {
        let mut line = Line::new(7, 1);
        let mut alone = 0;
        for _ in 0..600 {
            line.run(1, |_| 1e6);
            alone += usize::from(line.control.extra == 0);
        }
        assert!(alone > 540, "{alone} of 600 seconds");
    }

    #[test]
    fn as_many_as_fill_the_link() {
        let mut line = Line::new(31, 1);
        line.run(12, |streams| (2.5e6 * streams as f64).min(10e6));
        assert!((3..=7).contains(&line.control.extra), "{}", line.control.extra);
    }

    #[test]
    fn a_source_that_is_overloaded_is_left_in_peace_for_a_while() {
        let mut line = Line::new(7, 1);
        line.run(7, |streams| streams as f64 * 1e6);
        line.control.back_off(line.now);
        assert_eq!(line.control.extra, 3);
        line.run(9, |streams| streams as f64 * 1e6);
        assert_eq!(line.control.extra, 3);
        line.run(10, |streams| streams as f64 * 1e6);
        assert_eq!(line.control.extra, 7);
    }

    #[test]
    fn lanes_that_bring_nothing_are_given_up() {
        let mut control = Control::new(7);
        let mut now = Instant::now();
        for tick in 0..150 {
            now += TICK;
            let starting = control.extra;
            let seen = Seen { bytes: tick * 1000, streams: 1 + control.extra, starting, wanted: true };
            control.observe(now, seen);
        }
        assert_eq!(control.extra, 0);
        assert!(matches!(control.phase, Phase::Resting { .. }));
    }

    #[test]
    fn places_are_given_back() {
        let lanes = Lanes::new(4);
        let slots = Arc::new(Semaphore::new(2));
        lanes.lock().control.extra = 3;
        let mut first = lanes.seat(&slots).unwrap();
        let second = lanes.seat(&slots).unwrap();
        assert!(lanes.seat(&slots).is_none(), "no slot is free");
        first.started();
        first.started();
        assert_eq!(lanes.lock().seen.starting, 1);
        drop((first, second));
        assert_eq!((lanes.lock().seen.starting, slots.available_permits()), (0, 2));
        assert_eq!(lanes.lock().extra, 0);
        lanes.ranges_are_ignored();
        assert!(lanes.seat(&slots).is_none());
    }
}
