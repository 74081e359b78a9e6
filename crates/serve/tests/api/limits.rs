//! What clients may take, and what they may try.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ferry_serve::{ClientLimits, Front, Limiter, Limits, Quota, RegistryService, RequestLimit, SpeedLimits};
use ferry_store::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Reply, Server, finish};

async fn limited(clients: ClientLimits, limits: Limits) -> Server {
    // A day that does not end meanwhile.
    let noon = UNIX_EPOCH + Duration::from_secs(12 * 60 * 60);
    let limiter = Arc::new(Limiter::with_clock(clients, Arc::new(move || noon)));
    let service = RegistryService::new(Arc::new(MemoryStore::new())).limiting(Arc::clone(&limiter));
    Server::of(Front::new(service).limiting(limiter), limits).await
}

/// A speed, and a server that would cut off who takes nothing for a moment.
async fn at_speed(speed: SpeedLimits) -> Server {
    let impatient = Limits { write_stall: Duration::from_millis(100), ..Limits::default() };
    limited(ClientLimits { speed, ..ClientLimits::default() }, impatient).await
}

fn waits(reply: &Reply) -> u64 {
    assert_eq!((reply.status, reply.code().as_str()), (429, "TOOMANYREQUESTS"), "{reply:?}");
    reply.header("retry-after").parse().unwrap()
}

async fn get_all(server: &Server, target: &str, clients: usize) -> Duration {
    let begun = Instant::now();
    let all = (0..clients).map(|_| server.get(target));
    for reply in futures_util::future::join_all(all).await {
        assert_eq!((reply.status, reply.body.len()), (200, 300_000));
    }
    begun.elapsed()
}

#[tokio::test]
async fn who_is_slowed_down_gets_everything_and_is_not_cut_off() {
    let server = at_speed(SpeedLimits { per_blob: Some(200_000), ..SpeedLimits::default() }).await;
    let content = vec![7; 300_000];
    let begun = Instant::now();
    let digest = server.push_blob("a", &content).await;
    let pushed = begun.elapsed();
    let target = format!("/v2/a/blobs/{digest}");
    let taken = get_all(&server, &target, 3).await;
    // 300 kB at 200 kB/s, of which the first quarter of a second may come at once.
    assert!(taken >= Duration::from_millis(1_100), "{taken:?}");
    // A push is taken in pieces of what has arrived, the last of which need not have passed.
    assert!(pushed >= Duration::from_millis(500), "{pushed:?}");
}

