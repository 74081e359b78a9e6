use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::{Digest, Reference, Tag};
use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::{Begun, ByteRange, Expect, Kind, MemoryStore, Mount, Repository, RepositoryMut, Scope, Store};

mod counting {
    use std::sync::Arc;

    use crate::contract::{Capabilities, Subject};
    use crate::{CountingStore, MemoryStore};

    async fn subject() -> Subject {
        let store = Arc::new(CountingStore::new(Arc::new(MemoryStore::new())));
        Subject { store, can: Capabilities::default(), guard: Box::new(()) }
    }

    crate::contract_tests!(subject);
}

mod faultless {
    use std::sync::Arc;

    use crate::contract::{Capabilities, Subject};
    use crate::{FaultyStore, MemoryStore};

    async fn subject() -> Subject {
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        Subject { store, can: Capabilities::default(), guard: Box::new(()) }
    }

    crate::contract_tests!(subject);
}

const CONTENT: &[u8] = b"0123456789";

fn writer(store: &dyn Store) -> Arc<dyn RepositoryMut> {
    store.writable(&Scope::Hosted, &"a".parse().unwrap()).unwrap()
}

async fn push(repo: &dyn RepositoryMut) -> crate::Result<Digest> {
    let nothing = Expect { digest: None, size: None, mount: Mount::No };
    let Begun::Upload(mut upload) = repo.begin(nothing).await? else { panic!("no upload") };
    upload.write(Bytes::from_static(&CONTENT[..4])).await?;
    upload.write(Bytes::from_static(&CONTENT[4..])).await?;
    upload.commit(&Digest::sha256(CONTENT)).await?;
    Ok(Digest::sha256(CONTENT))
}

async fn read(repo: &dyn Repository, range: ByteRange) -> crate::Result<Bytes> {
    repo.blob(&Digest::sha256(CONTENT), range).await?.into_bytes().await
}

#[tokio::test]
async fn calls_and_bytes_are_counted() {
    let store = CountingStore::new(Arc::new(MemoryStore::new()));
    let repo = writer(&store);
    let digest = push(&*repo).await.unwrap();
    let pushed = Counts { begin: 1, write: 2, bytes_written: 10, commit: 1, ..Counts::default() };
    assert_eq!(store.counts(), pushed);
    assert_eq!(store.take(), pushed);
    let reader = repo.reader();
    assert!(reader.resolve(&Reference::Tag(Tag::latest())).await.is_err());
    assert_eq!(reader.stat(&digest).await.unwrap(), Some(10));
    assert_eq!(read(&*reader, ByteRange::ALL).await.unwrap(), CONTENT);
    assert_eq!(store.counts(), Counts { resolve: 1, stat: 1, blob: 1, ..Counts::default() });
}

#[tokio::test]
async fn the_call_that_the_script_names_fails() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let repo = writer(&store);
    store.fail(Operation::Write, 2, Kind::Stalled);
    store.fail(Operation::Commit, 1, Kind::Full);
    assert_eq!(push(&*repo).await.unwrap_err().kind(), Kind::Stalled);
    assert!(!store.is_spent(), "the commit was not reached");
    assert_eq!(push(&*repo).await.unwrap_err().kind(), Kind::Full);
    assert!(store.is_spent());
    assert_eq!(repo.stat(&Digest::sha256(CONTENT)).await.unwrap(), None);
    push(&*repo).await.unwrap();
}

#[tokio::test]
async fn bodies_go_wrong_once() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let repo = writer(&store);
    push(&*repo).await.unwrap();
    store.spoil(1, BodyFault::TruncateAfter(3));
    store.spoil(2, BodyFault::CorruptAt(2));
    store.spoil(3, BodyFault::CorruptAt(10));
    let mut cut = repo.blob(&Digest::sha256(CONTENT), ByteRange::from(1)).await.unwrap().into_stream();
    assert_eq!(cut.next().await.unwrap().unwrap(), "123");
    assert_eq!(cut.next().await.unwrap().unwrap_err().kind(), Kind::Unavailable);
    assert!(cut.next().await.is_none());
    assert_eq!(read(&*repo, ByteRange::from(1)).await.unwrap(), "122456789");
    assert_eq!(read(&*repo, ByteRange::ALL).await.unwrap(), CONTENT, "there is no byte 10");
    assert!(store.is_spent());
}

/// In memory nothing ever waits, so what is not ready at once never is.
#[tokio::test]
async fn stalls_do_not_end() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let repo = writer(&store);
    push(&*repo).await.unwrap();
    store.stall(Operation::Stat, 1);
    store.spoil(1, BodyFault::StallAfter(4));
    let digest = Digest::sha256(CONTENT);
    assert!(repo.stat(&digest).now_or_never().is_none());
    assert_eq!(repo.stat(&digest).now_or_never().unwrap().unwrap(), Some(10));
    let mut body = repo.blob(&digest, ByteRange::ALL).await.unwrap().into_stream();
    assert_eq!(body.next().now_or_never().unwrap().unwrap().unwrap(), "0123");
    assert!(body.next().now_or_never().is_none());
}
