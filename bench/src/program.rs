//! What is measured, and how it is called.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// An opponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    Skopeo,
    Regctl,
    Crane,
    Oras,
}

/// ferry, or an opponent that is called once for each image, so many calls at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    Ferry(PathBuf),
    Peer { peer: Peer, path: PathBuf, calls: usize },
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ferry(_) => f.write_str("ferry"),
            Self::Peer { peer, calls: 1, .. } => f.write_str(peer.name()),
            Self::Peer { peer, calls, .. } => write!(f, "{} ×{calls}", peer.name()),
        }
    }
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Skopeo => "skopeo",
            Self::Regctl => "regctl",
            Self::Crane => "crane",
            Self::Oras => "oras",
        }
    }

    /// Where it is, if it is installed: skopeo by Debian, the others as `peers/build.sh` makes them.
    pub fn find(self, built: &Path) -> Option<PathBuf> {
        let path = match self {
            Self::Skopeo => PathBuf::from("/usr/bin/skopeo"),
            _ => built.join(self.name()),
        };
        path.exists().then_some(path)
    }

    /// The arguments before source and target: everything of an image, byte for byte, over plain HTTP.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Skopeo => &[
                "--insecure-policy",
                "copy",
                "-q",
                "--all",
                "--preserve-digests",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
            ],
            Self::Regctl => &["image", "copy"],
            Self::Crane => &["copy"],
            Self::Oras => &["cp", "--no-tty", "--from-plain-http", "--to-plain-http"],
        }
    }

    async fn prepare(self, path: &Path, home: &Path, hosts: [&str; 2]) -> Result<()> {
        if self != Self::Regctl {
            return Ok(());
        }
        for host in hosts {
            let set = ["registry", "set", "--tls", "disabled", "--skip-check", host];
            let output = Command::new(path).args(set).env("HOME", home).output().await?;
            ensure!(output.status.success(), "regctl: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Program {
    /// The program and its arguments for these images, as pairs of source and target. `directory` is its home.
    pub async fn call(
        &self,
        pairs: &[(String, String)],
        hosts: [&str; 2],
        directory: &Path,
    ) -> Result<Vec<OsString>> {
        let list = directory.join("list");
        let mut words: Vec<OsString> = Vec::new();
        let (prefix, between) = match self {
            Self::Peer { peer: Peer::Skopeo, .. } => ("docker://", " docker://"),
            _ => ("", " "),
        };
        let text: String = pairs.iter().map(|(from, to)| format!("{prefix}{from}{between}{to}\n")).collect();
        std::fs::write(&list, text)?;
        match self {
            Self::Ferry(path) => {
                words.push(path.into());
                // The opponents copy the image alone.
                words.extend(["copy", "--no-referrers", "--state-dir"].map(Into::into));
                words.extend([directory.join("state").into(), "--from-file".into(), list.into()]);
            }
            Self::Peer { peer, path, calls } => {
                peer.prepare(path, directory, hosts).await.with_context(|| self.to_string())?;
                words.extend(["xargs", "-P", &calls.to_string(), "-n", "2", "-a"].map(Into::into));
                words.extend([list.into(), path.into()]);
                words.extend(peer.arguments().iter().map(Into::into));
            }
        }
        Ok(words)
    }
}

/// A command with a home of its own and nothing of ours.
pub fn command(words: &[OsString], home: &Path) -> Result<Command> {
    let (program, arguments) = words.split_first().context("a program")?;
    let mut command = Command::new(program);
    command.args(arguments).env("HOME", home).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}
