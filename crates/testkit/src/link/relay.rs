use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::pace::{Bucket, chunk_size};
use super::requests::Follower;
use super::{Reset, Shared, State};

/// Chunks that may be on the way in one direction of a connection; beyond it the sender has to wait.
const IN_FLIGHT: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Passes bytes both ways until the server is done. An error means that both ends are to see a reset.
pub(super) async fn relay(shared: &Shared, client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let (up_sender, up_receiver) = mpsc::channel(IN_FLIGHT);
    let (down_sender, down_receiver) = mpsc::channel(IN_FLIGHT);
    let up = async {
        // A server that takes no more may still have an answer under way, so only the client's side counts.
        let (read, _) = tokio::join!(
            take_in(shared, Direction::Up, client_read, up_sender),
            deliver_up(shared, server_write, up_receiver)
        );
        read
    };
    let down = async {
        tokio::join!(
            take_in(shared, Direction::Down, server_read, down_sender),
            deliver_down(shared, client_write, down_receiver)
        )
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (read, written) = tokio::select! {
        ended = &mut down => ended,
        ended = &mut up => {
            ended?;
            down.await
        }
    };
    read.and(written)
}

/// Bytes and when they arrive.
type Sent = (Instant, Bytes);

/// Reads from one end as fast as the rate allows and puts it on the line.
async fn take_in(
    shared: &Shared,
    direction: Direction,
    mut from: impl AsyncRead + Unpin,
    line: mpsc::Sender<Sent>,
) -> io::Result<()> {
    let mut own = Bucket::default();
    loop {
        let mut chunk = BytesMut::with_capacity(chunk_size(slowest(&shared.state())));
        let read = tokio::select! {
            read = from.read_buf(&mut chunk) => read?,
            () = line.closed() => return Ok(()),
        };
        if read == 0 {
            return Ok(());
        }
        let (left, latency) = depart(&mut shared.state(), direction, &mut own, read);
        sleep_until(left).await;
        if line.send((left.max(Instant::now()) + latency, chunk.freeze())).await.is_err() {
            return Ok(());
        }
    }
}

fn slowest(state: &State) -> Option<u64> {
    [state.options.rate, state.options.total_rate].into_iter().flatten().min()
}

/// When `bytes` have left, under both rates, and how long they travel.
fn depart(state: &mut State, direction: Direction, own: &mut Bucket, bytes: usize) -> (Instant, Duration) {
    let now = Instant::now();
    let mut left = now;
    if let Some(rate) = state.options.rate {
        left = left.max(own.take(bytes, rate, now));
    }
    if let Some(rate) = state.options.total_rate {
        let all = if direction == Direction::Up { &mut state.up } else { &mut state.down };
        left = left.max(all.take(bytes, rate, now));
    }
    (left, state.options.latency)
}

async fn deliver_up(
    shared: &Shared,
    mut to: impl AsyncWrite + Unpin,
    mut line: mpsc::Receiver<Sent>,
) -> io::Result<()> {
    let mut follower = Follower::default();
    while let Some((due, bytes)) = line.recv().await {
        sleep_until(due).await;
        let requests = follower.feed(&bytes);
        {
            // Before they are sent: who has the answer finds the request counted.
            let stats = &mut shared.state().stats;
            stats.bytes_up += bytes.len() as u64;
            stats.requests.extend(requests);
        }
        to.write_all(&bytes).await?;
    }
    to.shutdown().await
}

async fn deliver_down(
    shared: &Shared,
    mut to: impl AsyncWrite + Unpin,
    mut line: mpsc::Receiver<Sent>,
) -> io::Result<()> {
    let mut delivered = 0;
    while let Some((due, bytes)) = line.recv().await {
        sleep_until(due).await;
        let (allowed, breaks) = until_reset(&mut shared.state(), delivered, bytes.len() as u64);
        to.write_all(&bytes[..allowed as usize]).await?;
        delivered += allowed;
        if breaks {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
    }
    to.shutdown().await
}

/// How many of `wanted` further bytes reach a client that got `delivered`, and whether the connection breaks then.
fn until_reset(state: &mut State, delivered: u64, wanted: u64) -> (u64, bool) {
    let limit = match state.options.reset {
        Reset::Never => None,
        Reset::Every(bytes) => Some(bytes.saturating_sub(delivered)),
        Reset::Once(_) => state.once_left,
    };
    let allowed = limit.map_or(wanted, |limit| limit.min(wanted));
    let breaks = limit == Some(allowed);
    if let Some(left) = &mut state.once_left {
        *left -= allowed.min(*left);
    }
    if breaks {
        state.once_left = None;
        state.stats.resets += 1;
    }
    state.stats.bytes_down += allowed;
    (allowed, breaks)
}

#[cfg(test)]
mod tests {
    use super::super::{LinkOptions, LinkStats};
    use super::*;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn bytes_do_not_wait_for_those_before_them_to_arrive() {
        let hour = Duration::from_secs(3600);
        let stop = CancellationToken::new();
        let state = State {
            options: LinkOptions { latency: hour, ..Default::default() },
            stats: LinkStats::default(),
            live: stop.child_token(),
            cut: false,
            once_left: None,
            up: Bucket::default(),
            down: Bucket::default(),
        };
        let shared = Shared { state: std::sync::Mutex::new(state), stop };
        let (sender, mut line) = mpsc::channel(IN_FLIGHT);
        let (start, content) = (Instant::now(), vec![7; 1_000_000]);
        take_in(&shared, Direction::Down, &content[..], sender).await.unwrap();
        let (mut chunks, mut bytes) = (0, 0);
        while let Some((due, chunk)) = line.recv().await {
            assert!(due >= start + hour);
            chunks += 1;
            bytes += chunk.len();
        }
        assert_eq!(bytes, content.len());
        assert!(chunks > 10, "all are on the line, none has arrived");
    }
}
