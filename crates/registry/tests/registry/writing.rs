//! Uploads and manifests, request by request.

use bytes::Bytes;
use ferry_oci::{Digest, Manifest, media_type};
use ferry_registry::{Anonymous, ClientOptions};
use ferry_store::{Begun, Expect, Kind, Mount, Removed};
use http::Method;

use crate::fake::{Fake, Reply, Seen};
use crate::support::*;

/// Opens every upload at `/u/1` and takes what comes.
fn willing(seen: &Seen) -> Reply {
    match seen.method {
        Method::POST => Reply::new(202).header("location", "/u/1?state=x"),
        Method::PATCH => Reply::new(202).header("location", "/u/1?state=y"),
        Method::DELETE => Reply::new(204),
        _ => Reply::new(201),
    }
}

#[tokio::test]
async fn a_promised_blob_costs_two_requests() {
    let fake = Fake::start(willing).await;
    let repository = writer(&anonymous(&fake.registry()));
    for length in [0, 1, 350_000] {
        let before = fake.seen().len();
        let bytes = content(7, length);
        let digest = push(&repository, &bytes).await;
        let seen = &fake.seen()[before..];
        let lines: Vec<String> = seen.iter().map(Seen::line).collect();
        assert_eq!(
            lines,
            ["POST /v2/team/app/blobs/uploads/".to_owned(), format!("PUT /u/1?state=x&digest={digest}")]
        );
        assert_eq!(seen[0].header("content-length"), Some("0"));
        assert_eq!(seen[1].header("content-length"), Some(length.to_string().as_str()));
        assert_eq!(seen[1].header("content-type"), Some("application/octet-stream"));
        assert_eq!(seen[1].body.as_ref(), Some(&bytes));
    }
}

#[tokio::test]
async fn an_unknown_blob_is_streamed_and_closed() {
    let fake = Fake::start(willing).await;
    let repository = writer(&anonymous(&fake.registry()));
    let bytes = content(8, 300_000);
    let digest = Digest::sha256(&bytes);
    let unknown = Expect { digest: None, size: None, mount: Mount::No };
    let mut upload = opened(repository.begin(unknown).await.unwrap());
    assert_eq!(upload.durable_offset().await.unwrap(), 0);
    upload.write(bytes.slice(..100)).await.unwrap();
    upload.write(bytes.slice(100..)).await.unwrap();
    assert_eq!(upload.durable_offset().await.unwrap(), 300_000);
    upload.commit(&digest).await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen[1].line(), "PATCH /u/1?state=x");
    assert!(seen[1].header("content-range").is_none());
    assert_eq!(seen[1].body.as_ref(), Some(&bytes));
    assert_eq!(seen[2].line(), format!("PUT /u/1?state=y&digest={digest}"));
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn an_upload_that_is_given_up_never_looks_complete() {
    let bytes = content(9, 200_000);
    for (sent, abort) in [(1, true), (1, false), (200_000, true), (200_000, false)] {
        let fake = Fake::start(willing).await;
        let mut upload = begin(&writer(&anonymous(&fake.registry())), &bytes).await;
        upload.write(bytes.slice(..sent)).await.unwrap();
        if abort {
            upload.abort().await.unwrap();
            assert_eq!(fake.count("DELETE /u/1?state=x"), 1);
        } else {
            drop(upload);
        }
        // The server sees the end of the body only after the connection is gone.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let put = fake.seen().into_iter().find(|seen| seen.method == Method::PUT);
        assert!(put.is_none_or(|put| put.body.is_none()), "{sent} bytes, abort {abort}");
    }
}

#[tokio::test]
async fn what_was_promised_must_come() {
    let fake = Fake::start(willing).await;
    let repository = writer(&anonymous(&fake.registry()));
    let bytes = content(10, 1000);
    let digest = Digest::sha256(&bytes);
    let mut short = begin(&repository, &bytes).await;
    short.write(bytes.slice(..999)).await.unwrap();
    assert_eq!(kind(short.commit(&digest).await), Kind::DigestMismatch);
    let mut long = begin(&repository, &bytes).await;
    long.write(bytes.clone()).await.unwrap();
    assert_eq!(kind(long.write(Bytes::from_static(b"x")).await), Kind::DigestMismatch);
    let mut other = begin(&repository, &bytes).await;
    other.write(bytes.clone()).await.unwrap();
    assert_eq!(kind(other.commit(&Digest::sha256(b"other")).await), Kind::DigestMismatch);
    assert!(fake.seen().iter().all(|seen| seen.method != Method::PUT || seen.body.is_none()));
}

