//! The API through a real socket.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod access;
mod client;
mod guarded;
mod limits;
mod listings;
mod mirror;
mod page;
mod peers;
mod pulls;
mod pushes;
mod server;
mod tls;
mod tokens;
