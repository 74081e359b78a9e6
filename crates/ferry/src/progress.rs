//! What is seen of a copy while it runs: bars on a terminal, elsewhere a line from time to time. The transfer does not
//! know that somebody looks.

mod pace;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use ferry_transfer::{Copier, Progress};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cli::Progress as Typed;
use crate::{Environment, say};
use view::Watcher;

/// How often bars are drawn.
const DRAWN: Duration = Duration::from_millis(125);
/// The rates beside bars are those of the last seconds.
const OF_LATE: Duration = Duration::from_secs(5);
/// How often a line says that a run lives.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Bars,
    Lines,
    Nothing,
}

/// Shows the progress of a run until it is told to end.
pub(crate) struct Shown(Option<JoinHandle<()>>);

impl Shown {
    /// Begins to show how far `copier` is with so many images. Who wants to read what is tried again gets no bars.
    pub(crate) fn start(
        copier: &Copier,
        images: usize,
        typed: Typed,
        verbose: bool,
        term: &Environment,
    ) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let smart = is_terminal && term.variable("TERM").is_none_or(|term| term != "dumb");
        let copier = copier.clone();
        let task = match how(typed, smart, verbose) {
            How::Bars => tokio::spawn(bars(copier, images)),
            How::Lines => {
                tokio::spawn(heartbeat(move || copier.progress(), images, HEARTBEAT, |line| note!("{line}")))
            }
            How::Nothing => return Self(None),
        };
        Self(Some(task))
    }

    /// Takes the progress away.
    pub(crate) async fn end(self) {
        let Some(task) = self.0 else { return };
        task.abort();
        let _ = task.await;
        say::end_drawing();
    }
}

fn how(typed: Typed, smart_terminal: bool, verbose: bool) -> How {
    match typed {
        Typed::None => How::Nothing,
        Typed::Auto if smart_terminal && !verbose => How::Bars,
        Typed::Auto | Typed::Plain => How::Lines,
    }
}

async fn bars(copier: Copier, images: usize) {
    let mut watcher = Watcher::new(images, OF_LATE);
    let mut ticks = interval_at(Instant::now() + DRAWN, DRAWN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let now = ticks.tick().await;
        let (columns, rows) = terminal_size();
        let mut lines = watcher.look(now, copier.progress()).lines(columns);
        // What does not fit above the total is left out.
        lines.drain(..lines.len().saturating_sub(rows.saturating_sub(1).max(1)));
        say::draw(lines);
    }
}

/// Columns and rows of the terminal that standard error is; it may change while ferry runs.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// Says every so often how far a run is, above all that it lives.
async fn heartbeat(
    progress: impl Fn() -> Progress + Send,
    images: usize,
    every: Duration,
    say: impl Fn(String) + Send,
) {
    let mut watcher = Watcher::new(images, every);
    let mut before = progress();
    let _ = watcher.look(Instant::now(), before.clone());
    let mut idle = Duration::ZERO;
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let now = ticks.tick().await;
        let after = progress();
        let moved = after.fetched != before.fetched || after.sent != before.sent || after.done != before.done;
        idle = if moved { Duration::ZERO } else { idle + every };
        before = after.clone();
        say(watcher.look(now, after).heartbeat((!moved).then_some(idle)));
    }
}

#[cfg(test)]
mod tests;
