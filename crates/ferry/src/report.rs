//! What a run says about its images.

use std::time::Duration;

use ferry_transfer::{Figures, Outcome};

use crate::exit::Exit;
use crate::records::{Images, SummaryRecord};
use crate::settings::Pair;

/// Sums up a run.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    images: Images,
    figures: Figures,
    /// Nothing is done.
    dry: bool,
    /// Images of which only what belongs to them is missing.
    bare: usize,
    /// Archives could not be finished.
    unfinished: bool,
}

/// The line about one image, to which nothing is done if `dry`.
pub(crate) fn line(pair: &Pair, outcome: &Outcome, dry: bool) -> String {
    let Pair { source, target, .. } = pair;
    match outcome {
        Outcome::Copied { digest, figures } => {
            let changed = outcome.degraded().map_or_else(String::new, |changed| {
                format!(", changed ({}), was {}", changed.applied, changed.original)
            });
            let copied = copied(dry);
            format!("{copied:<10} {source} -> {target}  {digest}  {}{changed}", moved(figures, dry))
        }
        Outcome::Unchanged { digest } => format!("unchanged  {source} -> {target}  {digest}"),
        Outcome::Failed { error, arrived: None, .. } => format!("failed     {source} -> {target}  {error}"),
        Outcome::Failed { error, arrived: Some(digest), .. } => format!(
            "failed     {source} -> {target}  the image is there ({digest}), what belongs to it is not: {error}"
        ),
        Outcome::Stopped => format!("left       {source} -> {target}"),
    }
}

fn copied(dry: bool) -> &'static str {
    if dry { "to copy" } else { "copied" }
}

impl Summary {
    /// Of a run that does nothing if `dry`.
    pub(crate) fn new(dry: bool) -> Self {
        Self { dry, ..Self::default() }
    }

    /// Whether images are at their targets, and none is left.
    pub(crate) fn has_what_to_finish(&self) -> bool {
        self.images.left == 0 && self.images.copied + self.images.unchanged + self.bare > 0
    }

    /// The archives could not be finished.
    pub(crate) fn no_archive(&mut self) {
        self.unfinished = true;
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let figures = match outcome {
            Outcome::Copied { figures, .. } => {
                self.images.copied += 1;
                *figures
            }
            Outcome::Failed { figures, arrived, .. } => {
                self.images.failed += 1;
                self.bare += usize::from(arrived.is_some());
                *figures
            }
            Outcome::Unchanged { .. } => {
                self.images.unchanged += 1;
                return;
            }
            Outcome::Stopped => {
                self.images.left += 1;
                return;
            }
        };
        self.figures.moved += figures.moved;
        self.figures.bytes += figures.bytes;
        self.figures.mounted += figures.mounted;
        self.figures.present += figures.present;
        self.figures.manifests += figures.manifests;
        self.figures.referrers += figures.referrers;
        self.figures.left_behind += figures.left_behind;
    }

    pub(crate) fn exit(&self) -> Exit {
        let Images { copied, unchanged, failed, left } = self.images;
        match (left, failed, copied + unchanged) {
            _ if self.unfinished => Exit::AllFailed,
            (1.., ..) => Exit::Stopped,
            (0, 0, _) => Exit::Done,
            (0, _, 0) => Exit::AllFailed,
            _ => Exit::SomeFailed,
        }
    }

    /// How many images the run has.
    pub(crate) fn images(&self) -> usize {
        let Images { copied, unchanged, failed, left } = self.images;
        copied + unchanged + failed + left
    }

    /// The same for programs.
    pub(crate) fn record(&self, fetched: u64, elapsed: Duration) -> SummaryRecord {
        SummaryRecord {
            images: self.images,
            blobs: self.figures.into(),
            manifests: self.figures.manifests,
            referrers: self.figures.referrers,
            left_behind: self.figures.left_behind,
            fetched_bytes: fetched,
            seconds: elapsed.as_secs_f64(),
            exit: self.exit().code(),
        }
    }

    /// The last line; `fetched` is how many bytes of blobs came from the sources, `elapsed` how long the run took.
    pub(crate) fn text(&self, fetched: u64, elapsed: Duration) -> String {
        let images = self.images();
        let Images { copied, unchanged, failed, left } = self.images;
        let counts =
            [(copied, self::copied(self.dry)), (unchanged, "unchanged"), (failed, "failed"), (left, "left")];
        let counts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let images = counted(images, "image");
        let fetched = match self.dry {
            true => "nothing is copied".to_owned(),
            false => format!("{} fetched in {:.1} s", size(fetched), elapsed.as_secs_f64()),
        };
        format!("{images}: {}; {}, {fetched}", counts.join(", "), moved(&self.figures, self.dry))
    }
}

fn moved(figures: &Figures, dry: bool) -> String {
    let Figures { moved, bytes, mounted, present, referrers, left_behind, .. } = figures;
    let sent = if dry { "to send" } else { "sent" };
    let mut text = format!("{} {sent} ({})", counted(*moved, "blob"), size(*bytes));
    for (n, what) in [(mounted, "mounted"), (present, "already there")] {
        if *n > 0 {
            text += &format!(", {n} {what}");
        }
    }
    if *referrers > 0 {
        text += &format!(", {}", counted(*referrers, "referrer"));
    }
    if *left_behind > 0 {
        text +=
            &format!(", {} left behind, which the target does not take", counted(*left_behind, "referrer"));
    }
    text
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes in decimal units, as networks and registries count them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1 << 40, "1.1 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn exit_codes() {
        let exit = |copied, unchanged, failed, left| {
            let images = Images { copied, unchanged, failed, left };
            Summary { images, ..Summary::default() }.exit().code()
        };
        assert_eq!(exit(1, 1, 0, 0), 0);
        assert_eq!(exit(1, 0, 1, 0), 1);
        assert_eq!(exit(0, 1, 1, 0), 1);
        assert_eq!(exit(1, 1, 1, 1), 3);
        assert_eq!(exit(0, 0, 2, 0), 4);
    }
}
