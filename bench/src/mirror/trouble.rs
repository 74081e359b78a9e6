//! Clients that are slow, and upstreams that fail.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ferry_store::{Scope, Store};
use ferry_testkit::fake::{FakeRegistry, Fault, FaultRule};
use ferry_testkit::link::{Link, LinkOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::client::{Client, Place};
use super::content::{Content, Pull};
use super::program::{Kind, Program, Setup};
use super::table::{Bound, Figures, Table};
use super::{Bench, MIB, blocking};
use crate::work::Work;

const SLOW_CLIENTS: usize = 2_000;
/// How long they read, and how much in each second.
const SLOW_FOR: u32 = 15;
const SLOW_READ: usize = 4096;

/// Many clients take little of one blob at a time.
pub async fn slow_clients(bench: &Bench) -> Result<Table> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let size = bench.sized(256 * MIB);
    let content = Content::new(1, size).await?;
    // The other proxies take gigabytes, which the machine may not have.
    let programs = bench.programs(&[Kind::Nginx]);
    let title = format!(
        "{SLOW_CLIENTS} clients take {} KiB/s each of one blob of {} MiB",
        SLOW_READ / 1024,
        size / MIB
    );
    let mut table = Table::new(title, programs.iter().map(|program| program.kind));
    for program in &programs {
        let mut figures = slowly(program, &content, LinkOptions::default(), true).await;
        if program.kind == Kind::Ferry
            && let Ok(figures) = &mut figures
        {
            let thin = LinkOptions { total_rate: Some(5_000_000), ..LinkOptions::default() };
            let cold = slowly(program, &content, thin, false).await?;
            figures.extend(cold.into_iter().map(|(_, value)| ("peak MiB, blob on its way", value)));
        }
        table.add(program.kind, figures);
    }
    table.bound("peak MiB, warm blob", Bound::AtMost(256.0));
    table.bound("peak MiB, blob on its way", Bound::AtMost(256.0));
    Ok(table)
}

