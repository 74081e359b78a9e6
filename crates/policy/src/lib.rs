//! Pure decisions about what is copied under which name, and what a target makes of it. No I/O: every function is a table that can be tested.

pub mod degrade;
pub mod naming;
pub mod platforms;
pub mod profile;
