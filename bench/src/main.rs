//! Measures `ferry copy` and `ferry serve` and their peers side by side and prints ratios. See the README beside.

mod cases;
mod measure;
mod mirror;
mod program;
mod table;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Parser;
use ferry_testkit::peers::DockerRegistry;

use crate::cases::{Case, Course, Load};
use crate::program::{Peer, Program};
use crate::table::Runs;
use crate::work::Work;

/// Measures ferry beside its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Runs of each program in each case
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// A case to measure; may be repeated [default: all]
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Smaller contents in the cases of the mirror
    #[arg(long)]
    quick: bool,
    /// Layers of 1 GiB on links too
    #[arg(long)]
    full: bool,
    /// An opponent; may be repeated [default: all that are there]
    #[arg(long = "opponent", value_name = "NAME")]
    opponents: Vec<Peer>,
    /// An opponent in the cases of the mirror; may be repeated [default: all that are there]
    #[arg(long = "proxy", value_name = "NAME")]
    proxies: Vec<mirror::Kind>,
    /// Images in the set
    #[arg(long, default_value_t = 20)]
    images: usize,
    /// A file tree to make layers of; may be repeated
    #[arg(long = "tree", value_name = "DIR", default_values = ["/usr/lib/python3", "/usr/share/doc", "/usr/share/perl"])]
    trees: Vec<PathBuf>,
    /// The most of each tree that is used, in MB
    #[arg(long, default_value_t = 24)]
    megabytes: u64,
    /// The ferry to measure [default: beside this program]
    #[arg(long)]
    ferry: Option<PathBuf>,
    /// Where peers/build.sh put the opponents
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let beside = std::env::current_exe()?.with_file_name("ferry");
    let ferry = arguments.ferry.clone().unwrap_or(beside);
    ensure!(ferry.exists(), "{} is missing: cargo build --release", ferry.display());
    let (copies, mirrors) = (cases::all(arguments.full), mirror::cases());
    let names: Vec<&str> =
        copies.iter().map(|case| case.name).chain(mirrors.iter().map(|case| case.name)).collect();
    for name in &arguments.cases {
        ensure!(names.contains(&name.as_str()), "there is no case {name}, only {}", names.join(", "));
    }
    let wanted = |name: &str| arguments.cases.is_empty() || arguments.cases.iter().any(|n| n == name);
    let copies: Vec<&Case> = copies.iter().filter(|case| wanted(case.name)).collect();
    let mirrors: Vec<&mirror::Case> = mirrors.iter().filter(|case| wanted(case.name)).collect();
    let results = PathBuf::from("bench/results");
    if !copies.is_empty() {
        copy(&copies, &arguments, &ferry, &results).await?;
    }
    if !mirrors.is_empty() {
        let (peers, opponents) = (arguments.peers.clone(), arguments.proxies.clone());
        let bench = mirror::Bench { ferry, peers, runs: arguments.runs, quick: arguments.quick, opponents };
        mirror::run(&mirrors, &bench, &results).await?;
    }
    Ok(())
}

/// Measures copies, prints each case, and writes down the figures of all.
async fn copy(cases: &[&Case], arguments: &Arguments, ferry: &Path, directory: &Path) -> Result<()> {
    let mut results = serde_json::Map::new();
    for case in cases {
        let source = DockerRegistry::start().await?;
        let work = load(case, arguments)?;
        work.load(&source).await?;
        println!(
            "### {}\n\n{:.1} MB with shared layers counted once\n",
            case.name,
            work.bytes() as f64 / 1e6
        );
        let programs = programs(case, arguments, ferry);
        match case.course {
            Course::Copy => {
                let runs = compare(case, &work, &source, &programs, arguments.runs).await;
                println!("{}", table::render(case, &runs));
                results.insert(case.name.to_owned(), table::json(&runs));
            }
            Course::Killed => kill(case, &work, &source, &programs, arguments.runs).await,
        }
    }
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("copy.json"), serde_json::to_string_pretty(&results)?)?;
    Ok(())
}

fn load(case: &Case, arguments: &Arguments) -> Result<Work> {
    match case.load {
        Load::Images => Work::new(&arguments.trees, arguments.megabytes * 1_000_000, arguments.images),
        Load::Layer(size) => Work::layer(size),
    }
}

/// ferry and the opponents, each in the manners that make sense.
fn programs(case: &Case, arguments: &Arguments, ferry: &Path) -> Vec<Program> {
    let mut programs = vec![Program::Ferry(ferry.to_owned())];
    for peer in [Peer::Skopeo, Peer::Regctl, Peer::Crane, Peer::Oras] {
        if !arguments.opponents.is_empty() && !arguments.opponents.contains(&peer) {
            continue;
        }
        let Some(path) = peer.find(&arguments.peers) else {
            println!(
                "NOT RUN: {peer:?} is not installed (bench/peers/build.sh {})\n",
                arguments.peers.display()
            );
            continue;
        };
        let calls: &[usize] = if case.load == Load::Images { &[1, 4] } else { &[1] };
        programs.extend(calls.iter().map(|&calls| Program::Peer { peer, path: path.clone(), calls }));
    }
    programs
}

/// Runs all programs in turns.
async fn compare(
    case: &Case,
    work: &Work,
    source: &DockerRegistry,
    programs: &[Program],
    runs: usize,
) -> Vec<Runs> {
    let mut all: Vec<Runs> =
        programs.iter().map(|p| Runs { program: p.to_string(), figures: Vec::new() }).collect();
    for run in 0..runs {
        for (program, runs) in programs.iter().zip(&mut all) {
            if run > 0 && case.slow && *program != programs[0] {
                continue;
            }
            let figures = measure::run(program, case, work, source).await;
            let figures = figures.inspect_err(|error| eprintln!("{program} failed: {error:#}"));
            runs.figures.push(figures.ok());
        }
    }
    all
}

/// How much of the whole comes a second time after a kill.
async fn kill(case: &Case, work: &Work, source: &DockerRegistry, programs: &[Program], runs: usize) {
    println!("| {} | of the layer in the second run |\n| --- | --- |", case.title);
    for (place, program) in programs.iter().enumerate() {
        let mut parts = Vec::new();
        for _ in 0..if place == 0 { runs } else { 1 } {
            match measure::killed(program, case, work, source).await {
                Ok(part) => parts.push(part),
                Err(error) => eprintln!("{program} failed: {error:#}"),
            }
        }
        match table::spread(&parts) {
            Some((low, middle, high)) => println!("| {program} | {middle:.3} ({low:.3}..{high:.3}) |"),
            None => println!("| {program} | failed |"),
        }
        if place == 0 {
            let met = parts.len() == runs && parts.iter().all(|part| *part <= 0.11);
            println!("| target <= 0.11 | {} |", if met { "met" } else { "MISSED" });
        }
    }
    println!();
}
