//! Pure decisions: what is copied under which name, what a target makes of it, and in a mirror what a request means, how long
//! an answer lasts, who may have it, and what clients have to be told to use it. No I/O: every function is a table that can be
//! tested.

pub mod access;
pub mod address;
pub mod clients;
pub mod degrade;
pub mod freshness;
pub mod host;
pub mod naming;
pub mod pattern;
pub mod platforms;
pub mod profile;
pub mod upstream;

/// As much of a text as an error repeats.
fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}
