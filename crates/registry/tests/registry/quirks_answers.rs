//! Mounts, manifests, listings and tokens of registries that go their own ways.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ferry_oci::Digest;
use ferry_registry::{Anonymous, Client, Credential, Credentials, Login as LoggedIn, Secret};
use ferry_store::{Begun, Kind, Mount, PageRequest, Repository, Scope, Store};
use ferry_testkit::fake::{Auth, FakeRegistry, Fault, FaultRule, Kind as Asked, Login};
use ferry_testkit::images::{Image, ImageBuilder, Layer, MediaTypes};
use ferry_testkit::quirks::{
    Challenge, Head, Link, Listings, Manifests, MountAnswer, Mounts, Quirks, Tokens, TooMany,
};

use crate::support::*;

async fn with(quirks: Quirks) -> FakeRegistry {
    let registry = FakeRegistry::start().await.unwrap();
    registry.quirks(quirks);
    registry
}

async fn asking(tokens: Tokens) -> FakeRegistry {
    with(Quirks { tokens: Tokens { asks: true, ..tokens }, ..Quirks::default() }).await
}

async fn listing(listings: Listings, tags: usize) -> FakeRegistry {
    let registry = with(Quirks { listings, ..Quirks::default() }).await;
    tag_all(&registry, tags).await;
    registry
}

fn image() -> Image {
    ImageBuilder::new(MediaTypes::Oci).platform("linux/amd64", [Layer::random(1, 1000)]).build_single()
}

async fn tag_all(registry: &FakeRegistry, tags: usize) {
    let repository = registry.store().writable(&Scope::Hosted, &name(NAME)).unwrap();
    for number in 0..tags {
        let tag = format!("v{number:04}").parse().unwrap();
        image().push_to(&*repository, Some(&tag)).await.unwrap();
    }
}

fn known(registry: &FakeRegistry, who: impl Credentials + 'static) -> (Arc<Client>, Arc<dyn Store>) {
    let client = client(quick(), who);
    let store = client.registry(&registry.host().unwrap()).unwrap();
    (client, store)
}

fn stranger(registry: &FakeRegistry) -> Arc<dyn Store> {
    known(registry, Anonymous).1
}

async fn pages(repository: &Arc<dyn Repository>, limit: Option<usize>) -> (usize, BTreeSet<String>, usize) {
    let (mut request, mut all, mut seen, mut pages) =
        (PageRequest { after: None, limit }, BTreeSet::new(), 0, 0);
    loop {
        let page = repository.tags(request).await.unwrap();
        assert!(limit.is_none_or(|limit| page.items.len() <= limit));
        (pages, seen) = (pages + 1, seen + page.items.len());
        all.extend(page.items.into_iter().map(|entry| entry.tag.to_string()));
        match page.next {
            Some(next) => request = PageRequest { after: Some(next), limit },
            None => return (seen, all, pages),
        }
    }
}

#[tokio::test]
async fn a_mount_that_is_refused_becomes_an_upload() {
    let (from, bytes) = (name("base"), content(1, 1000));
    for mounts in [
        Mounts { two_parts: true, ..Mounts::default() },
        Mounts { committed: true, ..Mounts::default() },
        Mounts { answer: MountAnswer::Upload, ..Mounts::default() },
        Mounts { answer: MountAnswer::Status(400), ..Mounts::default() },
        Mounts { answer: MountAnswer::Status(404), ..Mounts::default() },
        Mounts { answer: MountAnswer::Status(405), ..Mounts::default() },
        Mounts { answer: MountAnswer::Status(500), ..Mounts::default() },
    ] {
        let registry = with(Quirks { mounts, ..Quirks::default() }).await;
        let store = stranger(&registry);
        push(&store.writable(&Scope::Hosted, &from).unwrap(), &bytes).await;
        registry.reset_counts();
        let begun = writer(&store).begin(promised(&bytes, Mount::From(vec![from.clone()]))).await.unwrap();
        let mut upload = opened(begun);
        upload.write(bytes.clone()).await.unwrap();
        upload.commit(&Digest::sha256(&bytes)).await.unwrap();
        assert!(registry.requests().len() <= 3, "{mounts:?}: {:?}", registry.requests());
    }
}

