//! One run of one program.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ferry_testkit::link::{Link, LinkOptions};
use ferry_testkit::peers::DockerRegistry;
use tempfile::TempDir;

use crate::cases::{Case, Side};
use crate::program::{Program, command};
use crate::work::Work;

/// GNU time, from Debian's package `time`.
const TIME: &str = "/usr/bin/time";

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Wall-clock seconds.
    pub wall: f64,
    /// Processor seconds, user and system.
    pub cpu: f64,
    /// Peak resident memory of the largest process, in MiB.
    pub memory: f64,
    /// Peak room that ferry took on disk, in MiB.
    pub disk: Option<f64>,
    /// Requests over the link.
    pub requests: f64,
    /// Bytes that came over the link, in MB.
    pub delivered: f64,
    /// Bytes of blobs that ferry says it read, in MB.
    pub fetched: Option<f64>,
}

/// A source behind a link (or a target, if it stands there) and an empty target.
struct Scene {
    link: Link,
    target: DockerRegistry,
    directory: TempDir,
    call: Vec<OsString>,
}

impl Scene {
    async fn new(program: &Program, case: &Case, work: &Work, source: &DockerRegistry) -> Result<Self> {
        let target = DockerRegistry::start().await?;
        let behind = if case.side == Side::Source { source.addr() } else { target.addr() };
        let link = Link::start(behind, case.link.clone()).await?;
        let (from, to) = match case.side {
            Side::Source => (link.host().to_string(), target.host().to_string()),
            Side::Target => (source.host().to_string(), link.host().to_string()),
        };
        let directory = tempfile::tempdir()?;
        let call = program.call(&work.pairs(&from, &to), [&from, &to], directory.path()).await?;
        link.reset_stats();
        Ok(Self { link, target, directory, call })
    }
}

/// Copies everything into an empty registry, checks it, and says what that took.
pub async fn run(program: &Program, case: &Case, work: &Work, source: &DockerRegistry) -> Result<Figures> {
    let scene = Scene::new(program, case, work, source).await?;
    let report = scene.directory.path().join("time");
    let mut timed: Vec<OsString> = vec![TIME.into(), "-f".into(), "%e %U %S %M".into(), "-o".into()];
    timed.push(report.clone().into());
    timed.extend(scene.call.iter().cloned());
    let mut command = command(&timed, scene.directory.path())?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("{TIME}; install the Debian package time"))?;
    let state = scene.directory.path().join("state");
    let (output, disk) = {
        let ends = child.wait_with_output();
        tokio::pin!(ends);
        let mut peak = 0;
        loop {
            tokio::select! {
                output = &mut ends => break (output?, peak),
                () = tokio::time::sleep(Duration::from_millis(20)) => peak = peak.max(room(&state)),
            }
        }
    };
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stats = scene.link.stats();
    work.check(&scene.target).await?;
    let [wall, user, system, kibibytes] = times(&report)?;
    let is_ferry = matches!(program, Program::Ferry(_));
    Ok(Figures {
        wall,
        cpu: user + system,
        memory: kibibytes / 1024.0,
        disk: is_ferry.then_some(disk as f64 / (1 << 20) as f64),
        requests: stats.requests.len() as f64,
        delivered: stats.bytes_down as f64 / 1e6,
        fetched: is_ferry.then(|| fetched(&String::from_utf8_lossy(&output.stdout))).flatten(),
    })
}

/// Kills a program when nine tenths have come, runs it again, and says how much of the whole came then.
pub async fn killed(program: &Program, case: &Case, work: &Work, source: &DockerRegistry) -> Result<f64> {
    let scene = Scene::new(program, case, work, source).await?;
    let start = || -> Result<_> {
        let mut command = command(&scene.call, scene.directory.path())?;
        // A group of its own: the kill has to reach what xargs started as well.
        Ok(command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    };
    let mut first = start()?;
    while (scene.link.stats().bytes_down as f64) < 0.9 * work.bytes() as f64 {
        ensure!(first.try_wait()?.is_none(), "it ended before it could be killed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let group = first.id().context("it runs")?;
    let kill = ["-s", "KILL", "--", &format!("-{group}")];
    ensure!(tokio::process::Command::new("/usr/bin/kill").args(kill).status().await?.success(), "kill");
    first.wait().await?;
    scene.link.kill_connections();
    scene.link.reset_stats();
    ensure!(start()?.wait().await?.success(), "the second run failed");
    let stats = scene.link.stats();
    work.check(&scene.target).await?;
    Ok(stats.bytes_down as f64 / work.bytes() as f64)
}

/// What a directory takes on disk; holes of files take nothing.
fn room(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() { room(&entry.path()) } else { metadata.blocks() * 512 })
        })
        .sum()
}

/// The last line of `ferry copy` says how much it read: `…, 134.3 MB fetched in 9.1 s`.
fn fetched(output: &str) -> Option<f64> {
    let (before, _) = output.lines().last()?.rsplit_once(" fetched in ")?;
    let (before, unit) = before.rsplit_once(' ')?;
    let number: f64 = before.rsplit_once(' ')?.1.parse().ok()?;
    let megabytes = match unit {
        "B" => 1e-6,
        "kB" => 1e-3,
        "MB" => 1.0,
        "GB" => 1e3,
        _ => return None,
    };
    Some(number * megabytes)
}

fn times(report: &Path) -> Result<[f64; 4]> {
    let text = std::fs::read_to_string(report)?;
    let last = text.lines().last().unwrap_or_default();
    let numbers = last.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    numbers.try_into().ok().with_context(|| format!("unexpected report of {TIME}: {text}"))
}

/// No link to speak of.
pub fn direct() -> LinkOptions {
    LinkOptions::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ferry_says_that_it_read() {
        let line = "copied x\n1 image: 1 copied; 2 blobs sent (134.2 MB), 134.9 MB fetched in 9.1 s\n";
        assert_eq!(fetched(line), Some(134.9));
        assert_eq!(fetched("1 image: 1 unchanged; 0 blobs sent (0 B), 500 B fetched in 0.1 s"), Some(0.0005));
        assert_eq!(fetched("nothing of it"), None);
    }
}
