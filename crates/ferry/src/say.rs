//! Lines on standard output.

use std::io::Write;

/// Prints a line. That nobody reads any more is no reason to fail.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::line(&format!($($text)*)) };
}

/// See [`say!`].
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
