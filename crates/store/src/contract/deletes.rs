//! Removing tags, manifests and blobs.

use ferry_oci::{Digest, Reference};

use super::Subject;
use super::fixtures::{
    Image, all_pages, assert_is, assert_no_blob, assert_no_manifest, by_tag, kind, push_blob, tag,
};
use crate::{Kind, PageRequest, Removed, Repository, RepositoryMut, Result};

/// Whether it was removed, as it must be exactly if the store can.
fn removed(subject: &Subject, answer: Result<Removed>) -> bool {
    let expected = if subject.can.deletes { Removed::Yes } else { Removed::Unsupported };
    assert_eq!(answer.unwrap(), expected);
    subject.can.deletes
}

/// An image under the tags `a` and `b`.
async fn tagged_twice(repo: &dyn RepositoryMut, seed: &str) -> Image {
    let image = Image::new(seed);
    image.push(repo, Some("a")).await;
    repo.put_manifest(&image.manifest, Some(&tag("b"))).await.unwrap();
    image
}

async fn tags(repo: &dyn Repository) -> Vec<String> {
    let entries = all_pages(None, async |page| repo.tags(page).await).await;
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.tag.to_string()).collect();
    names.sort();
    names
}

/// A tag goes alone: the manifest and its other tags stay.
pub async fn deleted_tag(subject: Subject) {
    let repo = subject.writer("deleted-tag");
    let image = tagged_twice(&*repo, "deleted-tag").await;
    let gone = removed(&subject, repo.delete_manifest(&by_tag("a")).await);
    let reader = subject.reader("deleted-tag");
    if gone {
        assert_no_manifest(&*reader, &by_tag("a")).await;
        assert_eq!(tags(&*reader).await, ["b"]);
        assert_eq!(kind(repo.delete_manifest(&by_tag("a")).await), Some(Kind::NotFound));
    } else {
        assert_is(&*reader, &by_tag("a"), &image.manifest).await;
    }
    for reference in [by_tag("b"), image.reference()] {
        assert_is(&*reader, &reference, &image.manifest).await;
    }
}

/// A manifest goes with the tags on it, and with nothing else; it can be pushed again.
pub async fn deleted_manifest(subject: Subject) {
    let repo = subject.writer("deleted-manifest");
    let image = tagged_twice(&*repo, "deleted-manifest").await;
    let other = Image::new("deleted-manifest other");
    other.push(&*repo, Some("c")).await;
    let gone = removed(&subject, repo.delete_manifest(&image.reference()).await);
    let reader = subject.reader("deleted-manifest");
    if gone {
        for reference in [by_tag("a"), by_tag("b"), image.reference()] {
            assert_no_manifest(&*reader, &reference).await;
        }
        assert_eq!(tags(&*reader).await, ["c"]);
        assert_eq!(kind(repo.delete_manifest(&image.reference()).await), Some(Kind::NotFound));
        repo.put_manifest(&image.manifest, Some(&tag("a"))).await.unwrap();
    }
    assert_is(&*reader, &by_tag("a"), &image.manifest).await;
    assert_is(&*reader, &by_tag("c"), &other.manifest).await;
}

/// A blob goes from this repository only; it can be pushed again.
pub async fn deleted_blob(subject: Subject) {
    let (repo, beside) = (subject.writer("deleted-blob/a"), subject.writer("deleted-blob/b"));
    let image = Image::new("deleted-blob");
    image.push_blobs(&*repo).await;
    image.push_blobs(&*beside).await;
    let digest = Digest::sha256(&image.blobs[1]);
    let size = Some(image.blobs[1].len() as u64);
    let gone = removed(&subject, repo.delete_blob(&digest).await);
    let reader = subject.reader("deleted-blob/a");
    if gone {
        assert_no_blob(&*reader, &digest).await;
        assert_eq!(kind(repo.delete_blob(&digest).await), Some(Kind::NotFound));
        if subject.can.separate_repositories {
            assert_eq!(subject.reader("deleted-blob/b").stat(&digest).await.unwrap(), size);
        }
        if subject.can.rejects_incomplete_manifests {
            assert_eq!(kind(repo.put_manifest(&image.manifest, None).await), Some(Kind::Incomplete));
        }
        push_blob(&*repo, &image.blobs[1]).await;
    }
    assert_eq!(reader.stat(&digest).await.unwrap(), size);
    assert!(reader.stat(&Digest::sha256(&image.blobs[0])).await.unwrap().is_some(), "the others stay");
}

/// A referrer that is removed is no longer listed.
pub async fn deleted_referrer(subject: Subject) {
    let repo = subject.writer("deleted-referrer");
    let image = Image::new("deleted-referrer");
    image.push(&*repo, Some("v1")).await;
    let kept = Image::referrer(&image.manifest, "application/vnd.example.kept", "deleted-referrer 1");
    let lost = Image::referrer(&image.manifest, "application/vnd.example.lost", "deleted-referrer 2");
    kept.push(&*repo, None).await;
    lost.push(&*repo, None).await;
    let gone = removed(&subject, repo.delete_manifest(&lost.reference()).await);
    let reader = subject.reader("deleted-referrer");
    let page = reader.referrers(&image.digest(), None, PageRequest::default()).await.unwrap();
    let mut listed: Vec<Digest> = page.items.iter().map(|shown| shown.digest).collect();
    listed.sort();
    let mut expected = match (subject.can.indexes_referrers, gone) {
        (false, _) => vec![],
        (true, true) => vec![kept.digest()],
        (true, false) => vec![kept.digest(), lost.digest()],
    };
    expected.sort();
    assert_eq!(listed, expected);
}

/// What was never there cannot be removed, in a repository or none.
pub async fn nothing_to_delete(subject: Subject) {
    let image = Image::new("nothing-to-delete");
    image.push(&*subject.writer("nothing-to-delete"), Some("v1")).await;
    let never = Digest::sha256(b"nothing to delete");
    for name in ["nothing-to-delete", "nothing-to-delete/no-such-repository"] {
        let repo = subject.writer(name);
        for answer in [
            repo.delete_manifest(&by_tag("v2")).await,
            repo.delete_manifest(&Reference::Digest(never)).await,
            repo.delete_blob(&never).await,
        ] {
            match answer {
                Ok(answer) => assert!(!subject.can.deletes && answer == Removed::Unsupported, "{answer:?}"),
                Err(error) => assert_eq!(error.kind(), Kind::NotFound, "{error}"),
            }
        }
    }
    assert_is(&*subject.reader("nothing-to-delete"), &by_tag("v1"), &image.manifest).await;
}
