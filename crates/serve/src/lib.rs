//! The OCI distribution HTTP API in front of any store.
//!
//! A request is read once into a typed call (`route`), handed to a small handler (`blobs`, `manifests`, `uploads`,
//! `listings`), and whatever goes wrong on the way becomes an error body in exactly one place (`error`). Nothing here
//! knows which store answers, and nothing behind the store knows of status codes and headers.
//!
//! With a [`Mirror`] the repository of a request may be that of an upstream (`mirror`); what answers for the upstream is a
//! store like any other.
//!
//! Who may have what of it decides [`Access`] (`access`), if there is one, and how much of it a [`Limiter`] (`limits`). [`Front`] is
//! the API and what is beside it; the [`Page`] for people explains both (`page`).
//!
//! [`RegistryService`] is the API alone, [`serve`] runs any [`Handler`] on a listener: a test puts its faults between
//! the two.

mod access;
mod admin;
mod answer;
mod blobs;
mod body;
mod caller;
mod challenges;
mod direct;
mod error;
mod figures;
mod front;
mod gauge;
mod limits;
mod listings;
mod live;
mod manifests;
mod mirror;
mod observed;
mod operations;
mod page;
mod pieces;
mod query;
mod redirect;
mod request;
mod route;
mod server;
mod service;
mod stall;
mod tls;
mod uploads;

pub use access::{Access, Clock, Keys, Mode, Policy, Users, check_name, hash_password};
pub use admin::Admin;
pub use body::{BoxError, ResponseBody, full};
pub use caller::{Caller, Peer, Served};
pub use challenges::Challenges;
pub use figures::{Figures, Health, QuotaFigures, StorageFigures, Transfer, UpstreamFigures};
pub use front::Front;
pub use gauge::Gauge;
pub use limits::{ClientLimits, Limiter, Quota, QuotaFile, RequestLimit, SpeedLimits};
pub use live::Live;
pub use mirror::Mirror;
pub use observed::{CacheState, Observed, Observer, Record};
pub use operations::{CachedImage, Operations, WarmImage, WarmOrder, WarmState, Warming};
pub use page::{FigureSource, Page, PageOptions, Trend};
pub use redirect::Redirect;
pub use server::{Limits, Listener, serve, serve_all};
pub use service::{Handler, RegistryService};
pub use tls::{Certificate, CertificateFiles, Certificates, Pair, Tls};
