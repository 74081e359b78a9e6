//! A remote registry as a store.
//!
//! Everything that speaks HTTP to a registry is here: tokens, redirects, retries, per-host budgets, paging and the
//! differences between implementations. Above this crate nobody sees a status code or a header.
//!
//! One [`Client`] serves all registries of a process, so that connections, tokens and budgets are shared. A host that
//! the user names is trusted at any address; hosts learnt from the network (redirects, token realms, upload
//! locations) are checked on every hop when connecting, and never see a credential that is not theirs.
//!
//! The process installs a `rustls` crypto provider before it makes a [`Client`].

mod access;
mod accounts;
mod address;
mod auth;
mod blob;
mod budget;
mod client;
mod cloud;
mod credential;
mod desk;
mod error;
mod foreign;
mod habit;
mod host;
mod links;
mod list;
mod listed;
mod mount;
mod options;
mod outgoing;
mod pacer;
mod position;
mod quota;
mod read;
mod realm;
mod referrers;
mod request;
mod retry;
mod session;
mod site;
mod stall;
mod token;
mod transport;
mod upload;
mod ways;
mod write;

pub use address::{Network, Refused};
pub use budget::Lane;
pub use client::{Client, Login};
pub use cloud::{AwsKeys, Cloud, Clouds};
pub use credential::{Anonymous, Asked, Credential, Credentials, Secret};
pub use habit::Habit;
pub use options::ClientOptions;
pub use quota::Quota;
pub use site::{Proxies, ProxyUrl, Site, Tls, TlsVersion};