#[tokio::test]
async fn what_the_registry_says_reaches_the_writer() {
    let answers = [
        // There is another way, which the next attempt takes.
        (413, "", Kind::Unavailable),
        (507, "", Kind::Full),
        (403, "", Kind::Denied),
        (404, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#, Kind::Unavailable),
        (401, "", Kind::Unavailable),
    ];
    for ((status, body, expected), resumable_from) in
        answers.into_iter().flat_map(|answer| [(answer, 0), (answer, u64::MAX)])
    {
        let fake = Fake::start(move |seen| match seen.method {
            Method::PUT | Method::PATCH => Reply::new(status).body(body).early(),
            _ => willing(seen),
        })
        .await;
        let options = ClientOptions { resumable_from, ..quick() };
        let repository = writer(&client(options, Anonymous).registry(&fake.registry()).unwrap());
        let bytes = content(11, 20_000_000);
        let mut upload = begin(&repository, &bytes).await;
        let mut failed = None;
        for piece in bytes.chunks(1_000_000) {
            if let Err(error) = upload.write(Bytes::copy_from_slice(piece)).await {
                failed = Some(error);
                break;
            }
        }
        let error = match failed {
            Some(error) => error,
            None => upload.commit(&Digest::sha256(&bytes)).await.unwrap_err(),
        };
        assert_eq!(error.kind(), expected, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_registry_that_takes_nothing_is_a_stall() {
    let fake = Fake::start(|seen| match seen.method {
        Method::PUT | Method::PATCH => Reply::never(),
        _ => willing(seen),
    })
    .await;
    let repository = writer(&client(impatient(), Anonymous).registry(&fake.registry()).unwrap());
    let piece = content(12, 1_000_000);
    let huge = Expect { digest: Some(Digest::sha256(b"x")), size: Some(1 << 30), mount: Mount::No };
    let mut upload = opened(repository.begin(huge).await.unwrap());
    let error = loop {
        if let Err(error) = upload.write(piece.clone()).await {
            break error;
        }
    };
    assert_eq!(error.kind(), Kind::Stalled);
    assert_eq!(kind(upload.write(piece).await), Kind::Unavailable, "it is over");
}

#[tokio::test]
async fn a_registry_may_not_store_something_else() {
    let fake = Fake::start(|seen| match seen.method {
        Method::PUT => Reply::new(201).header("docker-content-digest", Digest::sha256(b"something else")),
        _ => willing(seen),
    })
    .await;
    let repository = writer(&anonymous(&fake.registry()));
    let bytes = content(13, 10);
    let mut upload = begin(&repository, &bytes).await;
    upload.write(bytes.clone()).await.unwrap();
    assert_eq!(kind(upload.commit(&Digest::sha256(&bytes)).await), Kind::DigestMismatch);
    assert_eq!(kind(repository.put_manifest(&image(None), None).await), Kind::DigestMismatch);
}

#[tokio::test]
async fn mounts_are_tried_in_order_and_the_last_session_is_used() {
    let fake = Fake::start(|seen| match seen.target.contains("from=holds%2Fit") {
        true => Reply::new(201),
        false => willing(seen),
    })
    .await;
    let repository = writer(&anonymous(&fake.registry()));
    let bytes = content(14, 10);
    for (from, expected) in
        [(vec![NAME, "holds/it"], "Mounted"), (vec![NAME, "other"], "Upload"), (vec![], "Upload")]
    {
        let before = fake.seen().len();
        let mount = Mount::From(from.iter().map(|from| name(from)).collect());
        let begun = repository.begin(promised(&bytes, mount)).await.unwrap();
        assert_eq!(format!("{begun:?}"), expected);
        assert_eq!(fake.seen().len() - before, from.len().max(1), "no request beyond the questions");
    }
    let here = Fake::start(|_| Reply::new(201)).await;
    let repository = writer(&anonymous(&here.registry()));
    let own = Mount::From(vec![name(NAME)]);
    assert!(matches!(repository.begin(promised(&bytes, own)).await.unwrap(), Begun::Exists));
    assert_eq!(here.seen().len(), 1);
}

#[tokio::test]
async fn an_upload_without_location_is_invalid() {
    let fake = Fake::start(|_| Reply::new(202)).await;
    let repository = writer(&anonymous(&fake.registry()));
    let begun = repository.begin(promised(&content(15, 10), Mount::No)).await;
    assert_eq!(kind(begun), Kind::Invalid);
}

fn image(subject: Option<Digest>) -> Manifest {
    let subject = subject.map_or(String::new(), |digest| {
        format!(r#","subject":{{"mediaType":"{}","digest":"{digest}","size":1}}"#, media_type::OCI_MANIFEST)
    });
    let config = Digest::sha256(b"{}");
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"x","digest":"{config}","size":2}},"layers":[]{subject}}}"#,
        media_type::OCI_MANIFEST
    );
    Manifest::parse(None, Bytes::from(text)).unwrap()
}

