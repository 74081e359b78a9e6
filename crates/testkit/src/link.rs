//! A network link to put in front of a registry: slow, far away, breaking, and counting what goes over it.
//!
//! Latency is a queue and not a pause, so bytes in flight overlap as on a real line; the rate is what is put on the
//! line per second. A new connection takes one further round trip, as the handshake does.

mod pace;
mod relay;
mod requests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_oci::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use pace::Bucket;

/// How a link behaves; the default passes everything on at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkOptions {
    /// How long each byte travels, in each direction.
    pub latency: Duration,
    /// Bytes per second of one connection, in each direction.
    pub rate: Option<u64>,
    /// Bytes per second of all connections together, in each direction.
    pub total_rate: Option<u64>,
    /// Whether connections break.
    pub reset: Reset,
}

/// When connections break, as a TCP reset to both ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reset {
    /// They do not.
    #[default]
    Never,
    /// Every connection once it brought so many bytes to its client.
    Every(u64),
    /// The connection that brings the last of so many bytes to the clients, counted over all connections from when
    /// the option was set; none after it.
    Once(u64),
}

/// A request that went over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRequest {
    /// `GET`, `HEAD`, …
    pub method: String,
    /// Path and query as sent.
    pub path: String,
}

/// What went over a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections broken by [`LinkOptions::reset`].
    pub resets: u64,
    /// Bytes from clients that reached the upstream.
    pub bytes_up: u64,
    /// Bytes from the upstream that reached clients.
    pub bytes_down: u64,
    /// HTTP/1.1 requests that reached the upstream, in that order; of other protocols none are seen.
    pub requests: Vec<LinkRequest>,
}

impl LinkStats {
    /// How many requests of `method` have `part` in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests.iter().filter(|r| r.method == method && r.path.contains(part)).count()
    }
}

/// A TCP relay on a loopback port; it stops when dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What the tasks of a link share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct State {
    options: LinkOptions,
    stats: LinkStats,
    /// Ends every connection of now, not later ones.
    live: CancellationToken,
    cut: bool,
    /// How many bytes are left until [`Reset::Once`] strikes.
    once_left: Option<u64>,
    up: Bucket,
    down: Bucket,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Listens on a free loopback port and passes everything on to `upstream`.
    ///
    /// # Errors
    /// Whatever binding yields.
    pub async fn start(upstream: SocketAddr, options: LinkOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let state = State {
            options: LinkOptions::default(),
            stats: LinkStats::default(),
            live: stop.child_token(),
            cut: false,
            once_left: None,
            up: Bucket::default(),
            down: Bucket::default(),
        };
        let link = Self { address, shared: Arc::new(Shared { state: Mutex::new(state), stop }) };
        link.set(options);
        tokio::spawn(accept(listener, upstream, Arc::clone(&link.shared)));
        Ok(link)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as references write it.
    pub fn host(&self) -> Registry {
        match self.address.to_string().parse() {
            Ok(host) => host,
            Err(e) => unreachable!("an address and port are a registry: {e}"),
        }
    }

    /// Changes the behaviour, of open connections too.
    pub fn set(&self, options: LinkOptions) {
        let mut state = self.shared.state();
        state.once_left = match options.reset {
            Reset::Once(bytes) => Some(bytes),
            Reset::Never | Reset::Every(_) => None,
        };
        state.options = options;
    }

    /// What went over it since the beginning or [`Link::reset_stats`].
    pub fn stats(&self) -> LinkStats {
        self.shared.state().stats.clone()
    }

    /// Counts from zero again.
    pub fn reset_stats(&self) {
        self.shared.state().stats = LinkStats::default();
    }

    /// Breaks all open connections.
    pub fn kill_connections(&self) {
        let mut state = self.shared.state();
        std::mem::replace(&mut state.live, self.shared.stop.child_token()).cancel();
    }

    /// With `true` breaks all open connections and resets each new one at once, until called with `false`.
    pub fn cut(&self, cut: bool) {
        self.shared.state().cut = cut;
        if cut {
            self.kill_connections();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((client, _)) = accepted else {
            // Out of file descriptors, most likely: others must end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let live = {
            let mut state = shared.state();
            state.stats.connections += u64::from(!state.cut);
            (!state.cut).then(|| state.live.child_token())
        };
        match live {
            Some(live) => drop(tokio::spawn(connection(client, upstream, Arc::clone(&shared), live))),
            None => break_off(&client),
        }
    }
}

async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    shared: Arc<Shared>,
    live: CancellationToken,
) {
    let handshake = shared.state().options.latency * 2;
    let opened = async {
        tokio::time::sleep(handshake).await;
        let server = TcpStream::connect(upstream).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        io::Result::Ok(server)
    };
    let opened = tokio::select! {
        () = live.cancelled() => None,
        opened = opened => opened.ok(),
    };
    let Some(mut server) = opened else { return break_off(&client) };
    let orderly = tokio::select! {
        () = live.cancelled() => false,
        ended = relay::relay(&shared, &mut client, &mut server) => ended.is_ok(),
    };
    if !orderly {
        break_off(&client);
        break_off(&server);
    }
}

/// Makes the coming close of `stream` a reset.
fn break_off(stream: &TcpStream) {
    // A stream that is closed already needs no reset.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests;