#[tokio::test]
async fn what_a_manifest_names_can_be_mounted_where_only_that_can() {
    let registry = with(Quirks::of("ecr").unwrap()).await;
    let (store, image) = (stranger(&registry), image());
    registry.create(&name(NAME));
    let other = registry.store().writable(&Scope::Hosted, &name("team/base")).unwrap();
    image.push_to(&*other, Some(&"v1".parse().unwrap())).await.unwrap();
    for (digest, bytes) in &image.blobs {
        let begun =
            writer(&store).begin(promised(bytes, Mount::From(vec![name("team/base")]))).await.unwrap();
        assert!(matches!(begun, Begun::Mounted), "{digest}");
    }
    let put = writer(&store).put_manifest(&image.root, Some(&"v1".parse().unwrap())).await;
    assert!(put.is_ok(), "without Location: {put:?}");
    let again = writer(&store).put_manifest(&image.root, Some(&"v1".parse().unwrap())).await;
    assert_eq!(kind(again), Kind::Invalid, "the tag is fixed");
}

#[tokio::test]
async fn a_repository_that_nobody_created_is_told_from_a_forbidden_one() {
    for (status, expected) in [(404, Kind::NotFound), (403, Kind::Denied)] {
        let manifests = Manifests { must_exist: Some(status), ..Manifests::default() };
        let registry = with(Quirks { manifests, ..Quirks::default() }).await;
        let repository = writer(&stranger(&registry));
        let bytes = content(1, 1000);
        assert_eq!(kind(repository.begin(promised(&bytes, Mount::Anywhere)).await), expected);
        assert_eq!(kind(repository.put_manifest(&image().root, None).await), expected);
        registry.create(&name(NAME));
        push(&repository, &bytes).await;
    }
}

#[tokio::test]
async fn a_head_that_says_too_little_is_followed_by_a_get() {
    for (head, plain_text) in
        [(Head::Refused, true), (Head::NoLength, false), (Head::NoDigest, false), (Head::Full, true)]
    {
        let registry = with(Quirks::default()).await;
        tag_all(&registry, 1).await;
        let manifests = Manifests { head, plain_text, ..Manifests::default() };
        registry.quirks(Quirks { manifests, ..Quirks::default() });
        let resolved = reader(&stranger(&registry)).resolve(&tag("v0000")).await.unwrap();
        let root = image().root;
        assert_eq!(resolved.descriptor.digest, root.digest());
        assert_eq!(
            (resolved.descriptor.size as usize, &*resolved.descriptor.media_type),
            (root.bytes().len(), root.media_type())
        );
        assert_eq!(
            (registry.count(Asked::ManifestHead), registry.count(Asked::ManifestGet)),
            (1, 1),
            "{head:?}"
        );
    }
}

#[tokio::test]
async fn manifests_that_are_too_large_are_refused_once() {
    for status in [400, 413] {
        let manifests = Manifests { limit: Some((100, status)), ..Manifests::default() };
        let registry = with(Quirks { manifests, ..Quirks::default() }).await;
        let put = writer(&stranger(&registry)).put_manifest(&image().root, None).await;
        assert_eq!((kind(put), registry.count(Asked::ManifestPut)), (Kind::Invalid, 1));
    }
}

