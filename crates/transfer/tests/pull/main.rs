//! The pull-through store over the real storage and upstreams in memory that can be slow, break, lie and be silent: what it
//! costs of the upstream, what readers get, and what is kept.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]

mod blobs;
mod broken;
mod contract;
mod fixtures;
mod full;
mod http;
mod link;
mod lists;
mod scopes;
mod tags;
mod warm;
mod withdrawn;
