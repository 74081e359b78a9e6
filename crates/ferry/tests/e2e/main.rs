//! ferry as its users run it: the program itself, against registries and clients that nobody here wrote (`peers`) and
//! against itself.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod archives;
mod archives_cut;
mod archives_wrong;
mod artifacts;
mod cli;
mod deploy;
mod documents;
mod faults;
mod first_use;
mod harness;
mod kill;
mod limits;
mod looking;
mod many;
mod mirror;
mod peers;
mod peers_accounts;
mod peers_archives;
mod peers_artifacts;
mod peers_containerd;
mod peers_docker;
mod peers_mirror;
mod peers_s3;
mod people;
mod profiles;
mod quirks;
mod ranges;
mod requests;
mod rewriting;
mod upkeep;
