use std::collections::HashMap;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_transfer::Progress;
use tokio::time::Instant;

use super::pace::Pace;
use crate::report::size;

/// Blobs that have a line of their own, the largest.
const MOST_BLOBS: usize = 5;
/// Terminals from so many columns on have room for bars.
const WIDE: usize = 60;
const LONGEST_BAR: usize = 50;
/// What is further away than this is a guess that helps nobody.
const FAR: f64 = 100.0 * 3600.0;

/// Looks at a run again and again.
pub(super) struct Watcher {
    images: usize,
    over: Duration,
    fetched: Pace,
    sent: Pace,
    blobs: HashMap<Digest, Pace>,
}

/// What there is to see of a run at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub(super) done_images: usize,
    pub(super) images: usize,
    /// Bytes that are at the target; one that is only fetched counts half.
    pub(super) done: u64,
    pub(super) known: u64,
    /// Bytes per second.
    pub(super) rate: f64,
    pub(super) left: Option<Duration>,
    pub(super) blobs: Vec<Blob>,
}

/// A blob under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) done: u64,
    pub(super) rate: f64,
}

impl Watcher {
    /// Watches a run of so many images; rates are those of the last `over`.
    pub(super) fn new(images: usize, over: Duration) -> Self {
        Self { images, over, fetched: Pace::new(over), sent: Pace::new(over), blobs: HashMap::new() }
    }

    pub(super) fn look(&mut self, now: Instant, mut progress: Progress) -> View {
        // The same blob may be on its way into several repositories, one after the other.
        progress.blobs.sort_by(|a, b| b.size.cmp(&a.size).then(a.digest.cmp(&b.digest)));
        self.blobs.retain(|digest, _| progress.blobs.iter().any(|blob| blob.digest == *digest));
        let half = |fetched: u64, sent: u64| fetched / 2 + sent / 2 + (fetched % 2 + sent % 2) / 2;
        let under_way: u64 = progress.blobs.iter().map(|blob| half(blob.fetched, blob.sent)).sum();
        let done = (progress.done + under_way).min(progress.known);
        let rate = self.fetched.at(now, progress.fetched).max(self.sent.at(now, progress.sent));
        let blobs = progress.blobs.iter().map(|blob| {
            let pace = self.blobs.entry(blob.digest).or_insert_with(|| Pace::new(self.over));
            // Twice a half, so that a blob that is fetched and sent at the same time has the rate of either.
            let rate = pace.at(now, blob.fetched.max(blob.sent));
            Blob { digest: blob.digest, size: blob.size, done: half(blob.fetched, blob.sent), rate }
        });
        let blobs = blobs.take(MOST_BLOBS).collect();
        // Images that were not looked at yet are taken to be as large as the others.
        let all = progress.known as f64 * self.images as f64 / progress.begun.max(1) as f64;
        let seconds = (all - done as f64) / rate;
        let left = (rate > 0.0 && (0.0..FAR).contains(&seconds)).then(|| Duration::from_secs_f64(seconds));
        View {
            done_images: progress.done_images,
            images: self.images,
            done,
            known: progress.known,
            rate,
            left,
            blobs,
        }
    }
}

impl View {
    /// Lines for a terminal of so many columns. None reaches the last column, where some terminals begin a new line.
    pub(super) fn lines(&self, columns: usize) -> Vec<String> {
        let width = columns.saturating_sub(1);
        let blobs = self.blobs.iter().map(|blob| blob.line(width));
        blobs.chain([self.total(width)]).map(|line| line.chars().take(width).collect()).collect()
    }

    fn total(&self, width: usize) -> String {
        let Self { done_images, images, done, known, .. } = self;
        let mut long = format!("{}, {}/s", self.figures(""), size(self.rate as u64));
        if let Some(left) = self.left {
            long += &format!(", about {} left", time(left));
        }
        if long.len() <= width {
            return long;
        }
        let left = self.left.map(time).unwrap_or_default();
        format!("{done_images}/{images} {}/{} {}/s {left}", size(*done), size(*known), size(self.rate as u64))
    }

    fn figures(&self, what: &str) -> String {
        let Self { done_images, images, done, known, .. } = self;
        let noun = if *images == 1 { "image" } else { "images" };
        format!("{done_images} of {images} {noun}{what}, {} of {}", size(*done), size(*known))
    }

    /// A line for a log; `idle` is how long nothing has moved.
    pub(super) fn heartbeat(&self, idle: Option<Duration>) -> String {
        let figures = self.figures(" done");
        match (idle, self.left) {
            (Some(idle), _) => format!("{figures}, nothing has moved for {}", time(idle)),
            (None, Some(left)) => {
                format!("{figures}, {}/s, about {} left", size(self.rate as u64), time(left))
            }
            (None, None) => format!("{figures}, {}/s", size(self.rate as u64)),
        }
    }
}

impl Blob {
    fn line(&self, width: usize) -> String {
        let percent = u128::from(self.done.min(self.size)) * 100 / u128::from(self.size.max(1));
        let (whole, rate) = (size(self.size), size(self.rate as u64));
        let name = self.digest.to_string();
        let name = name.split_once(':').map_or("", |(_, hex)| hex);
        if width < WIDE {
            return format!("{} {percent:>3}% of {whole} {rate}/s", name.get(..8).unwrap_or(name));
        }
        let name = name.get(..12).unwrap_or(name);
        let figures = format!("{percent:>3}% of {whole:>8} {rate:>8}/s");
        let length = width.saturating_sub(name.len() + figures.len() + 4).min(LONGEST_BAR);
        let filled = length * percent as usize / 100;
        format!("{name} [{}{}] {figures}", "=".repeat(filled), " ".repeat(length - filled))
    }
}

/// A time as people say it: two figures at most.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60, seconds) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, _) => format!("{minutes} min"),
        (hours, minutes, _) => format!("{hours} h {} min", minutes % 60),
    }
}
