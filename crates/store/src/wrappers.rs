//! Stores that wrap another, for tests: one counts what is asked of it, one breaks on purpose.

mod counting;
mod faulty;
mod hook;

pub use counting::{CountingStore, Counts};
pub use faulty::{BodyFault, FaultyStore};
pub use hook::Operation;

#[cfg(test)]
mod tests;