#[tokio::test]
async fn clients_share_what_there_is_for_their_address_and_in_total() {
    for speed in [
        SpeedLimits { per_address: Some(400_000), ..SpeedLimits::default() },
        SpeedLimits { total: Some(400_000), ..SpeedLimits::default() },
    ] {
        let server = at_speed(speed).await;
        let digest = server.push_blob("a", &vec![7; 300_000]).await;
        // 900 kB at 400 kB/s.
        let taken = get_all(&server, &format!("/v2/a/blobs/{digest}"), 3).await;
        assert!(taken >= Duration::from_millis(1_900), "{taken:?}");
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_are_told_when_to_come_back() {
    let number = |n| NonZeroU32::new(n).unwrap();
    let requests = Some(RequestLimit { per_minute: number(1), burst: number(4) });
    let server = limited(ClientLimits { requests, ..ClientLimits::default() }, Limits::default()).await;
    for _ in 0..4 {
        assert_eq!(server.get("/v2/").await.status, 200);
    }
    let reply = server.get("/v2/").await;
    assert!((1..=60).contains(&waits(&reply)));
    assert!(String::from_utf8(reply.body).unwrap().contains("1 a minute"));
    for _ in 0..10 {
        assert_eq!(server.get("/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn a_day_has_so_many_manifests_and_bytes() {
    let daily_per_address = Quota { bytes: Some(1000), manifests: Some(2) };
    let server =
        limited(ClientLimits { daily_per_address, ..ClientLimits::default() }, Limits::default()).await;
    let (digest, _) = server.push_image("a", "v1", "").await;
    let manifest = format!("/v2/a/manifests/{digest}");
    let blob = format!("/v2/a/blobs/{}", server.push_blob("a", &[7; 1500]).await);
    // To look is free, and so is what is not there.
    for _ in 0..5 {
        assert_eq!(server.send(&format!("HEAD {manifest}"), &[], b"").await.status, 200);
        assert_eq!(server.send(&format!("HEAD {blob}"), &[], b"").await.status, 200);
        assert_eq!(server.get("/v2/a/manifests/v9").await.status, 404);
        let have = [("if-none-match", digest.to_string())];
        let have = have.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(server.send(&format!("GET {manifest}"), &have, b"").await.status, 304);
    }
    for _ in 0..2 {
        assert_eq!(server.get(&manifest).await.status, 200);
    }
    assert_eq!(waits(&server.get(&manifest).await), 12 * 60 * 60);
    // What began is not cut; what comes after it is refused.
    let reply = server.get(&blob).await;
    assert_eq!((reply.status, reply.body.len()), (200, 1500));
    waits(&server.get(&blob).await);
    assert_eq!(server.get("/v2/a/tags/list").await.status, 200);
}

/// Whether the server answers on this connection, which it may also have closed.
async fn answers(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    let asked = stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    while asked.is_ok() && stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {
        if answer.ends_with(b"\r\n\r\n{}") {
            return answer.starts_with(b"HTTP/1.1 200");
        }
    }
    false
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let limits = Limits { connections_per_address: Some(2.try_into().unwrap()), ..Limits::default() };
    let server = limited(ClientLimits::default(), limits).await;
    let mut streams = Vec::new();
    for wanted in [true, true, false] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(answers(&mut stream).await, wanted);
        streams.push(stream);
    }
    assert!(answers(&mut streams[0]).await);
    streams.clear();
    // The places are free once the server has seen the end of the others.
    while !answers(&mut TcpStream::connect(server.address).await.unwrap()).await {}
}

#[tokio::test]
async fn heads_that_trickle_hold_nobody_up() {
    let limits = Limits { connections: 4, header_read: Duration::from_millis(200), ..Limits::default() };
    let server = limited(ClientLimits::default(), limits).await;
    let mut trickling = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /v2/ HTTP/1.1\r\n").await.unwrap();
        trickling.push(tokio::spawn(async move {
            // A byte more now and then does not make the time longer.
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }));
    }
    assert_eq!(server.get("/v2/").await.status, 200);
    for stream in trickling {
        stream.await.unwrap();
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = limited(ClientLimits::default(), Limits::default()).await;
    let long = "a".repeat(200_000);
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    for head in [
        format!("GET /v2/{long}/tags/list HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /v2/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {long}\r\n\r\n"),
        format!("GET /v2/ HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may answer before it has everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(matches!(&answer, b"HTTP/1.1 431" | b"HTTP/1.1 414"), "{}", answer.escape_ascii());
    }
    let token = "a".repeat(32_000);
    let reply = server.send("GET /v2/", &[("authorization", &token)], b"").await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn no_path_leads_anywhere_else() {
    let server = limited(ClientLimits::default(), Limits::default()).await;
    server.push_image("a", "v1", "").await;
    for path in [
        "/../../etc/passwd",
        "/v2/../../etc/passwd",
        "/v2/..",
        "/v2/a/../../etc/passwd",
        "/v2/../manifests/v1",
        "/v2/a/../a/manifests/v1",
        "/v2/%2e%2e/%2e%2e/etc/passwd",
        "/v2/%2e%2e/manifests/v1",
        "/v2/a%2f..%2fb/manifests/v1",
        "/v2//etc/manifests/v1",
        "/v2/a/manifests/..%2f..%2fetc%2fpasswd",
        "/v2/a/manifests/../../../etc/passwd",
        "/v2/a/blobs/sha256:../../../../etc/passwd",
        "/v2/a/blobs/..%2f..%2fetc",
        "/v2/a/blobs/uploads/../../../etc/passwd",
        "/v2/a/blobs/uploads/%2e%2e%2f%2e%2e%2fetc",
        "/v2/a/referrers/../x",
        "/v2/a/manifests/v1%00",
        "/healthz/../v2/",
    ] {
        let stream = server.begin(&format!("GET {path}"), &[], 0).await;
        let reply = finish(stream).await;
        assert!([400, 404].contains(&reply.status), "{path}: {reply:?}");
    }
    assert_eq!(server.get("/v2/a/manifests/v1").await.status, 200);
}
