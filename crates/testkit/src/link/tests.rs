use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A server that answers every line `N\n` with N bytes.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = tokio::io::BufReader::new(read);
                let mut line = String::new();
                while tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line).await.unwrap_or(0) > 0 {
                    let answer = vec![b'x'; line.trim().parse().unwrap()];
                    if write.write_all(&answer).await.is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

/// Asks for `bytes` and reads until the end or the break; how many came, and whether it ended in order.
async fn ask(link: &Link, bytes: usize) -> (usize, bool) {
    let Ok(mut stream) = TcpStream::connect(link.addr()).await else { return (0, false) };
    if stream.write_all(format!("{bytes}\n").as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return (0, false);
    }
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return (total, true),
            Ok(read) => total += read,
            Err(_) => return (total, false),
        }
    }
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

#[tokio::test]
async fn passes_everything_and_counts() {
    let link = Link::start(server().await, LinkOptions::default()).await.unwrap();
    assert_eq!(ask(&link, 3_000_000).await, (3_000_000, true));
    let stats = link.stats();
    assert_eq!((stats.connections, stats.bytes_up, stats.bytes_down), (1, 8, 3_000_000));
    link.reset_stats();
    assert_eq!(link.stats(), LinkStats::default());
}

#[tokio::test]
async fn latency_is_paid_for_every_trip() {
    let link =
        Link::start(server().await, LinkOptions { latency: millis(60), ..Default::default() }).await.unwrap();
    let start = Instant::now();
    assert_eq!(ask(&link, 4_000_000).await, (4_000_000, true));
    // A handshake and a trip up and down are the least.
    assert!(start.elapsed() >= millis(240), "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_rate_is_kept_alone_and_together() {
    let upstream = server().await;
    let link =
        Link::start(upstream, LinkOptions { rate: Some(1_000_000), ..Default::default() }).await.unwrap();
    let start = Instant::now();
    assert_eq!(ask(&link, 300_000).await, (300_000, true));
    assert!(start.elapsed() >= millis(280), "{:?}", start.elapsed());

    link.set(LinkOptions { total_rate: Some(1_000_000), ..Default::default() });
    let start = Instant::now();
    let both = tokio::join!(ask(&link, 200_000), ask(&link, 200_000));
    assert_eq!(both, ((200_000, true), (200_000, true)));
    assert!(start.elapsed() >= millis(370), "{:?}", start.elapsed());
}

#[tokio::test]
async fn connections_break_where_they_should() {
    let options = LinkOptions { reset: Reset::Every(100_000), ..Default::default() };
    let link = Link::start(server().await, options).await.unwrap();
    assert_eq!(ask(&link, 99_999).await, (99_999, true));
    for _ in 0..2 {
        assert_eq!(ask(&link, 200_000).await, (100_000, false));
    }
    assert_eq!(link.stats().resets, 2);

    link.set(LinkOptions { reset: Reset::Once(150_000), ..Default::default() });
    assert_eq!(ask(&link, 100_000).await, (100_000, true));
    assert_eq!(ask(&link, 100_000).await, (50_000, false));
    assert_eq!(ask(&link, 500_000).await, (500_000, true));
    assert_eq!(link.stats().resets, 3);
}

#[tokio::test]
async fn a_cut_link_breaks_and_refuses() {
    let options = LinkOptions { rate: Some(100_000), ..Default::default() };
    let link = Link::start(server().await, options).await.unwrap();
    let (answer, ()) = tokio::join!(ask(&link, 10_000_000), async {
        tokio::time::sleep(millis(100)).await;
        link.cut(true);
    });
    assert!(!answer.1 && answer.0 < 10_000_000);
    assert_eq!(ask(&link, 1).await, (0, false));
    link.cut(false);
    assert_eq!(ask(&link, 1).await, (1, true));
}

#[tokio::test]
async fn a_missing_upstream_is_a_broken_connection() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let link = Link::start(free, LinkOptions::default()).await.unwrap();
    assert_eq!(ask(&link, 1).await, (0, false));
}
