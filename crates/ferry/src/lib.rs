//! The ferry program as a library, so that `main` and the demo start the same thing.
//!
//! What was typed (`cli`) is turned into what it means (`settings`) once, checked whole before anything is opened;
//! then the parts are wired (`stores`) and run (`copy`, `serve`). Only this crate reads the environment, and only
//! `exit` turns errors into words for people and exit codes.

mod cli;
mod copy;
mod credentials;
mod endpoint;
mod environment;
mod exit;
mod report;
mod serve;
mod settings;
mod stores;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use tokio_util::sync::CancellationToken;

pub use environment::Environment;

use cli::{Arguments, Verb};
use exit::Exit;

/// Runs ferry with these arguments, the first of which is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors and go to standard output.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    log_to_stderr(arguments.verbose);
    let exit = match start(arguments.verb, environment) {
        Ok(exit) => exit,
        Err(error) => exit::explain(&error),
    };
    exit.into()
}

fn start(verb: Verb, environment: Environment) -> anyhow::Result<Exit> {
    // Ours is the only TLS provider in the tree; a second run in one process finds it installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(async {
        let stop = stop_on_signals()?;
        match verb {
            Verb::Copy(typed) => {
                copy::copy(settings::Copy::new(typed, &environment)?, environment, stop).await
            }
            Verb::Serve(typed) => serve::serve(settings::Serve::try_from(typed)?, stop).await,
        }
    });
    runtime.shutdown_background();
    exit
}

/// Cancelled by the first SIGINT or SIGTERM: work stops in order. The second ends the process at once.
fn stop_on_signals() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                token.cancel();
            } else {
                std::process::exit(i32::from(Exit::Stopped.code()));
            }
        }
    });
    Ok(stop)
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info,ferry_transfer=debug,ferry_registry=debug,ferry_serve=debug",
        2 => "debug",
        _ => "trace",
    };
    // Fails only if a subscriber is set already, as in a test that runs ferry twice.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}
