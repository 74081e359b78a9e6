//! What arrives.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ferry_layout::Layout;
use ferry_oci::{Descriptor, Manifest, Reference, fallback_tag, media_type};
use ferry_policy::degrade::{Degradation, Degradations};
use ferry_store::{MemoryStore, Store};
use ferry_testkit::images::Image;
use ferry_testkit::quirks::{Quirks, QuirkyStore};
use ferry_transfer::{Copier, Options, Outcome};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    Bent, Pair, artifact, copied, copier, cosign, image, push, quick, signature, tag, unchanged, writes,
};

/// Everything that can belong to an image.
struct Signed {
    image: Image,
    referrers: Vec<Image>,
    tagged: Vec<(ferry_oci::Tag, Image)>,
}

impl Signed {
    fn new() -> Self {
        let image = image().attestations().build();
        let of_root = artifact(&image.root, "of the root");
        let platform = &image.manifests[0];
        let (of_child, of_referrer) =
            (artifact(platform, "of a platform"), artifact(&of_root.root, "of that"));
        let of_attestation = artifact(&image.manifests[1], "of an attestation");
        let (sig, att) = (signature("of the root"), signature("attests a platform"));
        let (of_att, of_sig) = (signature("of the attestation"), artifact(&sig.root, "of a signature"));
        let tagged = vec![
            (cosign(&image.root, "sig"), sig),
            (cosign(platform, "att"), att.clone()),
            (cosign(&att.root, "sig"), of_att),
        ];
        Self { image, referrers: vec![of_root, of_child, of_referrer, of_attestation, of_sig], tagged }
    }

    async fn push_to(&self, store: &dyn Store) {
        push(store, &self.image, Some(&tag("v1"))).await;
        for referrer in &self.referrers {
            push(store, referrer, None).await;
        }
        for (tag, image) in &self.tagged {
            push(store, image, Some(tag)).await;
        }
    }

