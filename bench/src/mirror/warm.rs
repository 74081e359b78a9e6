//! What is in the cache already.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ferry_testkit::link::{Link, LinkOptions};
use tempfile::TempDir;
use tokio::process::Command;

use super::client::{Client, Place};
use super::content::Content;
use super::program::{Kind, Program, Server, Setup};
use super::table::{Bound, Figures, Table};
use super::tls::Tls;
use super::{Bench, MIB, blocking};

/// Requests that are open at once.
const CONNECTIONS: usize = 32;

/// A server that has the content.
struct Ready {
    kind: Kind,
    server: Server,
}

/// Content behind a link, and servers in front of it that have it.
struct Scene {
    content: Content,
    /// The upstream goes on being reached through it.
    _link: Link,
    _files: TempDir,
    servers: Vec<Ready>,
}

impl Scene {
    async fn new(bench: &Bench, opponents: &[Kind], size: u64, tls: Option<&Tls>) -> Result<Self> {
        let content = Content::new(1, size).await?;
        let link = Link::start(content.upstream.addr(), LinkOptions::default()).await?;
        let files = tempfile::tempdir()?;
        content.write_layer(files.path())?;
        let setup = Setup {
            upstream: Some(link.addr()),
            files: Some(files.path().to_owned()),
            tls: tls.map(|tls| tls.files.clone()),
            confirm: false,
        };
        let mut servers = Vec::new();
        for program in bench.programs(opponents) {
            match ready(&program, &setup, &content, (&link, tls)).await {
                Ok(server) => servers.push(Ready { kind: program.kind, server }),
                Err(error) => println!("NOT RUN: {}: {error:#}\n", program.kind),
            }
        }
        ensure!(servers.first().is_some_and(|first| first.kind == Kind::Ferry), "ferry cannot do this");
        Ok(Self { content, _link: link, _files: files, servers })
    }

    fn table(&self, title: String) -> Table {
        Table::new(title, self.servers.iter().map(|ready| ready.kind))
    }
}

/// Starts it and pulls the content through it.
async fn ready(
    program: &Program,
    setup: &Setup,
    content: &Content,
    (link, tls): (&Link, Option<&Tls>),
) -> Result<Server> {
    let server = program.start(setup)?;
    let place = place(&server, tls);
    if program.kind == Kind::Nginx {
        let (path, digest) = content.layer()?;
        blocking(move || Client::connect(&place)?.get(&path)?.verify(&digest)).await?;
        return Ok(server);
    }
    let pull = content.pull()?;
    tokio::task::block_in_place(|| pull.warm(&place, || link.stats().bytes_down))?;
    Ok(server)
}

fn place(server: &Server, tls: Option<&Tls>) -> Place {
    let tls = tls.map(|tls| tls.client.clone());
    Place { tls, ..Place::plain(server.address) }
}

/// One blob, again and again, by so many clients at once.
pub async fn blob(bench: &Bench, clients: usize, encrypted: bool) -> Result<Table> {
    let size = bench.sized(256 * MIB);
    let tls = if encrypted { Some(Tls::new()?) } else { None };
    let opponents = if encrypted { &[Kind::Nginx][..] } else { &Kind::OPPONENTS };
    let scene = Scene::new(bench, opponents, size, tls.as_ref()).await?;
    let (path, _) = scene.content.layer()?;
    // About as much for one client as for many, so that processor time is more than its resolution.
    let times = (16 / clients).max(1);
    let over = if encrypted { "TLS" } else { "plain HTTP" };
    let many = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
    let mut table = scene.table(format!("a warm blob of {} MiB, {many}, {over}", size / MIB));
    for _ in 0..bench.runs {
        for Ready { kind, server } in &scene.servers {
            let load = Load { place: place(server, tls.as_ref()), path: path.clone(), clients, times };
            table.add(kind, load.run(server).await);
        }
    }
    if encrypted {
        table.ratio("GiB/s", "nginx", Bound::AtLeast(0.8));
        table.ratio("CPU s/GiB", "nginx", Bound::AtMost(1.3));
    } else {
        table.ratio("GiB/s", "nginx", Bound::AtLeast(0.85));
        table.ratio("CPU s/GiB", "docker-registry", Bound::AtMost(1.0));
    }
    Ok(table)
}

