//! Many at once.

use bytes::Bytes;
use ferry_oci::Digest;
use ferry_store::{Mount, PageRequest, Scope, Store};
use tokio::task::JoinSet;

use crate::fixtures::*;

/// 100 clients push images that share blobs, some into the same repository, into an empty storage: nobody is told that
/// the catalog is busy, and everything is there in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn images_that_share_blobs() {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path()).await;
    let shared: Vec<Bytes> = (0..4u8).map(|i| Bytes::from(vec![i; 40_000])).collect();
    let mut pushes = JoinSet::new();
    for n in 0..100 {
        let (storage, shared) = (storage.clone(), shared.clone());
        pushes.spawn(async move {
            let repo = writer(&storage, &format!("app-{}", n % 10));
            let blobs =
                [Bytes::from(format!("{{\"n\":{n}}}")), shared[n % 4].clone(), shared[(n + 1) % 4].clone()];
            for blob in &blobs {
                let expect = ferry_store::Expect {
                    digest: Some(Digest::sha256(blob)),
                    size: Some(blob.len() as u64),
                    mount: if n % 2 == 0 { Mount::Anywhere } else { Mount::No },
                };
                if let ferry_store::Begun::Upload(mut upload) = repo.begin(expect).await.unwrap() {
                    upload.write(blob.clone()).await.unwrap();
                    upload.commit(&Digest::sha256(blob)).await.unwrap();
                }
            }
            let image = image(&blobs);
            repo.put_manifest(&image, Some(&tag(&format!("v{n}")))).await.unwrap();
            repo.put_manifest(&image, Some(&tag("latest"))).await.unwrap();
            (n, image)
        });
    }
    for (n, image) in pushes.join_all().await {
        let repo = storage.repository(&Scope::Hosted, &format!("app-{}", n % 10).parse().unwrap());
        let found = repo.manifest(&by_tag(&format!("v{n}"))).await.unwrap();
        assert_eq!(found.bytes(), image.bytes());
        for blob in found.blobs() {
            let bytes = read_blob(&*repo, &blob.digest).await;
            assert_eq!(Digest::sha256(&bytes), blob.digest);
        }
    }
    let tags = writer(&storage, "app-3").tags(PageRequest::default()).await.unwrap();
    assert_eq!(tags.items.len(), 11, "ten of their own and latest");
    assert!(tags.items.windows(2).all(|pair| pair[0].tag < pair[1].tag), "in byte order");
    assert!(upload_files(directory.path()).is_empty(), "nothing is left over");
}
