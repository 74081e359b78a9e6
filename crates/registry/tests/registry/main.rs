//! The client against a registry that nobody here wrote (Debian's `docker-registry` 2.8), against `ferry serve` over
//! memory, and against servers that misbehave on purpose.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod accounts;
mod auth;
mod cloud;
mod contract;
mod endless;
mod fake;
mod foreign;
mod hostile;
mod links;
mod names;
mod peers;
mod peers_reached;
mod quirks;
mod quirks_answers;
mod raw;
mod reading;
mod rebinding;
mod redirects;
mod resuming;
mod retries;
mod strangers;
mod support;
mod writing;
