//! What the cache does not have yet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ferry_testkit::link::{Link, LinkOptions};

use super::client::{self, Client, Place};
use super::content::Content;
use super::program::{Kind, Program, Setup};
use super::table::{Bound, Figures, Table};
use super::{Bench, MIB, blocking};
use crate::table::spread;

/// Clients that want the same at the same time.
const CROWD: usize = 100;

fn behind(link: &Link) -> Setup {
    Setup { upstream: Some(link.addr()), ..Setup::default() }
}

/// How much later the first byte comes than from the upstream.
pub async fn first_byte(bench: &Bench) -> Result<Table> {
    let content = Content::new(20, MIB).await?;
    let far = LinkOptions { latency: Duration::from_millis(20), ..LinkOptions::default() };
    let programs = bench.programs(&[Kind::NginxCache, Kind::DockerRegistry, Kind::Distribution]);
    let title = "first byte of a cold blob of 1 MiB, 40 ms round trip (median of 20)";
    let mut table = Table::new(title, programs.iter().map(|program| program.kind));
    for _ in 0..bench.runs {
        for program in &programs {
            let link = Link::start(content.upstream.addr(), far.clone()).await?;
            table.add(program.kind, delays(program, &content, &link).await);
        }
    }
    table.bound("ms more than directly", Bound::AtMost(5.0));
    Ok(table)
}

async fn delays(program: &Program, content: &Content, link: &Link) -> Result<Figures> {
    let server = program.start(&behind(link))?;
    let (direct, through) = (Place::plain(link.addr()), Place::plain(server.address));
    let mut paths: Vec<String> = content.pull()?.blobs.into_iter().map(|(path, _)| path).collect();
    // The configuration: it opens the connections.
    let first = paths.remove(0);
    blocking(move || {
        let (mut direct, mut through) = (Client::connect(&direct)?, Client::connect(&through)?);
        let (mut alone, mut seen) = (Vec::new(), Vec::new());
        client::first_byte(&mut direct, &first)?;
        client::first_byte(&mut through, &first)?;
        for path in &paths {
            seen.push(client::first_byte(&mut through, path)? * 1e3);
            alone.push(client::first_byte(&mut direct, path)? * 1e3);
        }
        let middle = |values: &[f64]| spread(values).map(|(_, middle, _)| middle).context("no figures");
        let (alone, seen) = (middle(&alone)?, middle(&seen)?);
        Ok(vec![("ms through it", seen), ("ms directly", alone), ("ms more than directly", seen - alone)])
    })
    .await
}

/// Many clients want one large blob at once.
pub async fn crowd(bench: &Bench) -> Result<Table> {
    let size = bench.sized(256 * MIB);
    let content = Content::new(1, size).await?;
    let mut table = Table::new(
        format!("{CROWD} clients, one cold blob of {} MiB, upstream of 5 MB/s in all", size / MIB),
        [Kind::Ferry],
    );
    // Each takes as long as the upstream needs for the blob, twice.
    for _ in 0..if bench.quick { bench.runs } else { 1 } {
        table.add(Kind::Ferry, crowded(bench, &content, size).await);
    }
    table.bound("upstream bytes / size", Bound::AtMost(1.01));
    table.bound("slowest / lone client", Bound::AtMost(1.05));
    Ok(table)
}

async fn crowded(bench: &Bench, content: &Content, size: u64) -> Result<Figures> {
    let thin = LinkOptions { total_rate: Some(5_000_000), ..LinkOptions::default() };
    let mut walls = Vec::new();
    let (mut delivered, mut used) = (0, None);
    for clients in [1, CROWD] {
        let link = Link::start(content.upstream.addr(), thin.clone()).await?;
        let server = bench.start_ferry(&behind(&link))?;
        walls.push(slowest(server.address, content, clients).await?);
        delivered = link.stats().bytes_down;
        used = Some(server.usage()?);
    }
    let used = used.context("it ran")?;
    Ok(vec![
        ("lone client s", walls[0]),
        ("slowest client s", walls[1]),
        ("slowest / lone client", walls[1] / walls[0]),
        ("upstream bytes / size", delivered as f64 / size as f64),
        ("CPU s", used.cpu),
        ("peak MiB", used.memory),
    ])
}

/// Seconds until the last of so many clients had the layer. One in ten computes the digest, as all would be a load of its own.
async fn slowest(address: SocketAddr, content: &Content, clients: usize) -> Result<f64> {
    let (path, digest) = content.layer()?;
    blocking(move || {
        let begun = Instant::now();
        let one = |number: usize| -> Result<()> {
            let mut client = Client::connect(&Place::plain(address))?;
            let answer = client.get(&path)?;
            if number.is_multiple_of(10) { answer.verify(&digest) } else { Ok(answer.discard().map(drop)?) }
        };
        std::thread::scope(|scope| {
            let one = &one;
            let threads: Vec<_> = (0..clients).map(|number| scope.spawn(move || one(number))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().ok().context("a client panicked")?)
        })?;
        Ok(begun.elapsed().as_secs_f64())
    })
    .await
}

/// A pull over a long line that gives each connection little.
pub async fn far(bench: &Bench) -> Result<Table> {
    let size = bench.sized(128 * MIB);
    let content = Content::new(1, size).await?;
    let far =
        LinkOptions { latency: Duration::from_millis(50), rate: Some(2_500_000), ..LinkOptions::default() };
    let programs = bench.programs(&Kind::PROXIES);
    let title =
        format!("cold pull, a layer of {} MiB, 100 ms and 20 Mbit/s per connection upstream", size / MIB);
    let mut table = Table::new(title, programs.iter().map(|program| program.kind));
    for run in 0..bench.runs {
        for program in &programs {
            // Opponents take a minute: one run of each has to do.
            if run == 0 || program.kind == Kind::Ferry {
                let link = Link::start(content.upstream.addr(), far.clone()).await?;
                table.add(program.kind, cold_pull(program, &content, &link).await);
            }
        }
    }
    table.ratio("wall s", "docker-registry", Bound::AtMost(0.3));
    Ok(table)
}

async fn cold_pull(program: &Program, content: &Content, link: &Link) -> Result<Figures> {
    let server = program.start(&behind(link))?;
    link.reset_stats();
    let (pull, place) = (content.pull()?, Place::plain(server.address));
    let begun = Instant::now();
    blocking(move || pull.run(&place)).await?;
    let wall = begun.elapsed().as_secs_f64();
    let (stats, used) = (link.stats(), server.usage()?);
    Ok(vec![
        ("wall s", wall),
        ("CPU s", used.cpu),
        ("peak MiB", used.memory),
        ("MB from upstream", stats.bytes_down as f64 / 1e6),
        ("connections", stats.connections as f64),
    ])
}
