use std::time::Duration;

use ferry_serve::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Server, finish};

async fn over(limits: Limits) -> Server {
    Server::with(limits, Duration::from_secs(60)).await
}

#[tokio::test]
async fn requests_in_flight_end_before_the_server() {
    let mut server = over(Limits::default()).await;
    let location = server.send("POST /v2/a/blobs/uploads/", &[], b"").await.header("location").to_owned();
    let mut stream = server.begin(&format!("PATCH {location}"), &[], 10).await;
    stream.write_all(b"hello").await.unwrap();
    // Only once the handler has it is it in flight: a status is refused as long as the upload is written to.
    while server.get(&location).await.status != 503 {}
    server.stop.cancel();
    stream.write_all(b"world").await.unwrap();
    assert_eq!(finish(stream).await.header("range"), "0-9");
    server.task.take().unwrap().await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_server() {
    let mut server = over(Limits { grace: Duration::from_secs(600), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    server.stop.cancel();
    server.task.take().unwrap().await.unwrap();
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut() {
    let mut server = over(Limits { grace: Duration::from_millis(50), ..Limits::default() }).await;
    let location = server.send("POST /v2/a/blobs/uploads/", &[], b"").await.header("location").to_owned();
    let mut stream = server.begin(&format!("PATCH {location}"), &[], 10).await;
    while server.get(&location).await.status != 503 {}
    server.stop.cancel();
    server.task.take().unwrap().await.unwrap();
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let server = over(Limits { header_read: Duration::from_millis(100), ..Limits::default() }).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /v2/ HTT").await.unwrap();
    let mut answer = Vec::new();
    // An end, in whatever way; without the limit this would wait for ever.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = over(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first.write_all(b"GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    first.read_exact(&mut [0; 12]).await.unwrap();
    let waiting = server.get("/v2/");
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(Duration::from_millis(100), waiting.as_mut()).await.is_err());
    drop(first);
    assert_eq!(waiting.await.status, 200);
}

#[tokio::test]
async fn rubbish_harms_nobody() {
    let server = over(Limits::default()).await;
    for rubbish in
        ["\0\0\0\r\n\r\n", "GET\r\n\r\n", "CONNECT x:1 HTTP/1.1\r\n\r\n", "OPTIONS * HTTP/1.1\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(rubbish.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{rubbish:?}");
    }
    assert_eq!(server.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let server = over(Limits { write_stall: Duration::from_millis(100), ..Limits::default() }).await;
    let content = vec![0; 32 << 20];
    let digest = server.push_blob("a", &content).await;
    let mut stream = server.begin(&format!("GET /v2/a/blobs/{digest}"), &[], 0).await;
    // More than the limit, and long enough for the buffers between the two to fill.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    assert!(received.len() < content.len(), "{}", received.len());
}
