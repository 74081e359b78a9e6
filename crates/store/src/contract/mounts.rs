//! Blobs that need not be sent, and content that is not to be seen.

use bytes::Bytes;
use ferry_oci::{Digest, Reference};

use super::Subject;
use super::fixtures::{
    Image, all_pages, assert_is, assert_no_blob, assert_no_manifest, assert_no_tags, by_tag, content, expect,
    opened, push_blob, read, repository, tag, write,
};
use crate::{Begun, ByteRange, Expect, Mount, PageRequest, Repository, RepositoryMut, Scope};

async fn assert_holds(repo: &dyn Repository, bytes: &Bytes) {
    assert!(read(repo, &Digest::sha256(bytes), ByteRange::ALL).await == *bytes);
}

/// Pushes `bytes` through the upload that must have been opened.
async fn push_through(begun: Begun, bytes: &Bytes) {
    let mut upload = opened(begun);
    write(&mut *upload, bytes).await;
    upload.commit(&Digest::sha256(bytes)).await.unwrap();
}

/// With `Mount::No` an upload is opened even if the blob is here.
pub async fn no_mount(subject: Subject) {
    let (repo, bytes) = (subject.writer("no-mount"), content("no-mount", 100));
    push_blob(&*repo, &bytes).await;
    push_through(repo.begin(expect(&bytes, Mount::No)).await.unwrap(), &bytes).await;
    assert_holds(&*subject.reader("no-mount"), &bytes).await;
}

/// A blob that the repository holds is not wanted again. Registries answer the same whether it was here or came from
/// elsewhere, so both words are right.
pub async fn existing_blob(subject: Subject) {
    let (repo, bytes) = (subject.writer("existing"), content("existing", 100));
    push_blob(&*repo, &bytes).await;
    let here = Mount::From(vec![repository("existing")]);
    match repo.begin(expect(&bytes, here)).await.unwrap() {
        Begun::Exists | Begun::Mounted => {}
        Begun::Upload(upload) => {
            assert!(!subject.can.mounts, "an upload of a blob that is here");
            upload.abort().await.unwrap();
        }
    }
    assert_holds(&*subject.reader("existing"), &bytes).await;
}

/// A blob is taken from the first named repository that holds it, and stays when it is removed there.
pub async fn mount_from_another(subject: Subject) {
    let bytes = content("mount", 100);
    push_blob(&*subject.writer("mount/source"), &bytes).await;
    let target = subject.writer("mount/target");
    let sources = Mount::From(vec![repository("mount/empty"), repository("mount/source")]);
    let begun = target.begin(expect(&bytes, sources)).await.unwrap();
    if !subject.can.separate_repositories {
        assert!(matches!(begun, Begun::Exists), "every name is the same repository, not {begun:?}");
    } else if subject.can.mounts {
        assert!(matches!(begun, Begun::Mounted), "{begun:?}");
    } else {
        push_through(begun, &bytes).await;
    }
    assert_holds(&*subject.reader("mount/target"), &bytes).await;
    if subject.can.separate_repositories && subject.can.deletes {
        subject.writer("mount/source").delete_blob(&Digest::sha256(&bytes)).await.unwrap();
        assert_holds(&*subject.reader("mount/target"), &bytes).await;
    }
}

/// If no named repository holds the blob an upload is opened in the same breath.
pub async fn mount_of_absent_blob(subject: Subject) {
    let bytes = content("mount-absent", 100);
    let repo = subject.writer("mount-absent/target");
    let sources = Mount::From(vec![repository("mount-absent/a"), repository("mount-absent/b")]);
    push_through(repo.begin(expect(&bytes, sources)).await.unwrap(), &bytes).await;
    assert_holds(&*subject.reader("mount-absent/target"), &bytes).await;
    let other = content("mount-absent-anywhere", 100);
    push_through(repo.begin(expect(&other, Mount::Anywhere)).await.unwrap(), &other).await;
    assert_holds(&*subject.reader("mount-absent/target"), &other).await;
}

/// A blob is taken from wherever it is.
pub async fn mount_from_anywhere(subject: Subject) {
    let bytes = content("anywhere", 100);
    push_blob(&*subject.writer("anywhere/source"), &bytes).await;
    let begun = subject.writer("anywhere/target").begin(expect(&bytes, Mount::Anywhere)).await.unwrap();
    if !subject.can.separate_repositories {
        assert!(matches!(begun, Begun::Exists), "every name is the same repository, not {begun:?}");
    } else if subject.can.mounts_anywhere {
        assert!(matches!(begun, Begun::Mounted), "{begun:?}");
    } else {
        push_through(begun, &bytes).await;
    }
    assert_holds(&*subject.reader("anywhere/target"), &bytes).await;
}

