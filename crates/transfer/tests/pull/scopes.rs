//! Who may see what: rule 7 of the architecture, cached and in flight.

use std::sync::Arc;

use ferry_oci::Reference;
use ferry_store::{Begun, ByteRange, Expect, Kind, Mount, Scope, Store};
use ferry_transfer::PullThrough;

use crate::fixtures::*;

/// A second mirror over the same storage, for another scope.
async fn beside(mirror: &Mirror, upstream: &Upstream, scope: Scope) -> PullThrough {
    let options = options(&mirror.storage, upstream.counting.clone(), &mirror.time).await;
    PullThrough::new(ferry_transfer::PullOptions { scope, ..options })
}

fn host(name: &str) -> Scope {
    Scope::Upstream { host: name.to_owned(), account: None }
}

/// Neither a repository of the same name at another upstream, nor another account, nor whoever pushes gets what the
/// upstream did not confirm to them.
async fn assert_hidden(mirror: &Mirror, digest: ferry_oci::Digest) {
    let empty = Upstream::new();
    empty.push(APP, &bytes::Bytes::from_static(b"it exists")).await;
    for scope in [host("other.example"), account()] {
        let stranger = beside(mirror, &empty, scope).await.repository(&Scope::Hosted, &name(APP));
        assert_eq!(kind(stranger.blob(&digest, ByteRange::ALL).await), Some(Kind::NotFound));
        assert_eq!(stranger.stat(&digest).await.unwrap(), None);
    }
    let sibling = mirror.repository("team/other");
    assert_eq!(kind(sibling.blob(&digest, ByteRange::ALL).await), Some(Kind::NotFound));
    let hosted = mirror.storage.writable(&Scope::Hosted, &name(APP)).unwrap();
    assert_eq!(hosted.stat(&digest).await.unwrap(), None);
    for mount in [Mount::Anywhere, Mount::From(vec![name(APP)])] {
        let begun = hosted.begin(Expect { digest: Some(digest), size: None, mount }).await.unwrap();
        let Begun::Upload(upload) = begun else { panic!("{begun:?} of what is not theirs") };
        upload.abort().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_see_nothing_in_flight_nor_cached() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(1, 1 << 20).await;
    mirror.upstream.line.open_to(500_000);
    let reading = mirror.app().blob(&digest, ByteRange::ALL).await.unwrap();
    assert_hidden(&mirror, digest).await;
    mirror.upstream.line.open_to(u64::MAX);
    assert!(reading.into_bytes().await.unwrap() == bytes);
    mirror.settle().await;
    assert!(mirror.holds(&digest).await);
    mirror.time.pass(10);
    assert_hidden(&mirror, digest).await;
}

/// What is here for others costs one request, and no bytes, once the upstream has confirmed it.
#[tokio::test(flavor = "multi_thread")]
async fn confirmed_content_is_linked() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(2, 1 << 20).await;
    read(&*mirror.app(), &digest, ByteRange::ALL).await.unwrap();
    mirror.settle().await;
    mirror.upstream.push("team/other", &bytes).await;
    let theirs = Upstream::new();
    theirs.push(APP, &bytes).await;
    mirror.upstream.take();
    for _ in 0..2 {
        assert!(read(&*mirror.repository("team/other"), &digest, ByteRange::ALL).await.unwrap() == bytes);
    }
    let asked = mirror.upstream.take();
    assert_eq!((asked.stat, asked.blob), (1, 0));
    let stranger = beside(&mirror, &theirs, account()).await.repository(&Scope::Hosted, &name(APP));
    assert_eq!(stranger.stat(&digest).await.unwrap(), Some(bytes.len() as u64));
    assert!(read(&*stranger, &digest, ByteRange::ALL).await.unwrap() == bytes);
    let asked = theirs.take();
    assert_eq!((asked.stat, asked.blob), (1, 0));
}

/// Two repositories of one upstream that want a blob at the same time fetch it once.
#[tokio::test(flavor = "multi_thread")]
async fn repositories_share_a_flight_when_both_hold_the_blob() {
    let mirror = Mirror::new().await;
    let (digest, bytes) = mirror.blob(3, 1 << 20).await;
    mirror.upstream.push("team/other", &bytes).await;
    mirror.upstream.line.open_to(500_000);
    let first = mirror.app().blob(&digest, ByteRange::ALL).await.unwrap();
    let second = mirror.repository("team/other").blob(&digest, ByteRange::ALL).await.unwrap();
    assert_eq!(mirror.pull.figures().flights.len(), 2);
    mirror.upstream.line.open_to(u64::MAX);
    let (first, second) = tokio::join!(first.into_bytes(), second.into_bytes());
    assert!(first.unwrap() == bytes && second.unwrap() == bytes);
    mirror.settle().await;
    let asked = mirror.upstream.take();
    assert_eq!((asked.stat, asked.blob, mirror.upstream.line.bytes()), (1, 1, bytes.len() as u64));
    for repository in [APP, "team/other"] {
        assert!(read(&*mirror.repository(repository), &digest, ByteRange::ALL).await.unwrap() == bytes);
    }
    assert_eq!(mirror.upstream.take(), ferry_store::Counts::default(), "both are in the cache");
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_with_the_same_names_never_mix() {
    let mirror = Mirror::new().await;
    let (ours, theirs) = (mirror.image(20, "v1").await, image(30));
    let upstream = Upstream::new();
    theirs.push_to(&*upstream.writer(APP), Some(&tag("v1"))).await.unwrap();
    let other = Arc::new(beside(&mirror, &upstream, host("other.example")).await);
    let other = other.repository(&Scope::Hosted, &name(APP));
    for _ in 0..2 {
        assert_eq!(mirror.app().manifest(&by_tag("v1")).await.unwrap().bytes(), ours.root.bytes());
        assert_eq!(other.manifest(&by_tag("v1")).await.unwrap().bytes(), theirs.root.bytes());
        let foreign = Reference::Digest(ours.root.digest());
        assert_eq!(kind(other.manifest(&foreign).await), Some(Kind::NotFound));
        assert_eq!(kind(other.resolve(&foreign).await), Some(Kind::NotFound));
    }
}
