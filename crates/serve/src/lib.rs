//! The OCI distribution HTTP API in front of any store.
//!
//! A request is read once into a typed call (`route`), handed to a small handler (`blobs`, `manifests`, `uploads`,
//! `listings`), and whatever goes wrong on the way becomes an error body in exactly one place (`error`). Nothing here
//! knows which store answers, and nothing behind the store knows of status codes and headers.
//!
//! With a [`Mirror`] the repository of a request may be that of an upstream (`mirror`); what answers for the upstream is a
//! store like any other.
//!
//! [`RegistryService`] is the API alone, [`serve`] runs any [`Handler`] on a listener: a test puts its faults between
//! the two.

mod answer;
mod blobs;
mod body;
mod caller;
mod direct;
mod error;
mod figures;
mod front;
mod listings;
mod manifests;
mod mirror;
mod pieces;
mod query;
mod request;
mod route;
mod server;
mod service;
mod stall;
mod uploads;

pub use body::{BoxError, ResponseBody, full};
pub use caller::{Caller, Peer, Served};
pub use figures::{Figures, Health, QuotaFigures, StorageFigures, Transfer, UpstreamFigures};
pub use front::Front;
pub use mirror::Mirror;
pub use server::{Limits, serve};
pub use service::{Handler, RegistryService};
