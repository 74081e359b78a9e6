//! The API through a real socket.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod client;
mod listings;
mod peers;
mod pulls;
mod pushes;
mod server;
