use std::time::Duration;

use ferry_oci::{Digest, MAX_MANIFEST_SIZE};
use ferry_serve::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Reply, Server, finish};

async fn begin(server: &Server) -> String {
    let begun = server.send("POST /v2/a/blobs/uploads/", &[], b"").await;
    assert_eq!((begun.status, begun.header("range"), begun.header("content-length")), (202, "0-0", "0"));
    assert!(!begun.header("docker-upload-uuid").is_empty());
    begun.header("location").to_owned()
}

async fn chunk(server: &Server, method: &str, target: &str, range: &str, body: &[u8]) -> Reply {
    server.send(&format!("{method} {target}"), &[("content-range", range)], body).await
}

#[tokio::test]
async fn post_then_put() {
    let server = Server::start().await;
    let (location, digest) = (begin(&server).await, Digest::sha256(b"hello"));
    let put = server.send(&format!("PUT {location}?digest={digest}"), &[], b"hello").await;
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest.to_string().as_str()));
    assert_eq!(put.header("location"), format!("/v2/a/blobs/{digest}"));
    assert_eq!(server.get(put.header("location")).await.body, b"hello");
    assert_eq!(server.get(&location).await.status, 404, "the upload has ended");
}

#[tokio::test]
async fn chunks_in_order_only() {
    let server = Server::start().await;
    let location = begin(&server).await;
    let digest = Digest::sha256(b"0123456789");
    let first = chunk(&server, "PATCH", &location, "0-3", b"0123").await;
    assert_eq!((first.status, first.header("range")), (202, "0-3"));
    let target = first.header("location");
    for range in ["0-3", "5-8"] {
        let refused = chunk(&server, "PATCH", target, range, b"xxxx").await;
        assert_eq!((refused.status, refused.code().as_str()), (416, "RANGE_INVALID"));
        assert_eq!((refused.header("range"), refused.header("location")), ("0-3", target));
    }
    let status = server.get(target).await;
    assert_eq!((status.status, status.header("range"), status.header("location")), (204, "0-3", target));
    let put = format!("{target}?digest={digest}");
    assert_eq!(chunk(&server, "PUT", &put, "6-9", b"6789").await.status, 416);
    assert_eq!(chunk(&server, "PATCH", target, "4-5", b"45").await.status, 202);
    assert_eq!(chunk(&server, "PUT", &put, "6-9", b"6789").await.status, 201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).await.body, b"0123456789");
}

#[tokio::test]
async fn lengths_must_agree() {
    let server = Server::start().await;
    let location = begin(&server).await;
    let refused = chunk(&server, "PATCH", &location, "0-9", b"short").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "SIZE_INVALID"));
    let unreadable = chunk(&server, "PATCH", &location, "bytes 0-4/5", b"short").await;
    assert_eq!((unreadable.status, unreadable.code().as_str()), (400, "BLOB_UPLOAD_INVALID"));
    // With chunked coding the length shows only at the end; what came in order stays.
    for (range, left) in [("0-9", "0-4"), ("5-6", "0-4")] {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "PATCH {location} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-range: {range}\r\n\
             transfer-encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let refused = finish(stream).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "SIZE_INVALID"));
        assert_eq!(server.get(&location).await.header("range"), left);
    }
}

#[tokio::test]
async fn streamed_with_chunked_coding() {
    let server = Server::start().await;
    let location = begin(&server).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(format!("{head}3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n").as_bytes()).await.unwrap();
    let patched = finish(stream).await;
    assert_eq!((patched.status, patched.header("range")), (202, "0-5"));
    let digest = Digest::sha256(b"abcdef");
    let put = server.send(&format!("PUT {location}?digest={digest}"), &[], b"").await;
    assert_eq!(put.status, 201);
}

