//! What a process and its children have used, as `/proc` tells (proc(5)).

use std::fs;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;

/// What was used since the start.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Processor seconds, user and system.
    pub cpu: f64,
    /// Peak resident memory in MiB: the sum of what each process had at its own peak.
    pub memory: f64,
}

/// What the process and its children have used. A process that ends in between is left out.
pub fn usage(pid: u32) -> Result<Usage> {
    let mut usage = Usage { cpu: 0.0, memory: 0.0 };
    let mut wanted = vec![pid];
    let all = stats()?;
    while let Some(pid) = wanted.pop() {
        wanted.extend(all.iter().filter(|stat| stat.parent == pid).map(|stat| stat.pid));
        let Some(stat) = all.iter().find(|stat| stat.pid == pid) else { continue };
        usage.cpu += stat.ticks as f64 / clock_ticks_per_second() as f64;
        usage.memory += peak(pid).unwrap_or_default();
    }
    Ok(usage)
}

struct Stat {
    pid: u32,
    parent: u32,
    ticks: u64,
}

fn stats() -> Result<Vec<Stat>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let texts = names
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    texts.map(|text| stat(&text).with_context(|| text.clone())).collect()
}

fn stat(text: &str) -> Option<Stat> {
    let pid = text.split_once(' ')?.0.parse().ok()?;
    // The name stands in brackets and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat { pid, parent: number(1)?.try_into().ok()?, ticks: number(11)? + number(12)? })
}

/// In MiB.
fn peak(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_are_read() {
        let stat = stat("7 (a) b (c) S 3 1 1 0 -1 4194560 1 0 0 0 20 30 1 1 20 0 1 0 5 6").unwrap();
        assert_eq!((stat.pid, stat.parent, stat.ticks), (7, 3, 50));
    }

    #[test]
    fn we_use_something() {
        assert!(usage(std::process::id()).unwrap().memory > 0.0);
    }
}
