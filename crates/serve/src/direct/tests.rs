use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use ferry_store::{Blob, BlobBody};
use http::header::CONTENT_LENGTH;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::answer::Headers;
use crate::body::of_blob;
use crate::server::{Limits, serve};

/// Answers `/START-END` with that part of a file, as if the file had as many bytes as it once had.
#[derive(Clone)]
struct Files(Arc<File>);

impl Handler for Files {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let (start, end) = request.uri().path()[1..].split_once('-').unwrap();
        let range = start.parse().unwrap()..end.parse().unwrap();
        let length = range.end - range.start;
        let body = BlobBody::File(FileSlice { file: Arc::clone(&self.0), range: range.clone() });
        let blob = Blob { size: range.end, range, skipped: 0, body };
        let outbox = request.extensions().get::<Outbox>();
        assert!(outbox.is_some());
        Response::new(of_blob(blob, outbox)).with(CONTENT_LENGTH, length)
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

async fn served(content: &[u8]) -> (SocketAddr, File, DropGuard) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let files = Files(Arc::new(file.try_clone().unwrap()));
    tokio::spawn(serve(listener, files, Limits::default(), stop.clone()));
    (address, file, stop.drop_guard())
}

async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // Whoever sends has to wait in the middle of a piece.
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    socket.connect(address).await.unwrap()
}

/// The status line and the body.
async fn ask(stream: &mut TcpStream, path: &str) -> (String, Vec<u8>) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let (_, length) = head.split_once("content-length: ").unwrap();
    let length = length.split_once("\r\n").unwrap().0.parse().unwrap();
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body).await.unwrap();
    (head.lines().next().unwrap().to_owned(), body)
}

#[tokio::test]
async fn clients_get_the_bytes_of_the_file_over_one_connection() {
    let content = content(3_000_000);
    let (address, _, _stop) = served(&content).await;
    let mut stream = connect(address).await;
    for (start, end) in [(0, 3_000_000), (1, 2), (262_143, 262_145), (5, 5), (1_000_001, 2_999_999)] {
        let (status, body) = ask(&mut stream, &format!("/{start}-{end}")).await;
        assert_eq!(status, "http/1.1 200 ok");
        assert!(body == content[start..end], "{start}-{end}: {} bytes", body.len());
    }
}

#[tokio::test]
async fn connections_do_not_get_each_others_bytes() {
    let content = content(2_000_000);
    let (address, _, _stop) = served(&content).await;
    let asking = (0..8).map(async |number| {
        let mut stream = connect(address).await;
        let (start, end) = (number * 100_000, 1_000_000 + number * 100_000);
        for _ in 0..3 {
            assert!(ask(&mut stream, &format!("/{start}-{end}")).await.1 == content[start..end]);
        }
    });
    futures_util::future::join_all(asking).await;
}

#[tokio::test]
async fn a_file_that_became_shorter_ends_the_connection() {
    let content = content(1_000_000);
    let (address, file, _stop) = served(&content).await;
    file.set_len(400_000).unwrap();
    let mut stream = connect(address).await;
    let (status, body) = ask(&mut stream, "/0-1000000").await;
    assert_eq!(status, "http/1.1 200 ok");
    assert!(body.len() <= 400_000 && body == content[..body.len()], "{} bytes", body.len());
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "the connection is closed");
}

#[tokio::test]
async fn bytes_that_are_in_memory_are_known_and_others_are_read() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content(300_000)).unwrap();
    bring_to_memory(&file, 0..300_000).unwrap();
    assert!(is_in_memory(&file, &(0..262_144)) && is_in_memory(&file, &(262_144..300_000)));
    assert!(bring_to_memory(&file, 0..300_001).is_err(), "there are not so many");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let content = content(8_000_000);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { write_stall: Duration::from_millis(50), ..Limits::default() };
    tokio::spawn(serve(listener, Files(Arc::new(file)), limits, stop.clone()));
    let mut stream = connect(address).await;
    stream.write_all(b"GET /0-8000000 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    assert!(read.len() < content.len(), "all came");
    stop.cancel();
}
