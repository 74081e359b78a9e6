//! ferry as its users run it: the program itself, against registries and clients that nobody here wrote (`peers`) and
//! against itself.

mod cli;
mod faults;
mod harness;
mod kill;
mod peers;
mod requests;
