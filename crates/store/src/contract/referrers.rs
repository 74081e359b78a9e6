//! Manifests that refer to others.

use std::collections::BTreeMap;

use ferry_oci::{Descriptor, Digest};

use super::Subject;
use super::fixtures::{Image, OCI, all_pages, assert_is, index};
use crate::{PageRequest, Repository};

const SBOM: &str = "application/vnd.example.sbom";
const SIGNATURE: &str = "application/vnd.example.signature+json";

async fn list(
    repo: &dyn Repository,
    subject: &Digest,
    wanted: Option<&str>,
    limit: Option<usize>,
) -> BTreeMap<Digest, Descriptor> {
    let found = all_pages(limit, async |page| repo.referrers(subject, wanted, page).await).await;
    let count = found.len();
    let listed: BTreeMap<_, _> = found.into_iter().map(|shown| (shown.digest, shown)).collect();
    assert_eq!(listed.len(), count, "each referrer once");
    listed
}

/// What a listing shows of `referrers`, if the store lists any.
fn shown(subject: &Subject, referrers: &[&Image]) -> BTreeMap<Digest, Descriptor> {
    if !subject.can.indexes_referrers {
        return BTreeMap::new();
    }
    referrers.iter().map(|referrer| (referrer.digest(), referrer.manifest.referrer_descriptor())).collect()
}

/// A referrer may come before its subject, which may never come; it is found by the digest of what is not there.
pub async fn missing_subject(subject: Subject) {
    let image = Image::new("missing-subject");
    let referrer = Image::referrer(&image.manifest, SBOM, "missing-subject");
    let repo = subject.writer("missing-subject");
    let stored = referrer.push(&*repo, None).await;
    assert_eq!(stored.subject_indexed, subject.can.indexes_referrers);
    let reader = subject.reader("missing-subject");
    assert_is(&*reader, &referrer.reference(), &referrer.manifest).await;
    let expected = shown(&subject, &[&referrer]);
    assert_eq!(list(&*reader, &image.digest(), None, None).await, expected);
    image.push(&*repo, Some("v1")).await;
    assert_eq!(list(&*reader, &image.digest(), None, None).await, expected);
}

/// Referrers of an image, of an index and of a referrer, with type and annotations, all or of one type.
pub async fn referrers_by_type(subject: Subject) {
    let image = Image::new("by-type");
    let index = index(&OCI, &[&image.manifest]);
    let repo = subject.writer("by-type");
    assert!(image.push(&*repo, None).await.subject_indexed, "vacuously true without a subject");
    repo.put_manifest(&index, None).await.unwrap();
    let sbom = Image::referrer(&image.manifest, SBOM, "by-type 1");
    let signature = Image::referrer(&image.manifest, SIGNATURE, "by-type 2");
    let of_index = Image::referrer(&index, SIGNATURE, "by-type 3");
    let of_referrer = Image::referrer(&sbom.manifest, SIGNATURE, "by-type 4");
    for referrer in [&sbom, &signature, &of_index, &of_referrer] {
        assert_eq!(referrer.push(&*repo, None).await.subject_indexed, subject.can.indexes_referrers);
    }
    let reader = subject.reader("by-type");
    for (of, wanted, expected) in [
        (image.digest(), None, &[&sbom, &signature][..]),
        (image.digest(), Some(SBOM), &[&sbom]),
        (image.digest(), Some(SIGNATURE), &[&signature]),
        (image.digest(), Some("application/vnd.example.other"), &[]),
        (index.digest(), None, &[&of_index]),
        (sbom.digest(), Some(SIGNATURE), &[&of_referrer]),
        (signature.digest(), None, &[]),
    ] {
        assert_eq!(list(&*reader, &of, wanted, None).await, shown(&subject, expected), "{of} {wanted:?}");
    }
}

/// Referrers in pages of any size, filtered or not.
pub async fn referrers_in_pages(subject: Subject) {
    let image = Image::new("referrer-pages");
    let repo = subject.writer("referrer-pages");
    image.push(&*repo, Some("v1")).await;
    let kinds = [SBOM, SIGNATURE, SBOM, SIGNATURE, SBOM];
    let referrers: Vec<Image> = (0..)
        .zip(kinds)
        .map(|(number, kind)| Image::referrer(&image.manifest, kind, &format!("referrer-pages {number}")))
        .collect();
    for referrer in &referrers {
        referrer.push(&*repo, None).await;
    }
    let reader = subject.reader("referrer-pages");
    let all: Vec<&Image> = referrers.iter().collect();
    let sboms: Vec<&Image> = referrers.iter().step_by(2).collect();
    for limit in [None, Some(1), Some(2), Some(5)] {
        let found = list(&*reader, &image.digest(), None, limit).await;
        assert_eq!(found, shown(&subject, &all), "pages of {limit:?}");
        let found = list(&*reader, &image.digest(), Some(SBOM), limit).await;
        assert_eq!(found, shown(&subject, &sboms), "SBOMs, pages of {limit:?}");
    }
}

/// An unknown subject has no referrers, in a repository or none; that is no error.
pub async fn referrers_of_unknown_subject(subject: Subject) {
    Image::new("unknown-subject").push(&*subject.writer("unknown-subject"), Some("v1")).await;
    let unknown = Digest::sha256(b"unknown subject");
    for name in ["unknown-subject", "unknown-subject/no-such-repository"] {
        let page = subject.reader(name).referrers(&unknown, None, PageRequest::default()).await.unwrap();
        assert!(page.items.is_empty() && page.next.is_none(), "{name}: {page:?}");
    }
}
