//! Tags and repositories. Nothing is asserted of their order: no client may rely on one.

use std::collections::BTreeSet;

use super::Subject;
use super::fixtures::{Image, all_pages, assert_no_tags, kind, repository, tag};
use crate::{Kind, PageRequest};

/// Every tag is listed once, whatever the size of the pages, and no page is larger than asked for.
pub async fn tags_in_pages(subject: Subject) {
    let image = Image::new("tags");
    let writer = subject.writer("tags");
    image.push(&*writer, None).await;
    let names = ["latest", "0.9", "0.10", "Z", "a", "_x", "v1.2-rc.1"];
    for name in names {
        writer.put_manifest(&image.manifest, Some(&tag(name))).await.unwrap();
    }
    let reader = subject.reader("tags");
    let expected: BTreeSet<&str> = names.into_iter().collect();
    for limit in [None, Some(1), Some(3), Some(7), Some(100)] {
        let found = all_pages(limit, async |page| reader.tags(page).await).await;
        let listed: BTreeSet<&str> = found.iter().map(|entry| entry.tag.as_str()).collect();
        assert_eq!(listed, expected, "pages of {limit:?}");
        assert_eq!(found.len(), names.len(), "each once, in pages of {limit:?}");
        assert!(found.iter().all(|entry| entry.digest.is_none_or(|digest| digest == image.digest())));
    }
}

/// A repository without tags, or none at all, lists no tags.
pub async fn no_tags(subject: Subject) {
    assert_no_tags(&*subject.reader("no-tags")).await;
    Image::new("no-tags").push(&*subject.writer("no-tags"), None).await;
    assert_no_tags(&*subject.reader("no-tags")).await;
}

/// Whoever asks for at most no tags gets none, and no next page (distribution-spec, "Listing Tags").
pub async fn at_most_no_tags(subject: Subject) {
    Image::new("zero").push(&*subject.writer("zero"), Some("v1")).await;
    let page = subject.reader("zero").tags(PageRequest { after: None, limit: Some(0) }).await.unwrap();
    assert!(page.items.is_empty() && page.next.is_none(), "{page:?}");
}

/// The repositories below a prefix, each once, whatever the size of the pages.
pub async fn repositories_in_pages(subject: Subject) {
    let names = ["listed/a", "listed/a/b", "listed/a-b", "listed/z", "listed-not"];
    for name in names {
        Image::new(name).push(&*subject.writer(name), Some("v1")).await;
    }
    let store = &subject.store;
    if !subject.can.lists_repositories {
        let refused = kind(store.repositories("contract/", PageRequest::default()).await);
        assert!(matches!(refused, Some(Kind::Denied | Kind::NotFound)), "{refused:?}");
        return;
    }
    if !subject.can.separate_repositories {
        let all = all_pages(None, async |page| store.repositories("", page).await).await;
        assert!(all.len() <= 1, "every name is the same repository: {all:?}");
        return;
    }
    let expected: BTreeSet<_> = names[..4].iter().map(|name| repository(name)).collect();
    for limit in [None, Some(1), Some(3), Some(4)] {
        let found = all_pages(limit, async |page| store.repositories("contract/listed/", page).await).await;
        assert_eq!(found.len(), expected.len(), "each once, in pages of {limit:?}: {found:?}");
        let listed: BTreeSet<_> = found.into_iter().map(|entry| entry.name).collect();
        assert_eq!(listed, expected, "pages of {limit:?}");
    }
    let none = all_pages(None, async |page| store.repositories("contract/nothing", page).await).await;
    assert!(none.is_empty(), "{none:?}");
}