#[tokio::test]
async fn wrong_digests_do_not_count() {
    let server = Server::start().await;
    let wrong = Digest::sha256(b"other");
    let location = begin(&server).await;
    let put = server.send(&format!("PUT {location}?digest={wrong}"), &[], b"hello").await;
    assert_eq!((put.status, put.code().as_str()), (400, "DIGEST_INVALID"));
    let post = server.send(&format!("POST /v2/a/blobs/uploads/?digest={wrong}"), &[], b"hello").await;
    assert_eq!((post.status, post.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(server.get(&format!("/v2/a/blobs/{wrong}")).await.status, 404);
    let put = server.send(&format!("PUT {}", begin(&server).await), &[], b"hello").await;
    assert_eq!((put.status, put.code().as_str()), (400, "DIGEST_INVALID"), "a digest is needed");
}

/// A client that is cut off, even in the closing PUT, and even if what arrived hashes to what it promised.
#[tokio::test]
async fn a_client_that_vanishes_can_go_on() {
    let server = Server::start().await;
    for method in ["PATCH", "PUT"] {
        let location = begin(&server).await;
        let digest = Digest::sha256(b"hello");
        let target = if method == "PUT" { format!("{location}?digest={digest}") } else { location.clone() };
        let mut stream = server.begin(&format!("{method} {target}"), &[], 10).await;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        assert!(finish(stream).await.status == 400);
        assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).await.status, 404);
        let status = server.get(&location).await;
        assert_eq!((status.status, status.header("range")), (204, "0-4"), "{method}");
        assert_eq!(chunk(&server, "PATCH", &location, "5-9", b"world").await.header("range"), "0-9");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut() {
    let server = Server::with(Limits::default(), Duration::from_millis(100)).await;
    let location = begin(&server).await;
    let mut stream = server.begin(&format!("PATCH {location}"), &[], 10).await;
    stream.write_all(b"hello").await.unwrap();
    let cut = finish(stream).await;
    assert_eq!((cut.status, cut.header("connection")), (408, "close"));
    assert_eq!(server.get(&location).await.header("range"), "0-4");
}

#[tokio::test]
async fn cancel_and_strangers() {
    let server = Server::start().await;
    let location = begin(&server).await;
    let elsewhere = location.replace("/v2/a/", "/v2/b/");
    for method in ["GET", "PATCH", "DELETE"] {
        let refused = server.send(&format!("{method} {elsewhere}"), &[], b"").await;
        assert_eq!((refused.status, refused.code().as_str()), (404, "BLOB_UPLOAD_UNKNOWN"));
    }
    assert_eq!(server.send(&format!("DELETE {location}"), &[], b"").await.status, 204);
    assert_eq!(server.send(&format!("DELETE {location}"), &[], b"").await.status, 404);
}

#[tokio::test]
async fn mounts() {
    let server = Server::start().await;
    let digest = server.push_blob("a", b"shared").await;
    let mount = |name: &str, rest: &str| format!("POST /v2/{name}/blobs/uploads/?mount={digest}{rest}");
    let mounted = server.send(&mount("b", "&from=a"), &[], b"").await;
    assert_eq!((mounted.status, mounted.header("location")), (201, format!("/v2/b/blobs/{digest}").as_str()));
    assert_eq!(server.get(mounted.header("location")).await.body, b"shared");
    assert_eq!(server.send(&mount("c", "&from=empty"), &[], b"").await.status, 202);
    assert_eq!(server.get(&format!("/v2/c/blobs/{digest}")).await.status, 404);
    assert_eq!(server.send(&mount("c", ""), &[], b"").await.status, 201);
}

#[tokio::test]
async fn manifests_that_are_refused() {
    let server = Server::start().await;
    let (_, manifest) = server.push_image("a", "v1", "").await;
    let other = Digest::sha256(b"other");
    for (target, body, status, code) in [
        (format!("/v2/a/manifests/{other}"), manifest.clone(), 400, "DIGEST_INVALID"),
        ("/v2/empty/manifests/v1".to_owned(), manifest.clone(), 400, "MANIFEST_BLOB_UNKNOWN"),
        ("/v2/a/manifests/v1".to_owned(), "{".to_owned(), 400, "MANIFEST_INVALID"),
        ("/v2/a/manifests/v1".to_owned(), " ".repeat(MAX_MANIFEST_SIZE as usize + 1), 413, "SIZE_INVALID"),
    ] {
        let refused = server.put_manifest(&target, &body).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{target}");
    }
    assert_eq!(server.get("/v2/a/manifests/v1").await.body, manifest.as_bytes());
}

/// curl asks before it sends a large body, and need not send it.
#[tokio::test]
async fn a_body_that_is_refused_is_not_asked_for() {
    let server = Server::start().await;
    let expect = [("expect", "100-continue")];
    let stream = server.begin("PUT /v2/a/manifests/v1", &expect, MAX_MANIFEST_SIZE as usize + 1).await;
    assert_eq!(finish(stream).await.status, 413);
    let location = begin(&server).await;
    let mut stream = server.begin(&format!("PATCH {location}"), &expect, 5).await;
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(finish(stream).await.status, 202);
}

#[tokio::test]
async fn tags_in_a_push_by_digest() {
    let server = Server::start().await;
    let (digest, manifest) = server.push_image("a", "", "").await;
    let reply = server.put_manifest(&format!("/v2/a/manifests/{digest}?tag=x&tag=y"), &manifest).await;
    assert_eq!(reply.status, 201);
    for tag in ["x", "y"] {
        assert_eq!(server.get(&format!("/v2/a/manifests/{tag}")).await.body, manifest.as_bytes());
    }
}

#[tokio::test]
async fn deletes() {
    let server = Server::start().await;
    let (digest, _) = server.push_image("a", "v1", "").await;
    server.push_image("a", "v2", "").await;
    let delete = async |target: String| server.send(&format!("DELETE {target}"), &[], b"").await.status;
    assert_eq!(delete("/v2/a/manifests/v1".to_owned()).await, 202);
    assert_eq!(server.get("/v2/a/manifests/v1").await.status, 404);
    assert_eq!(server.get("/v2/a/manifests/v2").await.status, 200);
    assert_eq!(delete(format!("/v2/a/manifests/{digest}")).await, 202);
    assert_eq!(server.get("/v2/a/manifests/v2").await.status, 404);
    assert_eq!(delete(format!("/v2/a/manifests/{digest}")).await, 404);
    let config = Digest::sha256(b"{}");
    assert_eq!(delete(format!("/v2/a/blobs/{config}")).await, 202);
    assert_eq!(delete(format!("/v2/a/blobs/{config}")).await, 404);
}