#[tokio::test]
async fn a_manifest_goes_out_as_it_is() {
    let fake = Fake::start(|_| Reply::new(201)).await;
    let repository = writer(&anonymous(&fake.registry()));
    let manifest = image(None);
    let stored = repository.put_manifest(&manifest, Some(&"v1".parse().unwrap())).await.unwrap();
    assert!(stored.subject_indexed);
    repository.put_manifest(&manifest, None).await.unwrap();
    assert_eq!(
        fake.lines(),
        [
            "PUT /v2/team/app/manifests/v1".to_owned(),
            format!("PUT /v2/team/app/manifests/{}", manifest.digest())
        ]
    );
    for seen in fake.seen() {
        assert_eq!(seen.header("content-type"), Some(media_type::OCI_MANIFEST));
        assert_eq!(seen.body.as_ref(), Some(manifest.bytes()));
    }
}

#[tokio::test]
async fn a_registry_that_lists_referrers_itself_is_left_alone() {
    let subject = Digest::sha256(b"subject");
    let fake = Fake::start(move |_| Reply::new(201).header("oci-subject", subject)).await;
    let stored =
        writer(&anonymous(&fake.registry())).put_manifest(&image(Some(subject)), None).await.unwrap();
    assert!(stored.subject_indexed);
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_tag_that_is_no_list_of_referrers_is_not_overwritten() {
    let subject = Digest::sha256(b"subject");
    let fake = Fake::start(move |seen| match seen.method {
        Method::GET => {
            Reply::new(200).header("content-type", media_type::OCI_MANIFEST).body(image(None).bytes().clone())
        }
        _ => Reply::new(201),
    })
    .await;
    let stored =
        writer(&anonymous(&fake.registry())).put_manifest(&image(Some(subject)), None).await.unwrap();
    assert!(!stored.subject_indexed);
    assert_eq!(fake.count("PUT"), 1);
}

#[tokio::test]
async fn what_is_missing_is_told() {
    let body = r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#;
    let fake = Fake::start(move |_| Reply::new(404).body(body)).await;
    let put = writer(&anonymous(&fake.registry())).put_manifest(&image(None), None).await;
    assert_eq!(kind(put), Kind::Incomplete);
}

#[tokio::test]
async fn a_registry_that_removes_nothing_says_so() {
    for (status, body) in [(405, ""), (400, r#"{"errors":[{"code":"UNSUPPORTED"}]}"#)] {
        let fake = Fake::start(move |_| Reply::new(status).body(body)).await;
        let repository = writer(&anonymous(&fake.registry()));
        assert_eq!(repository.delete_blob(&Digest::sha256(b"x")).await.unwrap(), Removed::Unsupported);
        assert_eq!(repository.delete_manifest(&tag("t")).await.unwrap(), Removed::Unsupported);
    }
}

#[tokio::test]
async fn uploads_do_not_wait_for_downloads() {
    let fake = Fake::start(|seen| match seen.method {
        Method::GET => Reply::new(200).body("hello"),
        _ => willing(seen),
    })
    .await;
    let options = ClientOptions { connections_per_host: 1, ..quick() };
    let store = client(options, Anonymous).registry(&fake.registry()).unwrap();
    let digest = Digest::sha256(b"hello");
    let held = reader(&store).blob(&digest, ferry_store::ByteRange::ALL).await.unwrap();
    push(&writer(&store), &content(16, 1000)).await;
    drop(held);
}
