//! Layouts in tar files.

mod load;
mod names;
mod part;
mod preview;
mod reading;
mod region;
mod saved;
mod scan;
mod sinks;
mod writing;

pub(crate) use preview::Preview;
pub(crate) use reading::Archive;
pub(crate) use writing::Writing;
