use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use ferry_store::{Blob, BlobBody};
use futures_util::StreamExt;
use http::header::CONTENT_LENGTH;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::answer::Headers;
use crate::body::{BoxError, of_blob};
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
        let blob = Blob { size: range.end, range, skipped: 0, fetched: false, body };
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
    for (start, end) in [(0, 3_000_000), (1, 2), (1_048_575, 1_048_577), (5, 5), (1_000_001, 2_999_999)] {
        let (status, body) = ask(&mut stream, &format!("/{start}-{end}")).await;
        assert_eq!(status, "http/1.1 200 ok");
        assert!(body == content[start..end], "{start}-{end}: {} bytes", body.len());
    }
}

#[tokio::test]
async fn connections_do_not_get_each_others_bytes() {
    let content = content(4_000_000);
    let (address, _, _stop) = served(&content).await;
    let asking = (0..8).map(async |number| {
        let mut stream = connect(address).await;
        let (start, end) = (number * 100_000, 3_000_000 + number * 100_000);
        for _ in 0..3 {
            assert!(ask(&mut stream, &format!("/{start}-{end}")).await.1 == content[start..end]);
        }
    });
    futures_util::future::join_all(asking).await;
}

#[tokio::test]
async fn a_file_that_became_shorter_ends_the_connection() {
    let content = content(4_000_000);
    let (address, file, _stop) = served(&content).await;
    file.set_len(2_400_000).unwrap();
    let mut stream = connect(address).await;
    let (status, body) = ask(&mut stream, "/0-4000000").await;
    assert_eq!(status, "http/1.1 200 ok");
    assert!(body.len() <= 2_400_000 && body == content[..body.len()], "{} bytes", body.len());
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

/// What a handler does with the bodies of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// In pieces of a few bytes.
    Split,
    /// All bytes are others in the same number.
    Copied,
    /// Those of the second piece are left out, and said to be so.
    Dropped,
    /// It ends with an error after the first piece.
    Broken,
}

#[derive(Clone)]
struct Meddling(Files, Between);

impl Handler for Meddling {
    async fn handle(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let meddled = !request.uri().path().starts_with("/0-");
        let mut response = self.0.handle(request).await;
        if !meddled {
            return response;
        }
        if self.1 == Between::Dropped {
            let length = response.headers()[CONTENT_LENGTH].to_str().unwrap().parse::<u64>().unwrap();
            response = response.with(CONTENT_LENGTH, length - PIECE);
        }
        let between = self.1;
        response.map(|body| StreamBody::new(meddled_with(body, between)).boxed_unsync())
    }
}

fn meddled_with(
    body: ResponseBody,
    between: Between,
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
    let pieces = body.into_data_stream().enumerate();
    pieces.flat_map(move |(number, piece)| {
        let mut piece = piece.unwrap();
        let parts = match between {
            Between::Split => {
                let mut parts = Vec::new();
                while !piece.is_empty() {
                    parts.push(Ok(piece.split_to(piece.len().min(70_001))));
                }
                parts
            }
            Between::Copied => vec![Ok(Bytes::copy_from_slice(&piece))],
            Between::Dropped if number == 1 => vec![],
            Between::Broken if number == 1 => vec![Err(BoxError::from("it is broken"))],
            Between::Dropped | Between::Broken => vec![Ok(piece)],
        };
        stream::iter(parts.into_iter().map(|part| part.map(Frame::data)))
    })
}

/// What comes of three requests that are sent at once: a file from its begin, another part of it that is meddled with, and the
/// first again.
async fn pipelined(content: &[u8], between: Between) -> Vec<u8> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Meddling(Files(Arc::new(file)), between);
    tokio::spawn(serve(listener, handler, Limits::default(), stop.clone()));
    let _stop = stop.drop_guard();
    let mut stream = connect(address).await;
    let end = content.len();
    let ask = |path: &str, more: &str| format!("GET /{path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let first = ask(&format!("0-{end}"), "");
    let asked =
        [first.clone(), ask(&format!("7-{end}"), ""), ask(&format!("0-{end}"), "Connection: close\r\n")];
    stream.write_all(asked.concat().as_bytes()).await.unwrap();
    let mut read = Vec::new();
    // A connection that is reset has ended as well.
    let _ = stream.read_to_end(&mut read).await;
    read
}

