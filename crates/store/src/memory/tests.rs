use bytes::Bytes;
use ferry_oci::media_type;

use super::*;
use crate::{Cursor, Mount};

mod contract {
    use std::sync::Arc;

    use crate::MemoryStore;
    use crate::contract::{Capabilities, Subject};

    async fn subject() -> Subject {
        Subject { store: Arc::new(MemoryStore::new()), can: Capabilities::default(), guard: Box::new(()) }
    }

    crate::contract_tests!(subject);
}

fn repo(store: &MemoryStore, name: &str) -> Arc<dyn RepositoryMut> {
    store.writable(&Scope::Hosted, &name.parse().unwrap()).unwrap()
}

async fn push(repo: &dyn RepositoryMut, content: &'static [u8]) -> Digest {
    let nothing = Expect { digest: None, size: None, mount: Mount::No };
    let Begun::Upload(mut upload) = repo.begin(nothing).await.unwrap() else { panic!("no upload") };
    upload.write(Bytes::from_static(content)).await.unwrap();
    let digest = Digest::sha256(content);
    upload.commit(&digest).await.unwrap();
    digest
}

async fn begin(repo: &dyn RepositoryMut, digest: Digest, mount: Mount) -> String {
    let begun = repo.begin(Expect { digest: Some(digest), size: None, mount }).await.unwrap();
    format!("{begun:?}")
}

#[tokio::test]
async fn here_and_elsewhere_are_told_apart() {
    let store = MemoryStore::new();
    let (a, b) = (repo(&store, "a"), repo(&store, "b"));
    let digest = push(&*a, b"x").await;
    assert_eq!(begin(&*a, digest, Mount::No).await, "Upload");
    assert_eq!(begin(&*a, digest, Mount::From(vec![])).await, "Exists");
    assert_eq!(begin(&*a, digest, Mount::Anywhere).await, "Exists");
    assert_eq!(begin(&*b, digest, Mount::From(vec![])).await, "Upload");
    assert_eq!(begin(&*b, digest, Mount::From(vec!["c".parse().unwrap()])).await, "Upload");
    assert_eq!(begin(&*b, digest, Mount::From(vec!["a".parse().unwrap()])).await, "Mounted");
    assert_eq!(begin(&*b, digest, Mount::From(vec!["a".parse().unwrap()])).await, "Exists");
    assert_eq!(begin(&*repo(&store, "c"), digest, Mount::Anywhere).await, "Mounted");
}

#[tokio::test]
async fn one_writer_at_a_time() {
    let store = MemoryStore::new();
    let repo = repo(&store, "a");
    let nothing = Expect { digest: None, size: None, mount: Mount::No };
    let Begun::Upload(upload) = repo.begin(nothing).await.unwrap() else { panic!("no upload") };
    let token = upload.token().unwrap();
    assert_eq!(repo.resume(&token).await.err().unwrap().kind(), Kind::Unavailable);
    drop(upload);
    assert!(repo.resume(&token).await.unwrap().is_some());
    assert!(repo.resume(&token).await.unwrap().is_some(), "dropping it has let go of it again");
}

#[tokio::test]
async fn listings_are_in_byte_order() {
    let store = MemoryStore::new();
    for name in ["b", "a/b", "a-b", "a"] {
        push(&*repo(&store, name), b"x").await;
    }
    let page = |after: Option<&str>, limit| PageRequest { after: after.map(Cursor::after), limit };
    let first = store.repositories("", page(None, Some(3))).await.unwrap();
    let names: Vec<&str> = first.items.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a", "a-b", "a/b"]);
    assert_eq!(first.next, Some(Cursor::after("a/b")));
    let last = store.repositories("", page(Some("a/b"), Some(1))).await.unwrap();
    assert_eq!((last.items.len(), last.next), (1, None));
    let since_removed = store.repositories("a", page(Some("a-a"), None)).await.unwrap();
    assert_eq!(since_removed.items.len(), 2, "a cursor need not be there any more");
}

#[tokio::test]
async fn sparse_indexes_are_taken_where_that_is_asked_for() {
    let missing =
        |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{}","size":1}}"#, Digest::sha256(b"no"));
    let parse = |text: String| Manifest::parse(None, Bytes::from(text)).unwrap();
    let index =
        parse(format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, missing(media_type::OCI_MANIFEST)));
    let image =
        parse(format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, missing(media_type::OCI_CONFIG)));
    let (strict, lenient) = (MemoryStore::new(), MemoryStore::new().taking_sparse_indexes());
    assert_eq!(repo(&strict, "a").put_manifest(&index, None).await.unwrap_err().kind(), Kind::Incomplete);
    repo(&lenient, "a").put_manifest(&index, None).await.unwrap();
    assert_eq!(repo(&lenient, "a").put_manifest(&image, None).await.unwrap_err().kind(), Kind::Incomplete);
}
