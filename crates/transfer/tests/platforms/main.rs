//! Images of which only some platforms are asked for: what arrives, what is reported, and how little is asked when nothing
//! is new.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

mod harness;
mod peers;
mod rewrite;
mod single;
mod sparse;
