//! Measures `ferry serve` as a mirror beside other proxies.

mod client;
mod cold;
mod content;
mod process;
mod program;
mod table;
mod tls;
mod trouble;
mod warm;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

pub use self::program::Kind;

use self::program::{Program, Server, Setup};
use self::table::Table;

const MIB: u64 = 1 << 20;

/// What all cases need.
pub struct Bench {
    pub ferry: PathBuf,
    pub peers: PathBuf,
    pub runs: usize,
    /// Smaller contents, for a look rather than for figures.
    pub quick: bool,
    /// Only these, if any are named.
    pub opponents: Vec<Kind>,
}

type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Table>> + 'a>>;

/// A situation and how it is measured.
pub struct Case {
    pub name: &'static str,
    measure: for<'a> fn(&'a Bench) -> Measuring<'a>,
}

/// All cases.
pub fn cases() -> Vec<Case> {
    vec![
        Case { name: "mirror-first-byte", measure: |bench| Box::pin(cold::first_byte(bench)) },
        Case { name: "mirror-crowd", measure: |bench| Box::pin(cold::crowd(bench)) },
        Case { name: "mirror-far", measure: |bench| Box::pin(cold::far(bench)) },
        Case { name: "mirror-blob-1", measure: |bench| Box::pin(warm::blob(bench, 1, false)) },
        Case { name: "mirror-blob-32", measure: |bench| Box::pin(warm::blob(bench, 32, false)) },
        Case { name: "mirror-tls-1", measure: |bench| Box::pin(warm::blob(bench, 1, true)) },
        Case { name: "mirror-tls-32", measure: |bench| Box::pin(warm::blob(bench, 32, true)) },
        Case { name: "mirror-tags", measure: |bench| Box::pin(warm::tags(bench)) },
        Case { name: "mirror-slow-clients", measure: |bench| Box::pin(trouble::slow_clients(bench)) },
        Case { name: "mirror-upstream-down", measure: |bench| Box::pin(trouble::upstream_down(bench)) },
        Case { name: "mirror-cuts", measure: |bench| Box::pin(trouble::cuts(bench)) },
    ]
}

/// Measures the cases, prints each, and writes down the figures of all.
pub async fn run(cases: &[&Case], bench: &Bench, results: &Path) -> Result<()> {
    let mut all = Map::new();
    for case in cases {
        println!("### {}\n", case.name);
        match (case.measure)(bench).await {
            Ok(table) => {
                println!("{}", table.render());
                all.insert(case.name.to_owned(), table.json());
            }
            Err(error) => {
                println!("MISSED: it could not be measured: {error:#}\n");
                all.insert(case.name.to_owned(), Value::Null);
            }
        }
    }
    std::fs::create_dir_all(results)?;
    std::fs::write(results.join("mirror.json"), serde_json::to_string_pretty(&all)?)?;
    Ok(())
}

impl Bench {
    /// ferry, and those of the opponents that are to be measured and are installed.
    fn programs(&self, opponents: &[Kind]) -> Vec<Program> {
        let chosen =
            opponents.iter().filter(|kind| self.opponents.is_empty() || self.opponents.contains(kind));
        let mut programs = Vec::new();
        for &kind in std::iter::once(&Kind::Ferry).chain(chosen) {
            match Program::find(kind, &self.ferry, &self.peers) {
                Some(program) => programs.push(program),
                None => println!("NOT RUN: {kind} is not installed\n"),
            }
        }
        programs
    }

    fn start_ferry(&self, setup: &Setup) -> Result<Server> {
        let program = Program::find(Kind::Ferry, &self.ferry, &self.peers).context("ferry is missing")?;
        program.start(setup)
    }

    /// `size`, or a quarter of it for a look.
    fn sized(&self, size: u64) -> u64 {
        if self.quick { size / 4 } else { size }
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}
