//! One run of one program.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ferry_testkit::link::Link;
use ferry_testkit::peers::DockerRegistry;
use tokio::process::Command;

use crate::work::{Named, Work};

/// GNU time, from Debian's package `time`.
const TIME: &str = "/usr/bin/time";

/// What is measured.
pub enum Program {
    Ferry(PathBuf),
    Skopeo,
}

impl Program {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ferry(_) => "ferry",
            Self::Skopeo => "skopeo",
        }
    }
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Wall-clock seconds.
    pub wall: f64,
    /// Processor seconds, user and system.
    pub cpu: f64,
    /// Peak resident memory of the largest process, in MiB.
    pub memory: f64,
    /// Requests to the source.
    pub requests: f64,
    /// Bytes from the source.
    pub bytes: f64,
}

/// Copies everything from behind the link into an empty registry, checks it, and says what that took.
pub async fn run(program: &Program, work: &Work, link: &Link) -> Result<Figures> {
    let target = DockerRegistry::start().await?;
    let directory = tempfile::tempdir()?;
    link.reset_stats();
    let report = directory.path().join("time");
    let mut command = Command::new(TIME);
    command.args(["-f", "%e %U %S %M", "-o"]).arg(&report).env("HOME", directory.path());
    match program {
        Program::Ferry(path) => {
            let list = directory.path().join("list");
            let lines = work.images.iter().map(|named| {
                format!(
                    "{} {}\n",
                    place(&link.host().to_string(), named),
                    place(&target.host().to_string(), named)
                )
            });
            std::fs::write(&list, lines.collect::<String>())?;
            command.arg(path).args(["copy", "--from-file"]).arg(list);
        }
        Program::Skopeo => {
            let lines = work.images.iter().map(|named| {
                format!(
                    "skopeo --insecure-policy copy -q --all --preserve-digests --src-tls-verify=false \
                     --dest-tls-verify=false docker://{} docker://{}\n",
                    place(&link.host().to_string(), named),
                    place(&target.host().to_string(), named)
                )
            });
            command.args(["sh", "-e", "-c"]).arg(lines.collect::<String>());
        }
    }
    let output =
        command.output().await.with_context(|| format!("{TIME}; install the Debian package time"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stats = link.stats();
    work.check(&target).await?;
    let [wall, user, system, kibibytes] = times(&report)?;
    Ok(Figures {
        wall,
        cpu: user + system,
        memory: kibibytes / 1024.0,
        requests: stats.requests.len() as f64,
        bytes: stats.bytes_down as f64,
    })
}

fn place(host: &str, named: &Named) -> String {
    format!("{host}/{}:{}", named.repository, named.tag)
}

fn times(report: &Path) -> Result<[f64; 4]> {
    let text = std::fs::read_to_string(report)?;
    let numbers = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    numbers.try_into().ok().with_context(|| format!("unexpected report of {TIME}: {text}"))
}
