//! Archives as they are written.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

mod fixtures;
mod options;
mod writing;
