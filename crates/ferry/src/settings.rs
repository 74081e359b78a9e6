//! What was typed and configured, turned into what it means. Everything is checked here, before anything is opened or bound.

mod access;
mod aim;
mod archives;
mod clients;
mod content;
mod copy;
mod https;
mod limits;
mod list;
mod looking;
mod mirror;
mod operating;
mod operation;
mod page;
mod platforms;
mod rewrite;
mod serve;
mod sides;
mod user;
mod wish;

pub(crate) use access::Access;
pub(crate) use archives::Archives;
pub(crate) use clients::{ClientConfig, Resolve};
pub(crate) use copy::{Copy, Fit, MirrorOf, Pair, StateDir, refuse_collisions};
pub(crate) use https::Https;
pub(crate) use limits::ServeLimits;
pub(crate) use looking::{Delete, Inspect, Tags, log_in, registry};
pub(crate) use mirror::Mirror;
pub(crate) use operating::{AdminOf, Cache, CacheTask, Warm};
pub(crate) use operation::{AccessLogAt, AdminAt};
pub(crate) use page::Page;
pub(crate) use rewrite::{Rewrite, tagged};
pub(crate) use serve::{Listen, Serve, Task, Upkeep};
pub(crate) use user::{Change, User};
pub(crate) use wish::Wish;
