//! What is written on standard output and standard error, above the progress if there is some, and in which colours.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Environment;
use crate::cli::When;

/// Prints a line. That nobody reads any more is no reason to fail.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::line(&format!($($text)*)) };
}

/// Prints a line on standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::say::error_line(&format!($($text)*)) };
}

/// The lines of progress that others must not run into. One set, as there is one terminal.
static PROGRESS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The first error of standard output.
static UNSAID: Mutex<Option<std::io::Error>> = Mutex::new(None);

static COLOUR_OUT: AtomicBool = AtomicBool::new(false);
static COLOUR_ERR: AtomicBool = AtomicBool::new(false);

/// Decides on colours, for the rest of the run: those that were asked for, else <https://no-color.org> and `CLICOLOR`.
pub(crate) fn colour(when: When, environment: &Environment) {
    let decide = |is_terminal: bool| coloured(when, environment, is_terminal);
    COLOUR_OUT.store(decide(std::io::stdout().is_terminal()), Ordering::Relaxed);
    COLOUR_ERR.store(decide(std::io::stderr().is_terminal()), Ordering::Relaxed);
}

fn coloured(when: When, environment: &Environment, is_terminal: bool) -> bool {
    let is = |name: &str, value: &str| environment.variable(name).as_deref() == Some(value);
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => {
            let unwanted = environment.variable("NO_COLOR").is_some() || is("CLICOLOR", "0");
            is_terminal && !unwanted && !is("TERM", "dumb")
        }
    }
}

/// Whether standard error is coloured.
pub(crate) fn colours_errors() -> bool {
    COLOUR_ERR.load(Ordering::Relaxed)
}

/// Draws lines on standard error, a terminal, which stay below everything that is said from now on.
pub(crate) fn draw(lines: Vec<String>) {
    let mut drawn = PROGRESS.lock().unwrap_or_else(PoisonError::into_inner);
    let cleared = clearing(&drawn);
    *drawn = lines;
    to_terminal(&(cleared + &drawing(&drawn)));
}

/// Takes them away.
pub(crate) fn end_drawing() {
    let drawn = std::mem::take(&mut *PROGRESS.lock().unwrap_or_else(PoisonError::into_inner));
    if !drawn.is_empty() {
        to_terminal(&clearing(&drawn));
    }
}

/// Line by line: some terminals keep a screen that is cleared at once.
fn clearing(lines: &[String]) -> String {
    format!("\r{}", drawing(&vec!["\x1b[2K".to_owned(); lines.len()]))
}

/// The cursor waits where the first line begins: what is written or typed meanwhile is cleared along with the lines.
fn drawing(lines: &[String]) -> String {
    let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    if lines.is_empty() { text } else { format!("{text}\x1b[{}A", lines.len()) }
}

fn to_terminal(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints above what is drawn, if something is. What is printed must be whole lines.
fn above<T>(print: impl FnOnce() -> T) -> T {
    let drawn = PROGRESS.lock().unwrap_or_else(PoisonError::into_inner);
    if drawn.is_empty() {
        return print();
    }
    to_terminal(&clearing(&drawn));
    let printed = print();
    to_terminal(&drawing(&drawn));
    printed
}

/// See [`say!`].
pub(crate) fn line(text: &str) {
    let written = above(|| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush())
    });
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        UNSAID.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Why something could not be printed although somebody wanted it, as on a full disk.
pub(crate) fn unsaid() -> Option<std::io::Error> {
    UNSAID.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A line that begins with the status of an image: that word alone is coloured.
pub(crate) fn status(text: &str) {
    match COLOUR_OUT.load(Ordering::Relaxed) {
        true => line(&painted(text)),
        false => line(text),
    }
}

fn painted(text: &str) -> String {
    let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    let code = match word {
        "copied" => "32",
        "failed" => "31",
        "left" => "33",
        _ => return text.to_owned(),
    };
    format!("\x1b[{code}m{word}\x1b[0m{rest}")
}

/// See [`note!`].
pub(crate) fn error_line(text: &str) {
    let _ = Errors.write_all(format!("{text}\n").as_bytes());
}

/// Says what to do.
pub(crate) fn hint(text: &str) {
    let word = if colours_errors() { "\x1b[1mhint\x1b[0m" } else { "hint" };
    note!("{word}: {text}");
}

/// Standard error, above the progress.
pub(crate) struct Errors;

impl Write for Errors {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        above(|| std::io::stderr().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn colours_are_for_terminals_of_those_who_want_them() {
        for (variables, on_terminal) in [
            (&[][..], true),
            (&[("NO_COLOR", "1")], false),
            (&[("CLICOLOR", "0")], false),
            (&[("CLICOLOR", "1")], true),
            (&[("TERM", "dumb")], false),
        ] {
            let environment = environment(variables);
            assert_eq!(coloured(When::Auto, &environment, true), on_terminal, "{variables:?}");
            assert!(!coloured(When::Auto, &environment, false));
            assert!(coloured(When::Always, &environment, false));
            assert!(!coloured(When::Never, &environment, true));
        }
    }

    #[test]
    fn the_cursor_goes_back_to_where_drawing_began() {
        assert_eq!(drawing(&["one".to_owned(), "two".to_owned()]), "one\r\ntwo\r\n\x1b[2A");
        assert_eq!(clearing(&["one".to_owned()]), "\r\x1b[2K\r\n\x1b[1A");
        assert_eq!((drawing(&[]).as_str(), clearing(&[]).as_str()), ("", "\r"));
    }

    #[test]
    fn only_the_status_is_coloured() {
        assert_eq!(painted("failed     a -> b"), "\x1b[31mfailed\x1b[0m     a -> b");
        assert_eq!(painted("copied"), "\x1b[32mcopied\x1b[0m");
        assert_eq!(painted("unchanged  a -> b"), "unchanged  a -> b");
    }
}
