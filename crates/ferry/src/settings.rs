//! What was typed and configured, turned into what it means. Everything is checked here, before anything is opened or bound.

mod aim;
mod archives;
mod content;
mod copy;
mod list;
mod looking;
mod mirror;
mod platforms;
mod rewrite;
mod serve;
mod sides;
mod wish;

pub(crate) use archives::Archives;
pub(crate) use content::bucket;
pub(crate) use copy::{Copy, Fit, MirrorOf, Pair, StateDir, refuse_collisions};
pub(crate) use looking::{Delete, Inspect, Tags, log_in, registry};
pub(crate) use mirror::Mirror;
pub(crate) use rewrite::{Rewrite, tagged};
pub(crate) use serve::{Serve, Task, Upkeep};
pub(crate) use wish::Wish;