/// What has no name yet cannot be mounted.
pub async fn mount_without_digest(subject: Subject) {
    let (repo, bytes) = (subject.writer("nameless"), content("nameless", 100));
    for mount in [Mount::Anywhere, Mount::From(vec![repository("nameless")])] {
        let promise = Expect { digest: None, size: None, mount };
        push_through(repo.begin(promise).await.unwrap(), &bytes).await;
    }
    assert_holds(&*subject.reader("nameless"), &bytes).await;
}

async fn assert_sees_nothing(repo: &dyn Repository, image: &Image) {
    assert_no_blob(repo, &Digest::sha256(&image.blobs[0])).await;
    for reference in [by_tag("v1"), image.reference()] {
        assert_no_manifest(repo, &reference).await;
    }
    assert_no_tags(repo).await;
    let referrers = repo.referrers(&image.digest(), None, PageRequest::default()).await.unwrap();
    assert!(referrers.items.is_empty(), "no referrers");
}

/// Pushes an image and a referrer of it; `other` has a blob of its own so that it exists.
async fn push_beside(repo: &dyn RepositoryMut, other: &dyn RepositoryMut, seed: &str) -> Image {
    let image = Image::new(seed);
    image.push(repo, Some("v1")).await;
    Image::referrer(&image.manifest, "application/vnd.example.sbom", seed).push(repo, None).await;
    let own = Image::new(&format!("{seed} beside"));
    own.push(other, None).await;
    image
}

/// What was pushed into one repository is not visible in another, nor can a manifest there name it.
pub async fn repositories_are_isolated(subject: Subject) {
    let (here, there) = (subject.writer("isolated/a"), subject.writer("isolated/b"));
    let image = push_beside(&*here, &*there, "isolated").await;
    let reader = subject.reader("isolated/b");
    if !subject.can.separate_repositories {
        assert_is(&*reader, &by_tag("v1"), &image.manifest).await;
        return;
    }
    assert_sees_nothing(&*reader, &image).await;
    let put = there.put_manifest(&image.manifest, Some(&tag("v1"))).await;
    assert_eq!(put.is_err(), subject.can.rejects_incomplete_manifests, "{put:?}");
    assert_is(&*subject.reader("isolated/a"), &by_tag("v1"), &image.manifest).await;
}

/// What was pushed is not visible in the same repository of another scope, nor can it be mounted there.
pub async fn scopes_are_isolated(subject: Subject) {
    let name = repository("scoped");
    let anonymous = Scope::Upstream { host: "upstream.example".to_owned(), account: None };
    let group = Scope::Upstream { host: "upstream.example".to_owned(), account: Some("team".to_owned()) };
    let image = Image::new("scoped");
    image.push(&*subject.writer("scoped"), Some("v1")).await;
    for scope in [anonymous, group] {
        let reader = subject.store.repository(&scope, &name);
        if !subject.can.scopes {
            assert_is(&*reader, &Reference::Digest(image.digest()), &image.manifest).await;
            continue;
        }
        assert_no_manifest(&*reader, &by_tag("v1")).await;
        assert_no_manifest(&*reader, &image.reference()).await;
        assert_no_blob(&*reader, &Digest::sha256(&image.blobs[0])).await;
        let Some(writer) = subject.store.writable(&scope, &name) else { continue };
        for mount in [Mount::Anywhere, Mount::From(vec![name.clone()])] {
            let upload = opened(writer.begin(expect(&image.blobs[0], mount)).await.unwrap());
            upload.abort().await.unwrap();
        }
        hidden_from_the_listing(&subject, &scope).await;
    }
}

/// What was fetched from upstream is no hosted repository.
async fn hidden_from_the_listing(subject: &Subject, scope: &Scope) {
    let name = repository("scoped-upstream");
    let Some(writer) = subject.store.writable(scope, &name) else { return };
    let image = Image::new("scoped-upstream");
    image.push(&*writer, Some("v1")).await;
    let reader = subject.store.repository(scope, &name);
    assert_is(&*reader, &by_tag("v1"), &image.manifest).await;
    assert_sees_nothing(&*subject.reader("scoped-upstream"), &image).await;
    if subject.can.lists_repositories {
        let list = async |page| subject.store.repositories("contract/scoped-upstream", page).await;
        assert!(all_pages(None, list).await.is_empty(), "listed though not hosted");
    }
}
