//! Certificates from an authority that speaks ACME (RFC 8555), got before they are needed and renewed before they expire.
//!
//! A [`Manager`] looks after a list of certificates, each for itself: that one cannot be had harms no other. What is there is
//! kept in a directory (`kept`), so that a restart asks nobody, and neither does one after a failure before its time (`tries`).
//! How the authority sees that a host is ours is one of three ways ([`Way`]): two of them are proofs that a [`Site`] shows, the
//! third is a record in the DNS that a [`Hook`] writes. When to renew, and how long to wait after a failure, is decided in
//! `renewal` without a clock.

mod account;
mod client;
mod hook;
mod kept;
mod manager;
mod order;
mod renewal;
mod site;
mod tries;

pub use account::{Authority, External};
pub use hook::Hook;
pub use manager::{Manager, Options};
pub use order::Way;
pub use site::{Pem, Proof, Site, Validity};