async fn slowly(program: &Program, content: &Content, line: LinkOptions, warm: bool) -> Result<Figures> {
    let link = Link::start(content.upstream.addr(), line).await?;
    let files = tempfile::tempdir()?;
    content.write_layer(files.path())?;
    let setup =
        Setup { upstream: Some(link.addr()), files: Some(files.path().to_owned()), ..Setup::default() };
    let server = program.start(&setup)?;
    if warm && program.kind == Kind::Ferry {
        let (pull, place) = (content.pull()?, Place::plain(server.address));
        tokio::task::block_in_place(|| pull.warm(&place, || link.stats().bytes_down))?;
    }
    let (path, _) = content.layer()?;
    let mut clients = JoinSet::new();
    for _ in 0..SLOW_CLIENTS {
        clients.spawn(slow_client(server.address, path.clone()));
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(vec![("peak MiB, warm blob", server.usage()?.memory)])
}

async fn slow_client(address: SocketAddr, path: String) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    // What the system takes off the line for a client that is slow is as if it had been read.
    socket.set_recv_buffer_size(SLOW_READ as u32)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut bytes = [0; SLOW_READ];
    stream.read_exact(&mut bytes[..12]).await?;
    ensure!(&bytes[..12] == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&bytes[..12]));
    for _ in 0..SLOW_FOR {
        read_some(&mut stream, &mut bytes).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn read_some(stream: &mut TcpStream, bytes: &mut [u8]) -> Result<()> {
    ensure!(stream.read(bytes).await? > 0, "the connection was closed");
    Ok(())
}

/// A mirror remembers for less long that its upstream failed.
const FORGOTTEN: Duration = Duration::from_secs(6);

/// What has been pulled once is pulled again while the upstream is in trouble. Every tag would have to be confirmed.
pub async fn upstream_down(bench: &Bench) -> Result<Table> {
    let programs = bench.programs(&[Kind::DockerRegistry, Kind::Distribution]);
    let mut table = Table::new("warm pulls that fail", programs.iter().map(|program| program.kind));
    for program in &programs {
        table.add(program.kind, troubled(program, if program.kind == Kind::Ferry { 20 } else { 3 }).await);
    }
    for trouble in ["failed %, upstream gone", "failed %, upstream silent", "failed %, upstream says 429"] {
        table.bound(trouble, Bound::AtMost(0.0));
    }
    Ok(table)
}

async fn troubled(program: &Program, pulls: u32) -> Result<Figures> {
    let work = Work::layers(3, MIB)?;
    let named = work.images.first().context("an image")?;
    let upstream = FakeRegistry::start().await?;
    let repository =
        upstream.store().writable(&Scope::Hosted, &named.repository).context("it takes pushes")?;
    named.image.push_to(&*repository, Some(&named.tag)).await?;
    let link = Link::start(upstream.address(), LinkOptions::default()).await?;
    let setup = Setup { upstream: Some(link.addr()), confirm: true, ..Setup::default() };
    let server = program.start(&setup)?;
    let pull = Pull::of(&work)?;
    // A client of a container engine would not wait longer for the head of an answer.
    let place = Place { patience: Duration::from_secs(30), ..Place::plain(server.address) };
    tokio::task::block_in_place(|| pull.warm(&place, || link.stats().bytes_down))?;
    let again = async || {
        // What failed a moment ago is not tried again at once: each trouble is to be met anew.
        tokio::time::sleep(FORGOTTEN).await;
        let (pull, place) = (pull.clone(), place.clone());
        blocking(move || Ok(repeat(&pull, &place, pulls))).await
    };
    link.cut(true);
    let gone = again().await?;
    link.cut(false);
    link.set(LinkOptions { latency: Duration::from_secs(3600), ..LinkOptions::default() });
    let silent = again().await?;
    link.set(LinkOptions::default());
    // What is under way would take its hour.
    link.kill_connections();
    upstream.fail(FaultRule::new(Fault::status(429)).always());
    let limited = again().await?;
    Ok(vec![
        ("failed %, upstream gone", gone.0),
        ("failed %, upstream silent", silent.0),
        ("failed %, upstream says 429", limited.0),
        ("slowest pull s, upstream gone", gone.1),
        ("slowest pull s, upstream silent", silent.1),
        ("slowest pull s, upstream says 429", limited.1),
    ])
}

/// How many of a hundred pulls fail, and how many seconds the slowest took.
fn repeat(pull: &Pull, place: &Place, times: u32) -> (f64, f64) {
    let (mut failed, mut slowest) = (0, 0f64);
    for _ in 0..times {
        let begun = Instant::now();
        if let Err(error) = pull.run(place) {
            eprintln!("a warm pull failed: {error:#}");
            failed += 1;
        }
        slowest = slowest.max(begun.elapsed().as_secs_f64());
    }
    (100.0 * f64::from(failed) / f64::from(times), slowest)
}

const CUTS: u64 = 20;

/// The upstream's connections break again and again in the middle of a blob that eight clients read.
pub async fn cuts(bench: &Bench) -> Result<Table> {
    let size = bench.sized(128 * MIB);
    let content = Content::new(1, size).await?;
    let title = format!("a cold blob of {} MiB, the upstream cut {CUTS} times, 8 clients", size / MIB);
    let mut table = Table::new(title, [Kind::Ferry]);
    for _ in 0..bench.runs {
        table.add(Kind::Ferry, cut(bench, &content, size).await);
    }
    table.bound("clients that see an error", Bound::AtMost(0.0));
    table.bound("MiB fetched again per cut", Bound::AtMost(1.0));
    Ok(table)
}

async fn cut(bench: &Bench, content: &Content, size: u64) -> Result<Figures> {
    let line = LinkOptions {
        latency: Duration::from_millis(5),
        total_rate: Some(20_000_000),
        ..LinkOptions::default()
    };
    let link = Link::start(content.upstream.addr(), line).await?;
    let server = bench.start_ferry(&Setup { upstream: Some(link.addr()), ..Setup::default() })?;
    link.reset_stats();
    let (path, digest) = content.layer()?;
    let begun = Instant::now();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (place, path) = (Place::plain(server.address), path.clone());
            tokio::task::spawn_blocking(move || Client::connect(&place)?.get(&path)?.verify(&digest))
        })
        .collect();
    for number in 1..=CUTS {
        while link.stats().bytes_down < number * size / (CUTS + 1) {
            ensure!(!clients.iter().all(|client| client.is_finished()), "it ended before the last cut");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        link.kill_connections();
    }
    let mut failed = 0;
    for client in clients {
        failed += u32::from(client.await?.inspect_err(|error| eprintln!("{error:#}")).is_err());
    }
    let again = link.stats().bytes_down.saturating_sub(size) as f64;
    Ok(vec![
        ("clients that see an error", f64::from(failed)),
        ("MiB fetched again per cut", again / MIB as f64 / CUTS as f64),
        ("wall s", begun.elapsed().as_secs_f64()),
    ])
}
