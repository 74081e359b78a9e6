//! Listings that never come to an end.

use std::sync::atomic::{AtomicUsize, Ordering};

use ferry_oci::Digest;
use ferry_store::{Cursor, Kind, Page, PageRequest, Result};

use crate::fake::{Fake, Reply};
use crate::support::*;

/// Asks for page after page as everybody does who wants everything. Returns how it ended, and how much there was.
async fn follow<T, F>(ask: impl Fn(PageRequest) -> F) -> (Result<()>, usize)
where
    F: Future<Output = Result<Page<T>>>,
{
    let (mut request, mut seen) = (PageRequest::default(), 0);
    for _ in 0..20_000 {
        let page = match ask(request).await {
            Ok(page) => page,
            Err(error) => return (Err(error), seen),
        };
        seen += page.items.len();
        match page.next {
            Some(next) => request = PageRequest { after: Some(next), limit: None },
            None => return (Ok(()), seen),
        }
    }
    panic!("it would go on for ever");
}

fn many(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|n| format!("\"t{n}\"")).collect();
    format!(r#"{{"tags":[{0}],"repositories":[{0}]}}"#, names.join(","))
}

/// A page of so many names, each of which links to the next one that `link` makes of its number.
async fn listing(count: usize, link: impl Fn(usize) -> String + Send + Sync + 'static) -> Fake {
    let (body, asked) = (many(count), AtomicUsize::new(0));
    Fake::start(move |_| {
        let next = link(asked.fetch_add(1, Ordering::SeqCst));
        Reply::new(200).body(body.clone()).header("link", format!("<{next}>; rel=\"next\""))
    })
    .await
}

#[tokio::test]
async fn a_listing_with_ever_new_pages_is_given_up() {
    let links: [fn(usize) -> String; 3] = [
        |n| format!("/v2/x?last=page{n}"),
        |n| format!("/v2/x?last={}", ["a", "b"][n % 2]),
        |n| format!("https://elsewhere.example/?n=1&last={}#x", "x".repeat(n % 7 + 1)),
    ];
    for link in links {
        let fake = listing(20_000, link).await;
        let store = anonymous(&fake.registry());
        let repository = reader(&store);
        let (end, seen) = follow(|page| repository.tags(page)).await;
        assert_eq!(kind(end), Kind::Invalid);
        assert!(seen <= 1_000_000 && fake.seen().len() <= 50, "{seen} in {}", fake.seen().len());
        let (end, _) = follow(|page| store.repositories("", page)).await;
        assert_eq!(kind(end), Kind::Invalid);
        assert!(fake.seen().len() <= 100);
    }
}

#[tokio::test]
async fn a_listing_that_does_not_move_on_ends() {
    let fake = listing(3, |_| "/v2/x?last=t2".to_owned()).await;
    let repository = reader(&anonymous(&fake.registry()));
    let (end, seen) = follow(|page| repository.tags(page)).await;
    assert!(end.is_ok() && seen <= 6 && fake.seen().len() == 2, "{seen}");
}

#[tokio::test]
async fn a_listing_of_almost_nothing_ends_as_well() {
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(move |_| {
        let next = format!("</v2/x?page={}>; rel=\"next\"", asked.fetch_add(1, Ordering::SeqCst));
        Reply::new(200).body(r#"{"schemaVersion":2,"manifests":[]}"#).header("link", next)
    })
    .await;
    let repository = reader(&anonymous(&fake.registry()));
    let subject = Digest::sha256(b"x");
    let (end, seen) = follow(|page| repository.referrers(&subject, None, page)).await;
    assert_eq!((kind(end), seen), (Kind::Invalid, 0));
    assert!(fake.seen().len() <= 10_001, "{}", fake.seen().len());
}

#[tokio::test]
async fn a_name_of_ones_own_is_a_place_to_begin() {
    let fake = Fake::start(|_| Reply::new(200).body(r#"{"tags":["c"]}"#)).await;
    let request = PageRequest { after: Some(Cursor::after("b")), limit: None };
    let page = reader(&anonymous(&fake.registry())).tags(request).await.unwrap();
    assert_eq!((page.items.len(), fake.lines()), (1, vec!["GET /v2/team/app/tags/list?last=b".to_owned()]));
}