struct Load {
    place: Place,
    path: String,
    clients: usize,
    /// How often each client fetches.
    times: usize,
}

impl Load {
    async fn run(self, server: &Server) -> Result<Figures> {
        let before = server.usage()?;
        let begun = Instant::now();
        let bytes = blocking(move || self.fetch()).await?;
        let wall = begun.elapsed().as_secs_f64();
        let after = server.usage()?;
        let gibibytes = bytes as f64 / (1u64 << 30) as f64;
        Ok(vec![
            ("GiB/s", gibibytes / wall),
            ("CPU s/GiB", (after.cpu - before.cpu) / gibibytes),
            ("peak MiB", after.memory),
        ])
    }

    /// All bytes that came.
    fn fetch(&self) -> Result<u64> {
        let one = || -> Result<u64> {
            let mut client = Client::connect(&self.place)?;
            let mut bytes = 0;
            for _ in 0..self.times {
                bytes += client.get(&self.path)?.discard()?;
            }
            Ok(bytes)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.clients).map(|_| scope.spawn(one)).collect();
            let ended = threads.into_iter().map(|thread| thread.join().ok().context("a client panicked")?);
            ended.sum::<Result<u64>>()
        })
    }
}

/// One tag, as often as possible.
pub async fn tags(bench: &Bench) -> Result<Table> {
    let opponents = [Kind::NginxCache, Kind::DockerRegistry, Kind::Distribution];
    let scene = Scene::new(bench, &opponents, MIB, None).await?;
    let (path, _) = scene.content.pull()?.manifest;
    let mut table = scene.table(format!("a warm tag, {CONNECTIONS} connections"));
    for _ in 0..bench.runs {
        for Ready { kind, server } in &scene.servers {
            let figures = hammer(server, &path, if bench.quick { 2 } else { 5 }).await;
            table.add(kind, figures);
        }
    }
    table.ratio("requests/s", "docker-registry", Bound::AtLeast(20.0));
    table.bound("p99 ms", Bound::AtMost(5.0));
    Ok(table)
}

async fn hammer(server: &Server, path: &str, seconds: u32) -> Result<Figures> {
    let before = server.usage()?;
    let output = wrk(server.address, path, seconds).await?;
    let after = server.usage()?;
    let (rate, p99) = report(&output).with_context(|| output.clone())?;
    ensure!(!output.contains("Non-2xx"), "not all answers were good:\n{output}");
    let requests = rate * f64::from(seconds);
    Ok(vec![
        ("requests/s", rate),
        ("p99 ms", p99),
        ("CPU ms/request", (after.cpu - before.cpu) * 1e3 / requests),
        ("peak MiB", after.memory),
    ])
}

async fn wrk(address: SocketAddr, path: &str, seconds: u32) -> Result<String> {
    let output = Command::new("/usr/bin/wrk")
        .args(["-t1", "--latency", "-H", &format!("Accept: {}", super::client::ACCEPT)])
        .args([format!("-c{CONNECTIONS}"), format!("-d{seconds}s"), format!("http://{address}{path}")])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("/usr/bin/wrk; install the Debian package wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Requests per second, and within how many milliseconds 99 % were answered.
fn report(output: &str) -> Option<(f64, f64)> {
    let after = |label: &str| output.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    let latency = after("99%")?;
    let unit = latency.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let factor = match unit {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    let p99: f64 = latency.strip_suffix(unit)?.parse().ok()?;
    Some((after("Requests/sec:")?.parse().ok()?, p99 * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says() {
        let text =
            "  Latency Distribution\n     50%    1.00ms\n     99%  218.40us\nRequests/sec:  12345.60\n";
        assert_eq!(report(text), Some((12345.6, 0.2184)));
        assert_eq!(report("Requests/sec: 1\n"), None);
    }
}