#[tokio::test]
async fn every_listing_has_every_tag_once() {
    let base = Listings::default();
    for (what, listings) in [
        ("unpaged", Listings { unpaged: true, ..base }),
        ("quay", Listings { most: Some((3, TooMany::Cut)), usual: Some(3), link: Link::Absolute, ..base }),
        (
            "artifactory",
            Listings { most: Some((4, TooMany::Cut)), link: Link::LostPrefix, picky: true, ..base },
        ),
        ("nexus", Listings { most: Some((4, TooMany::Cut)), link: Link::OtherPath, ..base }),
        ("ghcr", Listings { by_age: true, null: true, usual: Some(5), ..base }),
        ("zot", Listings { known_last: true, ..base }),
    ] {
        let registry = listing(listings, 10).await;
        let repository = reader(&stranger(&registry));
        for limit in [None, Some(2), Some(3), Some(7), Some(5000)] {
            let (seen, all, _) = pages(&repository, limit).await;
            assert_eq!((seen, all.len()), (10, 10), "{what} {limit:?}");
        }
    }
}

#[tokio::test]
async fn nobody_is_asked_for_more_than_a_thousand_tags() {
    for (most, link) in [
        (TooMany::Status(405), Link::Relative),
        (TooMany::Status(400), Link::Relative),
        (TooMany::Cut, Link::Missing),
    ] {
        let listings = Listings { most: Some((1000, most)), link, ..Listings::default() };
        let registry = listing(listings, 1002).await;
        let (seen, all, count) = pages(&reader(&stranger(&registry)), Some(5000)).await;
        assert_eq!((seen, all.len(), count), (1002, 1002, 2), "{most:?}");
    }
}

#[tokio::test]
async fn a_listing_goes_on_where_a_tag_has_gone() {
    let registry = listing(Listings { known_last: true, ..Listings::default() }, 6).await;
    let repository = reader(&stranger(&registry));
    let first = repository.tags(PageRequest { after: None, limit: Some(3) }).await.unwrap();
    let all = registry.store().writable(&Scope::Hosted, &name(NAME)).unwrap();
    all.delete_manifest(&tag("v0002")).await.unwrap();
    let rest = repository.tags(PageRequest { after: first.next, limit: Some(3) }).await.unwrap();
    let rest: Vec<String> = rest.items.into_iter().map(|entry| entry.tag.to_string()).collect();
    assert_eq!(rest, ["v0003", "v0004", "v0005"]);
}

#[tokio::test]
async fn every_page_may_want_a_token_of_its_own() {
    let listings =
        Listings { fresh_token: true, most: Some((3, TooMany::Cut)), usual: Some(3), ..Listings::default() };
    let registry = listing(listings, 9).await;
    registry.quirks(Quirks {
        listings,
        tokens: Tokens { asks: true, ..Tokens::default() },
        ..Quirks::default()
    });
    let (seen, _, count) = pages(&reader(&stranger(&registry)), None).await;
    assert_eq!((seen, count, registry.count(Asked::Token)), (9, 3, 3));
}

#[tokio::test]
async fn referrers_come_without_length_and_are_kept_where_there_is_no_list() {
    for listings in [
        Listings { unsized_referrers: true, ..Listings::default() },
        Listings { no_referrers: true, ..Listings::default() },
    ] {
        let registry = with(Quirks { listings, ..Quirks::default() }).await;
        let repository = writer(&stranger(&registry));
        let image = image();
        let signature = Image::artifact(&image.root, "application/x.signature", "signed");
        image.push_to(&*repository, None).await.unwrap();
        signature.push_to(&*repository, None).await.unwrap();
        let found = repository.referrers(&image.root.digest(), None, PageRequest::default()).await.unwrap();
        let found: Vec<Digest> = found.items.iter().map(|item| item.digest).collect();
        assert_eq!(found, [signature.root.digest()], "{listings:?}");
    }
}

