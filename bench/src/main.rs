//! Times `ferry copy` and Debian's skopeo side by side and prints ratios. See the README beside.

mod measure;
mod table;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ferry_testkit::link::{Link, LinkOptions};
use ferry_testkit::peers::DockerRegistry;

use crate::measure::{Figures, Program};
use crate::work::Work;

/// Times `ferry copy` beside skopeo.
#[derive(Debug, Parser)]
struct Arguments {
    /// Runs of each program in each case
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Images in the set
    #[arg(long, default_value_t = 20)]
    images: usize,
    /// A file tree to make layers of; may be repeated
    #[arg(long = "tree", value_name = "DIR", default_values = ["/usr/lib/python3", "/usr/share/doc", "/usr/share/perl"])]
    trees: Vec<PathBuf>,
    /// The most of each tree that is used, in MB
    #[arg(long, default_value_t = 24)]
    megabytes: u64,
    /// One-way latency of the link in the second case, in milliseconds
    #[arg(long, default_value_t = 25)]
    latency: u64,
    /// The ferry to measure [default: beside this program]
    #[arg(long)]
    ferry: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let beside = std::env::current_exe()?.with_file_name("ferry");
    let ferry = arguments.ferry.clone().unwrap_or(beside);
    ensure!(ferry.exists(), "{} is missing: cargo build --release", ferry.display());
    let source = DockerRegistry::start().await?;
    let work = Work::new(&arguments.trees, arguments.megabytes * 1_000_000, arguments.images)?;
    work.load(&source).await?;
    println!(
        "{} images, {:.1} MB with shared layers counted once\n",
        work.images.len(),
        work.bytes() as f64 / 1e6
    );
    let latency = Duration::from_millis(arguments.latency);
    let cases = [
        ("loopback".to_owned(), LinkOptions::default()),
        (format!("{} ms link", 2 * arguments.latency), LinkOptions { latency, ..LinkOptions::default() }),
    ];
    let mut results = serde_json::Map::new();
    for (name, options) in cases {
        let link = Link::start(source.addr(), options).await?;
        let programs = [Program::Ferry(ferry.clone()), Program::Skopeo];
        let mut figures: [Vec<Figures>; 2] = Default::default();
        for _ in 0..arguments.runs {
            for (program, figures) in programs.iter().zip(&mut figures) {
                figures.push(
                    measure::run(program, &work, &link).await.with_context(|| program.name().to_owned())?,
                );
            }
        }
        println!("{}", table::render(&name, &figures));
        results.insert(name, table::json(&figures));
    }
    let directory = PathBuf::from("bench/results");
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join("copy.json"), serde_json::to_string_pretty(&results)?)?;
    Ok(())
}