    async fn assert_at(&self, pair: &Pair) {
        assert!(pair.has_tag(&tag("v1"), &self.image).await);
        for referrer in &self.referrers {
            assert!(pair.has_referrer(referrer).await, "{:?}", referrer.root);
        }
        for (tag, image) in &self.tagged {
            assert!(pair.has_tag(tag, image).await, "{tag}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_everything_arrive_and_then_nothing_is_written() {
    let signed = Signed::new();
    let pair = Pair::between(Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    signed.push_to(&*pair.source).await;
    let figures = copied(pair.copy().await);
    assert_eq!((figures.referrers, figures.manifests, figures.left_behind), (8, 5 + 8, 0));
    signed.assert_at(&pair).await;
    assert_eq!(unchanged(pair.copy().await), signed.image.root.digest());
    assert_eq!(writes(pair.asked().1), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_comes_to_an_image_that_is_not() {
    let signed = Signed::new();
    let pair = Pair::with(&signed.image).await;
    copied(pair.copy().await);
    signed.push_to(&*pair.source).await;
    pair.asked();
    let figures = copied(pair.copy().await);
    assert_eq!((figures.referrers, figures.manifests, figures.degraded), (8, 8, None));
    signed.assert_at(&pair).await;
    let again = signature("once more");
    pair.push(&again, Some(&cosign(&signed.image.root, "sig"))).await;
    assert_eq!(copied(pair.copy().await).referrers, 1);
    assert!(pair.has_tag(&cosign(&signed.image.root, "sig"), &again).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn layouts_hold_it_as_well() {
    let signed = Signed::new();
    let directory = tempfile::tempdir().unwrap();
    let layout = Arc::new(Layout::create(directory.path()).unwrap());
    let into = Pair::between(Arc::new(MemoryStore::new()), layout.clone());
    signed.push_to(&*into.source).await;
    copied(into.copy().await);
    signed.assert_at(&into).await;
    unchanged(into.copy().await);
    let out = Pair::between(layout, Arc::new(MemoryStore::new()));
    assert_eq!(copied(out.copy().await).referrers, 8);
    signed.assert_at(&out).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_read() {
    let whole = image().build();
    let memory = Arc::new(MemoryStore::new());
    push(&*memory, &whole, Some(&tag("v1"))).await;
    let referrers: Vec<Image> = (0..7).map(|n| artifact(&whole.root, &n.to_string())).collect();
    for referrer in &referrers {
        push(&*memory, referrer, None).await;
    }
    let tagged =
        ["sig", "att", "sbom", "custom1"].map(|suffix| (cosign(&whole.root, suffix), signature(suffix)));
    for (tag, image) in &tagged {
        push(&*memory, image, Some(tag)).await;
    }
    let source = Bent { inner: memory, lies: HashMap::new() };
    let pair = Pair::between(Arc::new(source), Arc::new(MemoryStore::new()));
    assert_eq!(copied(pair.copy().await).referrers, 7 + 4);
    let (asked, _) = pair.asked();
    assert_eq!((asked.tags, asked.referrers), (5, 7 + 2 + 7 + 4), "a page for each");
    for referrer in &referrers {
        assert!(pair.has_referrer(referrer).await);
    }
    for (tag, image) in &tagged {
        assert!(pair.has_tag(tag, image).await);
    }
}

/// An index as a referrer: its children come with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_referrer_may_be_an_index() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    let parts = artifact(&whole.manifests[0], "a part");
    let describe = |manifest: &Manifest| {
        json!(Descriptor::new(manifest.media_type(), manifest.digest(), manifest.bytes().len() as u64))
    };
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [describe(&parts.root)], "subject": describe(&whole.root)});
    let root = Manifest::parse(None, Bytes::from(index.to_string())).unwrap();
    let index = Image { manifests: vec![parts.root.clone(), root.clone()], root, ..parts.clone() };
    pair.push(&index, None).await;
    let figures = copied(pair.copy().await);
    assert!(
        figures.referrers >= 1,
        "the part, which is a referrer itself, comes by itself or with its index"
    );
    assert!(pair.has_referrer(&index).await && pair.has_referrer(&parts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_list_referrers_are_not_copied() {
    let whole = image().build();
    let pair = Pair::with(&whole).await;
    let list = signature("stands for a list");
    pair.push(&list, Some(&fallback_tag(&whole.root.digest()))).await;
    assert_eq!(copied(pair.copy().await).referrers, 0);
    assert!(!pair.has_tag(&fallback_tag(&whole.root.digest()), &list).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_signs_another_digest_stays() {
    let whole = image().attestations().build();
    let pair = Pair::with(&whole).await;
    let (of_root, of_child) = (artifact(&whole.root, "a"), artifact(&whole.manifests[0], "b"));
    pair.push(&of_root, None).await;
    pair.push(&of_child, None).await;
    let of_root_by_tag = signature("c");
    pair.push(&of_root_by_tag, Some(&cosign(&whole.root, "sig"))).await;
    let strip = Degradations::from(Degradation::StripAttestations);
    let run = || {
        let options = Options { degradations: [("target".into(), strip)].into(), ..quick() };
        Copier::new(options, CancellationToken::new())
    };
    let first = run();
    assert_eq!(copied(first.copy(pair.job()).await).referrers, 1);
    assert!(pair.has_referrer(&of_child).await && !pair.has_referrer(&of_root).await);
    assert!(!pair.has_tag(&cosign(&whole.root, "sig"), &of_root_by_tag).await);
    // A new one: found by a run that rewrites the index anew, and one that remembers what became of it.
    for (copier, text) in [(run(), "d"), (first, "e")] {
        let more = artifact(&whole.manifests[2], text);
        pair.push(&more, None).await;
        let figures = match copier.copy(pair.job()).await {
            Outcome::Copied { figures, .. } => figures.referrers,
            // What a run has asked for once it does not ask for again.
            Outcome::Unchanged { .. } => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!((figures == 1, pair.has_referrer(&more).await), (text == "d", text == "d"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_oci_types_gets_none_and_that_is_no_failure() {
    let whole = Signed::new();
    let docker = ferry_testkit::images::ImageBuilder::new(ferry_testkit::images::MediaTypes::Docker)
        .platform("linux/amd64", [ferry_testkit::images::Layer::random(9, 500)])
        .build_single();
    let quirks = Quirks { refuses_oci: true, ..Quirks::default() };
    let target = Arc::new(QuirkyStore::new(Arc::new(MemoryStore::new()), quirks));
    let pair = Pair::between(Arc::new(MemoryStore::new()), target);
    push(&*pair.source, &docker, Some(&tag("v1"))).await;
    pair.push(&artifact(&docker.root, "a"), None).await;
    pair.push(&whole.tagged[0].1, Some(&cosign(&docker.root, "sig"))).await;
    let how = Degradations::from(Degradation::DockerTypes);
    let options = Options { degradations: [("target".into(), how)].into(), ..quick() };
    let copier = Copier::new(options, CancellationToken::new());
    let figures = copied(copier.copy(pair.job()).await);
    assert_eq!((figures.left_behind, figures.referrers, figures.manifests), (2, 0, 1));
    assert_eq!(pair.asked().1.referrers, 0, "nothing is left to look for");
    assert!(pair.has(&Reference::Tag(tag("v1")), &docker).await);
    // Not declared: then it is a failure, but the image is there.
    match crate::harness::copier().copy(pair.job()).await {
        Outcome::Failed { arrived, error, .. } => {
            assert_eq!(arrived, Some(docker.root.digest()));
            assert!(error.operation().starts_with("copy "), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_lie_or_lead_in_circles_come_to_an_end() {
    let whole = image().build_single();
    let memory = Arc::new(MemoryStore::new());
    push(&*memory, &whole, Some(&tag("v1"))).await;
    let (one, two) = (artifact(&whole.root, "one"), signature("two"));
    push(&*memory, &one, None).await;
    push(&*memory, &two, Some(&cosign(&two.root, "sig"))).await;
    push(&*memory, &whole, Some(&cosign(&whole.root, "sig"))).await;
    push(&*memory, &two, Some(&cosign(&whole.root, "att"))).await;
    let gone = artifact(&whole.root, "gone");
    let listed = |image: &Image| image.root.referrer_descriptor();
    let lies = HashMap::from([
        (whole.root.digest(), vec![listed(&one), listed(&one), listed(&gone), listed(&two)]),
        (one.root.digest(), vec![listed(&whole), listed(&one)]),
    ]);
    let pair = Pair::between(Arc::new(Bent { inner: memory, lies }), Arc::new(MemoryStore::new()));
    let figures = copied(pair.copy().await);
    assert_eq!(figures.referrers, 1 + 3, "one referrer and three tags");
    assert!(pair.has_referrer(&one).await && pair.has_tag(&cosign(&two.root, "sig"), &two).await);
    assert!(!pair.has_referrer(&gone).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_are_followed_so_far() {
    let whole = image().build_single();
    let pair = Pair::with(&whole).await;
    let mut chain = vec![artifact(&whole.root, "0")];
    for n in 1..7 {
        chain.push(artifact(&chain[n - 1].root, &n.to_string()));
    }
    for link in &chain {
        pair.push(link, None).await;
    }
    assert_eq!(copied(copier().copy(pair.job()).await).referrers, 4);
    assert!(pair.has_referrer(&chain[3]).await && !pair.has_referrer(&chain[4]).await);
}