#[tokio::test]
async fn tokens_are_had_however_the_registry_asks() {
    let base = Tokens::default();
    for tokens in [
        Tokens { placeholder: Some("repository:user/image:pull"), no_expiry: true, ..base },
        Tokens { access_token: true, no_expiry: true, ..base },
        Tokens { placeholder: Some("*"), challenge: Challenge::WithBasic, ..base },
        Tokens { challenge: Challenge::LowerCase, open_ping: true, ..base },
        Tokens { metadata_read: true, ..base },
        Tokens { first_scope: true, ..base },
        Tokens { first_scope: true, forbids: true, ..base },
        Tokens { basic_after_token: true, strange_realm: true, delete_to_cancel: true, ..base },
    ] {
        let registry = asking(tokens).await;
        tag_all(&registry, 2).await;
        let store = stranger(&registry);
        assert_eq!(pages(&reader(&store), None).await.0, 2, "{tokens:?}");
        let bytes = content(1, 1000);
        let begun =
            writer(&store).begin(promised(&bytes, Mount::From(vec![name("team/base")]))).await.unwrap();
        opened(begun).abort().await.unwrap();
        push(&writer(&store), &bytes).await;
        assert!(registry.count(Asked::Token) <= 9, "{tokens:?}: {:?}", registry.requests());
    }
}

#[tokio::test]
async fn a_token_that_is_over_is_renewed_where_the_last_one_came_from() {
    for tokens in [
        Tokens { strange_realm: true, ..Tokens::default() },
        Tokens { basic_after_token: true, ..Tokens::default() },
    ] {
        let registry = asking(tokens).await;
        tag_all(&registry, 1).await;
        let repository = reader(&stranger(&registry));
        repository.resolve(&tag("v0000")).await.unwrap();
        registry.expire_tokens();
        registry.reset_counts();
        repository.resolve(&tag("v0000")).await.unwrap();
        assert_eq!(registry.requests().len(), 3, "refused, a token, an answer");
        assert!(registry.requests().iter().all(|asked| !asked.path.contains("strange")));
    }
}

#[tokio::test]
async fn a_token_server_that_knows_no_post_is_asked_by_get() {
    for status in [400, 401, 404, 405] {
        let registry =
            with(Quirks { tokens: Tokens { post: Some(status), ..Tokens::default() }, ..Quirks::default() })
                .await;
        tag_all(&registry, 1).await;
        let login = Some(Login::new("", "refresh"));
        registry.require(Auth::Bearer { login, lifetime: Duration::from_secs(300) });
        let (_, store) = known(&registry, Fixed(Credential::IdentityToken(Secret::new("refresh"))));
        reader(&store).resolve(&tag("v0000")).await.unwrap();
        assert_eq!(registry.count(Asked::Token), 2, "{status}");
        let (_, store) = known(&registry, Fixed(Credential::IdentityToken(Secret::new("wrong"))));
        assert_eq!(kind(reader(&store).resolve(&tag("v0000")).await), Kind::Unauthorized);
    }
}

#[tokio::test]
async fn a_login_is_looked_at_where_everyone_may_ping() {
    let tokens = Tokens { challenge: Challenge::LowerCase, open_ping: true, ..Tokens::default() };
    let registry = with(Quirks { tokens, ..Quirks::default() }).await;
    let login = Some(Login::new("user", "right"));
    registry.require(Auth::Bearer { login, lifetime: Duration::from_secs(300) });
    let host = registry.host().unwrap();
    let (client, _) = known(&registry, password("user", "right"));
    assert_eq!(client.log_in(&host).await.unwrap(), LoggedIn::Accepted);
    let (client, _) = known(&registry, password("user", "wrong"));
    assert_eq!(kind(client.log_in(&host).await), Kind::Unauthorized);
}

#[tokio::test]
async fn a_bare_429_is_waited_for() {
    let registry = with(Quirks::default()).await;
    tag_all(&registry, 1).await;
    let bare = Fault::Status { status: 429, retry_after: None, body: String::new() };
    registry.fail(FaultRule::new(bare).times(2));
    reader(&stranger(&registry)).resolve(&tag("v0000")).await.unwrap();
    assert_eq!(registry.requests().len(), 3);
}
