//! What the tests and the benchmark of ferry stand on: image builders, a registry with faults and counters, a slow and lossy
//! link, a store that is as particular as some registries are, and launchers for registries and clients that nobody here wrote.

pub mod authority;
pub mod fake;
pub mod images;
pub mod link;
pub mod peers;
pub mod quirks;
pub mod tokens;
