//! Tells of images as they are done, and of the run at its end.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use ferry_oci::Registry;
use ferry_store::Side;
use ferry_transfer::Outcome;

use crate::cli::{Output, ShownArguments};
use crate::commands::{Pullable, commands};
use crate::exit::{self, Exit};
use crate::records::Record;
use crate::report::{self, Summary};
use crate::say;
use crate::settings::{Fit, Pair};

/// In runs of more images the lines about those that failed are far above the end.
const FEW: usize = 5;

/// How a run tells of itself.
pub(crate) struct Reporter<'a> {
    shown: ShownArguments,
    tone: Tone,
    targets: &'a HashMap<Registry, Fit>,
    summary: Summary,
    /// Commands about archives, which are only whole at the end.
    later: Vec<String>,
    hints: Vec<String>,
    failed: Vec<String>,
    started: Instant,
}

/// What a run is like.
pub(crate) struct Tone {
    /// Tells also what is unchanged.
    pub(crate) verbose: bool,
    /// Nothing is done, so what would be is told.
    pub(crate) dry: bool,
    /// The targets that are spoken to in plain HTTP.
    pub(crate) plain_http: HashSet<Registry>,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(shown: ShownArguments, tone: Tone, targets: &'a HashMap<Registry, Fit>) -> Self {
        let (later, hints, failed) = Default::default();
        let (summary, started) = (Summary::new(tone.dry), Instant::now());
        Self { shown, tone, targets, summary, later, hints, failed, started }
    }

    /// Whether images are at their targets, and the run came to its end.
    pub(crate) fn has_what_to_finish(&self) -> bool {
        !self.tone.dry && self.summary.has_what_to_finish()
    }

    /// The archives could not be finished.
    pub(crate) fn no_archive(&mut self) {
        self.later.clear();
        self.summary.no_archive();
    }

    /// An image is done.
    pub(crate) fn image(&mut self, pair: &Pair, outcome: &Outcome) {
        self.summary.add(outcome);
        let hint = self.hint(pair, outcome);
        let commands = self.commands(pair, outcome);
        match self.shown.output {
            Output::Json => {
                say::line(&Record::image(pair, outcome, self.tone.dry).with(hint.clone(), commands).line())
            }
            Output::Text => self.text(pair, outcome, &commands),
        }
        self.hints.extend(hint.filter(|hint| !self.hints.contains(hint)));
    }

    fn text(&mut self, pair: &Pair, outcome: &Outcome, commands: &[String]) {
        let line = report::line(pair, outcome, self.tone.dry);
        if self.tone.verbose || !matches!(outcome, Outcome::Unchanged { .. }) {
            say::status(&line);
        }
        if pair.target.is_archive() {
            self.later.extend(
                commands.iter().filter(|command| !self.later.contains(command)).cloned().collect::<Vec<_>>(),
            );
        } else {
            commands.iter().for_each(|command| say::line(&format!("  {command}")));
        }
        if let Outcome::Failed { .. } = outcome {
            self.failed.push(line);
        }
    }

    fn commands(&self, pair: &Pair, outcome: &Outcome) -> Vec<String> {
        let (Outcome::Copied { digest, .. } | Outcome::Unchanged { digest }) = outcome else {
            return Vec::new();
        };
        if self.tone.dry {
            return Vec::new();
        }
        let Pair { source, target, .. } = pair;
        let plain_http = target.registry().is_some_and(|registry| self.tone.plain_http.contains(registry));
        commands(&self.shown.commands, &Pullable { source, target, digest: *digest, plain_http })
    }

    fn hint(&self, pair: &Pair, outcome: &Outcome) -> Option<String> {
        let Outcome::Failed { error, .. } = outcome else { return None };
        let endpoint = match error.side() {
            Some(Side::Source) => &pair.source,
            Some(Side::Target) => &pair.target,
            None => return exit::hint(error, None),
        };
        let registry = endpoint.registry();
        let fit = registry.and_then(|registry| self.targets.get(registry));
        fit.and_then(|fit| exit::before_push(error, fit.profile)).or_else(|| exit::hint(error, registry))
    }

    /// The run is over; `fetched` bytes of blobs came from sources, and `left` tells why images are left.
    pub(crate) fn end(mut self, fetched: u64, left: impl FnOnce(Duration) -> String) -> Exit {
        let elapsed = self.started.elapsed();
        let exit = self.summary.exit();
        match self.shown.output {
            Output::Json => {
                say::line(&Record::Summary(self.summary.record(fetched, elapsed)).line());
            }
            Output::Text => {
                if self.summary.images() > FEW && self.failed.len() < self.summary.images() {
                    for line in &self.failed {
                        say::status(line);
                    }
                }
                say::line(&self.summary.text(fetched, elapsed));
                self.later.iter().for_each(|command| say::line(&format!("  {command}")));
            }
        }
        if exit == Exit::Stopped {
            self.hints.push(left(elapsed));
        }
        for hint in self.hints {
            say::hint(&hint);
        }
        exit
    }
}
