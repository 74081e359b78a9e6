//! The ferry program. See the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    ferry::run(std::env::args_os(), ferry::Environment::of_this_process())
}
