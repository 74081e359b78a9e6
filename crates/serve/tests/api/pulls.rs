use ferry_oci::{Algorithm, Digest, media_type};

use crate::client::Server;

#[tokio::test]
async fn ping() {
    let server = Server::start().await;
    let reply = server.get("/v2/").await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"{}".as_slice()));
    assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
    let head = server.send("HEAD /v2/", &[], b"").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "2", 0));
}

#[tokio::test]
async fn errors_are_json() {
    let server = Server::start().await;
    let absent = Digest::sha256(b"absent");
    for (target, status, code) in [
        ("/v2/a/manifests/x".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/a/blobs/{absent}"), 404, "BLOB_UNKNOWN"),
        ("/v2/a/blobs/uploads/x".to_owned(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/A/tags/list".to_owned(), 400, "NAME_INVALID"),
        ("/v2/a/blobs/sha256:x".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/a/manifests/.x".to_owned(), 400, "TAG_INVALID"),
        ("/favicon.ico".to_owned(), 404, "NAME_UNKNOWN"),
    ] {
        let reply = server.get(&target).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{target}");
        assert_eq!(reply.header("content-type"), "application/json");
        let head = server.send(&format!("HEAD {target}"), &[], b"").await;
        assert_eq!((head.status, head.body.len()), (status, 0), "{target}");
    }
    let reply = server.send("POST /v2/a/manifests/x", &[], b"").await;
    assert_eq!((reply.status, reply.code().as_str()), (405, "UNSUPPORTED"));
    assert_eq!(reply.header("allow"), "GET, HEAD, PUT, DELETE");
}

#[tokio::test]
async fn manifests_keep_their_bytes() {
    let server = Server::start().await;
    let (digest, manifest) = server.push_image("team/app", "v1", "").await;
    for reference in ["v1".to_owned(), digest.to_string(), digest.to_string().replace(':', "%3A")] {
        let target = format!("/v2/team/app/manifests/{reference}");
        let got = server.get(&target).await;
        assert_eq!((got.status, got.body.as_slice()), (200, manifest.as_bytes()));
        let head = server.send(&format!("HEAD {target}"), &[], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        for reply in [&got, &head] {
            assert_eq!(reply.header("content-type"), media_type::OCI_MANIFEST);
            assert_eq!(reply.header("content-length"), manifest.len().to_string());
            assert_eq!(reply.header("docker-content-digest"), digest.to_string());
            assert_eq!(reply.header("etag"), format!("\"{digest}\""));
        }
    }
}

#[tokio::test]
async fn what_a_client_has_is_not_sent() {
    let server = Server::start().await;
    let (manifest, _) = server.push_image("a", "v1", "").await;
    let blob = server.push_blob("a", b"content").await;
    let cases = [("/v2/a/manifests/v1".to_owned(), manifest), (format!("/v2/a/blobs/{blob}"), blob)];
    for (target, digest) in cases {
        for tag in
            [format!("\"{digest}\""), digest.to_string(), format!("\"x\", W/\"{digest}\""), "*".to_owned()]
        {
            for method in ["GET", "HEAD"] {
                let reply = server.send(&format!("{method} {target}"), &[("if-none-match", &tag)], b"").await;
                assert_eq!((reply.status, reply.body.len()), (304, 0), "{method} {target} {tag}");
                assert_eq!(reply.header("docker-content-digest"), digest.to_string());
            }
        }
        let other = server.send(&format!("GET {target}"), &[("if-none-match", "\"other\"")], b"").await;
        assert_eq!(other.status, 200);
    }
    let absent = format!("GET /v2/b/blobs/{blob}");
    assert_eq!(server.send(&absent, &[("if-none-match", "*")], b"").await.status, 404);
}

#[tokio::test]
async fn blobs_and_ranges() {
    let server = Server::start().await;
    let content: Vec<u8> = (0..2000u32).map(|i| i as u8).collect();
    let digest = server.push_blob("a", &content).await;
    let target = format!("/v2/a/blobs/{digest}");
    let head = server.send(&format!("HEAD {target}"), &[], b"").await;
    let whole = server.get(&target).await;
    assert_eq!((head.status, whole.status), (200, 200));
    assert_eq!(whole.body, content);
    for reply in [&head, &whole] {
        assert_eq!(reply.header("content-length"), "2000");
        assert_eq!(reply.header("accept-ranges"), "bytes");
        assert_eq!(reply.header("docker-content-digest"), digest.to_string());
    }
    for (range, first, last) in [
        ("bytes=5-9", 5, 9),
        ("bytes=5-", 5, 1999),
        ("bytes=-10", 1990, 1999),
        ("bytes=1990-5000", 1990, 1999),
    ] {
        let part = server.send(&format!("GET {target}"), &[("range", range)], b"").await;
        assert_eq!((part.status, part.body.as_slice()), (206, &content[first..=last]), "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {first}-{last}/2000"));
    }
    for range in ["bytes=2000-", "bytes=9-5", "bytes=-0"] {
        let refused = server.send(&format!("GET {target}"), &[("range", range)], b"").await;
        assert_eq!((refused.status, refused.code().as_str()), (416, "RANGE_INVALID"), "{range}");
        assert_eq!(refused.header("content-range"), "bytes */2000");
    }
    for headers in
        [[("range", "bytes=1-2,5-6"), ("x", "y")], [("range", "bytes=1-2"), ("if-range", "\"other\"")]]
    {
        let whole = server.send(&format!("GET {target}"), &headers, b"").await;
        assert_eq!((whole.status, whole.body.len()), (200, 2000));
    }
    let tag = format!("\"{digest}\"");
    let resumed = [("range", "bytes=1999-"), ("if-range", tag.as_str())];
    assert_eq!(server.send(&format!("GET {target}"), &resumed, b"").await.status, 206);
    let nothing = server.push_blob("a", b"").await;
    let empty = server.get(&format!("/v2/a/blobs/{nothing}")).await;
    assert_eq!((empty.status, empty.header("content-length")), (200, "0"));
}

#[tokio::test]
async fn a_connection_is_used_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start().await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let requests = "GET /v2/ HTTP/1.1\r\nhost: x\r\n\r\nHEAD /v2/ HTTP/1.1\r\nhost: x\r\n\r\n\
        GET /v2/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn the_algorithm_asked_for_is_the_one_answered() {
    let server = Server::start().await;
    let (_, manifest) = server.push_image("a", "v1", "").await;
    let long = Digest::of(Algorithm::Sha512, manifest.as_bytes());
    let target = format!("/v2/a/manifests/{long}");
    let reply = server.put_manifest(&target, &manifest).await;
    assert_eq!((reply.status, reply.header("docker-content-digest")), (201, long.to_string().as_str()));
    assert_eq!(reply.header("location"), target);
    assert_eq!(server.get(&target).await.header("docker-content-digest"), long.to_string());
}
