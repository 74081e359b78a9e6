//! What belongs to an image: that it arrives, what it costs to look for it, and what a dry run says of it all.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

mod chosen;
mod copying;
mod costs;
mod failing;
mod harness;
mod surveys;
