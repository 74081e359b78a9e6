//! ferry as its users run it: the program itself, against registries and clients that nobody here wrote (`peers`) and
//! against itself.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod access;
mod archives;
mod archives_cut;
mod archives_wrong;
mod artifacts;
mod browser;
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
mod mirror_clients;
mod mirror_faults;
mod mirror_harness;
mod mirror_kill;
mod mirror_limits;
mod mirror_strangers;
mod mirror_upstreams;
mod operations;
mod page;
mod peers;
mod peers_access;
mod peers_accounts;
mod peers_acme;
mod peers_archives;
mod peers_artifacts;
mod peers_client_config;
mod peers_containerd;
mod peers_containerd_modes;
mod peers_docker;
mod peers_docker_modes;
mod peers_docker_tls;
mod peers_go_clients;
mod peers_hooks;
mod peers_mirror;
mod peers_modes;
mod peers_page;
mod peers_s3;
mod peers_tls;
mod peers_vanity;
mod people;
mod profiles;
mod quirks;
mod ranges;
mod reloading;
mod requests;
mod rewriting;
mod tls;
mod upkeep;
mod vanity;