/// The bodies of answers; the last may be cut.
fn bodies(mut all: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while let Some(at) = all.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = std::str::from_utf8(&all[..at]).unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 200 ok"), "{head}");
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        let (body, rest) = all[at + 4..].split_at(length.min(all.len() - at - 4));
        bodies.push(body);
        all = rest;
    }
    bodies
}

#[tokio::test]
async fn answers_to_pipelined_requests_are_each_their_own() {
    let content = content(4_000_000);
    let read = pipelined(&content, Between::Split).await;
    let bodies = bodies(&read);
    assert!(bodies[..] == [&content[..], &content[7..], &content[..]], "{} answers", bodies.len());
}

/// Whoever breaks the rule of this module is found out before a byte goes out that belongs elsewhere.
#[tokio::test]
async fn stand_ins_that_are_lost_end_the_connection_before_anything_else_is_sent() {
    let content = content(4_000_000);
    for between in [Between::Dropped, Between::Broken] {
        let read = pipelined(&content, between).await;
        let bodies = bodies(&read);
        assert!(bodies.len() == 2 && bodies[0] == content, "{between:?}: {} answers", bodies.len());
        assert!(bodies[1] == &content[7..][..bodies[1].len()], "{between:?}: they are its own bytes");
        assert!(bodies[1].len() <= PIECE as usize, "{between:?}: {} bytes", bodies[1].len());
    }
}

/// Copies cannot be told from other bytes; but nobody else gets what they stood for.
#[tokio::test]
async fn stand_ins_that_are_copied_do_not_mix_answers() {
    let content = content(4_000_000);
    let read = pipelined(&content, Between::Copied).await;
    let bodies = bodies(&read);
    assert!(bodies[0] == content && bodies.len() >= 2);
    assert!(bodies[1].iter().all(|byte| *byte == 0), "no bytes of a file");
    assert!(bodies.get(2).is_none_or(|body| body.is_empty()), "the connection has ended");
}

/// A copy of all that is written, as hyper makes it if it is told to, is no stand-in any more.
#[tokio::test]
async fn what_is_written_as_one_copy_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let outbox = Outbox::default();
    let mut direct = Direct { stream: client, outbox: outbox.clone() };
    direct.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let file = Arc::new(tempfile::tempfile().unwrap());
    let stand_in = outbox.put(FileSlice { file, range: 0..10 }).unwrap();
    let copy = Vec::from(&stand_in[..]);
    let refused = direct.write_all(&copy).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn no_more_pieces_wait_than_there_are_places() {
    let outbox = Outbox::default();
    let file = Arc::new(tempfile::tempfile().unwrap());
    let put = || outbox.put(FileSlice { file: Arc::clone(&file), range: 0..PIECE });
    let places: std::collections::HashSet<usize> = (0..PLACES).map(|_| offset(&put().unwrap())).collect();
    assert_eq!(places.len(), PLACES, "each has its own");
    assert!(put().is_err());
}

#[tokio::test]
async fn what_was_begun_and_left_harms_nobody() {
    let content = content(3_000_000);
    let (address, _, _stop) = served(&content).await;
    for taken in [1, 100_000, 1_000_000] {
        let mut stream = connect(address).await;
        stream.write_all(b"GET /0-3000000 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        stream.read_exact(&mut vec![0; taken]).await.unwrap();
        drop(stream);
        let mut other = connect(address).await;
        assert!(ask(&mut other, "/5-2000000").await.1 == content[5..2_000_000]);
    }
}

#[tokio::test]
async fn a_head_alone_takes_nothing_from_the_next_answer() {
    let content = content(600_000);
    let (address, _, _stop) = served(&content).await;
    let mut stream = connect(address).await;
    stream.write_all(b"HEAD /0-600000 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(ask(&mut stream, "/9-600000").await.1 == content[9..]);
}
