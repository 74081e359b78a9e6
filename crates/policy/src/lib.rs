//! Pure decisions about what is copied under which name. No I/O: every function is a table that can be tested.

pub mod naming;
