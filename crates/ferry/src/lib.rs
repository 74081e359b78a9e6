//! The ferry program as a library, so that `main` and the demo start the same thing.
//!
//! What was typed (`cli`) is turned into what it means (`settings`) once, checked whole before anything is opened;
//! then the parts are wired (`stores`) and run (`copy`, `serve`). Only this crate reads the environment, and only
//! `exit` turns errors into words for people and exit codes.

#[macro_use]
mod say;

mod access_log;
mod answers;
mod asking;
mod cli;
mod clients;
mod commands;
mod config;
mod copy;
mod credentials;
mod delete;
mod endpoint;
mod environment;
mod exit;
mod front;
mod generated;
mod https;
mod inspect;
mod limits;
mod listeners;
mod metrics;
mod mirror;
mod notify;
mod operating;
mod operations;
mod progress;
mod records;
mod reload;
mod remote;
mod report;
mod reporter;
mod rewrite;
mod serve;
mod settings;
mod stores;
mod tags;
#[cfg(feature = "otel")]
mod traces;
mod upkeep;
mod user;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use tokio_util::sync::CancellationToken;

pub use environment::Environment;

use cli::{Arguments, ConfigVerb, LogoutArguments, Verb};
use config::{Loaded, Registries};
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
    say::colour(arguments.color, &environment);
    log_to_stderr(arguments.verbose);
    // What a copy did counts, whatever could be said of it.
    let is_copy = matches!(arguments.verb, Verb::Copy(_));
    let exit = match start(arguments, environment) {
        Ok(exit) => exit,
        Err(error) => exit::explain(&error),
    };
    match say::unsaid() {
        None => exit.into(),
        Some(error) => exit::unsaid(&error, exit, is_copy).into(),
    }
}

fn start(arguments: Arguments, environment: Environment) -> anyhow::Result<Exit> {
    // Ours is the only TLS provider in the tree; a second run in one process finds it installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let Some(exit) = unconfigured(&arguments.verb) {
        return exit;
    }
    let loaded = Loaded::find(arguments.config.as_deref(), &environment)?;
    let registries = Registries::new(&loaded, &environment)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(act(arguments, (&loaded, registries), environment));
    runtime.shutdown_background();
    exit
}

/// The verbs that no configuration is read for.
fn unconfigured(verb: &Verb) -> Option<anyhow::Result<Exit>> {
    match verb {
        Verb::Config(ConfigVerb::Schema) => {
            say!("{}", config::json_schema());
            Some(Ok(Exit::Done))
        }
        Verb::Schema(typed) => Some(Ok(generated::schema(typed.of))),
        Verb::Completions(typed) => Some(Ok(generated::completions(typed))),
        Verb::Man(typed) => Some(generated::man(typed)),
        _ => None,
    }
}

/// The others.
async fn act(
    Arguments { verb, verbose, config, .. }: Arguments,
    (loaded, registries): (&Loaded, Registries),
    environment: Environment,
) -> anyhow::Result<Exit> {
    let stop = stop_on_signals()?;
    match verb {
        Verb::Copy(typed) => {
            let settings = settings::Copy::new(typed, &registries, &environment)?;
            copy::copy(settings, registries, environment, verbose > 0, stop).await
        }
        Verb::Rewrite(typed) => rewrite::rewrite(&settings::Rewrite::new(typed)?),
        Verb::Serve(typed) => {
            let written = reload::Written { typed, config, environment };
            #[cfg(feature = "otel")]
            let traces = traces::Traces::start(&written.environment);
            let served = serve::serve(written, (loaded, registries), stop).await;
            #[cfg(feature = "otel")]
            traces::Traces::end(traces).await;
            served
        }
        Verb::Warm(typed) => operating::warm(settings::Warm::new(typed, loaded, &environment)?, stop).await,
        Verb::Cache(typed) => operating::cache(settings::Cache::new(typed, loaded, &environment)?).await,
        Verb::ClientConfig(typed) => clients::client_config(&settings::ClientConfig::new(typed, loaded)?),
        Verb::Resolve(typed) => clients::resolve(&settings::Resolve::new(typed, loaded)?),
        Verb::Inspect(typed) => asking::inspect(typed, registries, environment).await,
        Verb::Tags(typed) => asking::tags(typed, registries, environment).await,
        Verb::Delete(typed) => asking::delete(typed, registries, environment).await,
        Verb::Login(typed) => asking::log_in(typed, &registries, &environment).await,
        Verb::Logout(LogoutArguments { registry, authfile }) => {
            credentials::log_out(&settings::registry(&registry)?, authfile, &environment).await
        }
        Verb::Storage(typed) => {
            upkeep::upkeep(settings::Upkeep::new(typed, loaded, &environment)?, stop).await
        }
        Verb::User(typed) => user::change(&settings::User::new(typed, loaded)?),
        Verb::Config(verb) => {
            settings::Serve::check(loaded, &environment)?;
            remote::check(&registries, &environment)?;
            Ok(show(loaded, &verb))
        }
        Verb::Schema(_) | Verb::Completions(_) | Verb::Man(_) => Ok(Exit::Done),
    }
}

/// The configuration was read and checked by now.
fn show(loaded: &Loaded, verb: &ConfigVerb) -> Exit {
    let path = loaded.path.as_deref().map(|path| path.display().to_string());
    match (verb, path) {
        (ConfigVerb::Check, Some(path)) => say!("{path}: nothing is wrong with it"),
        (ConfigVerb::Check, None) => say!("there is no configuration, and none is needed"),
        (_, Some(path)) => say!("# {path}\n{}", loaded.config),
        (_, None) => say!("# there is no configuration, so all is as by default"),
    }
    Exit::Done
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
        // What others say at the level of a trace may show headers.
        _ => "debug,ferry_registry=trace",
    };
    // Fails only if a subscriber is set already, as in a test that runs ferry twice.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(|| say::Errors)
        .with_ansi(say::colours_errors())
        // It would be said by a macro that panics where standard error cannot be written.
        .log_internal_errors(false)
        .try_init();
}
