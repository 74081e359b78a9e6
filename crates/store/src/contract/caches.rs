//! What a cache keeps of upstreams.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ferry_oci::{Digest, Reference, Tag};

use super::fixtures::{
    Image, assert_is, assert_no_blob, assert_no_manifest, by_tag, content, descriptor, expect, kind, opened,
    push_blob, read, repository, tag,
};
use crate::{ByteRange, Cache, CachedListing, CachedRepository, Kind, Mount, Partial, Scope, Staging};

/// A cache under test.
pub struct CacheSubject {
    /// The cache.
    pub cache: Arc<dyn Cache>,
    /// Staging that it adopts from.
    pub staging: Arc<dyn Staging>,
    /// What must live as long as the cache.
    pub guard: Box<dyn Any + Send>,
}

fn anonymous() -> Scope {
    Scope::Upstream { host: "upstream.example".to_owned(), account: None }
}

fn group() -> Scope {
    Scope::Upstream { host: "upstream.example".to_owned(), account: Some("team".to_owned()) }
}

/// A time in whole seconds.
fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
}

impl CacheSubject {
    fn cached(&self, name: &str) -> Arc<dyn CachedRepository> {
        self.cache.cached(&anonymous(), &repository(name))
    }

    /// A partial blob with all its bytes, not sealed.
    async fn staged(&self, bytes: &Bytes) -> Arc<dyn Partial> {
        let digest = Digest::sha256(bytes);
        let partial = self.staging.open(&digest, bytes.len() as u64).await.unwrap().unwrap();
        partial.write_at(0, bytes.clone()).await.unwrap();
        partial
    }

    async fn sealed(&self, bytes: &Bytes) -> Arc<dyn Partial> {
        let partial = self.staged(bytes).await;
        partial.seal(&Digest::sha256(bytes)).await.unwrap();
        partial
    }
}

async fn known(repo: &dyn CachedRepository, tag: &Tag) -> Option<(Digest, SystemTime, Option<SystemTime>)> {
    let found = repo.tag(tag).await.unwrap();
    found.map(|found| (found.descriptor.digest, found.confirmed, found.withdrawn))
}

/// A manifest is kept although nothing that it names is here, and is seen as any other.
pub async fn kept_manifest(subject: CacheSubject) {
    let (repo, image) = (subject.cached("kept"), Image::new("kept"));
    assert_eq!(known(&*repo, &tag("v1")).await, None);
    repo.keep(&image.manifest, Some((&tag("v1"), at(5)))).await.unwrap();
    assert_is(&*repo, &by_tag("v1"), &image.manifest).await;
    assert_is(&*repo, &image.reference(), &image.manifest).await;
    let found = repo.tag(&tag("v1")).await.unwrap().unwrap();
    assert_eq!(found.descriptor, descriptor(&image.manifest));
    assert_eq!((found.confirmed, found.withdrawn), (at(5), None));
    let untagged = Image::new("kept untagged");
    repo.keep(&untagged.manifest, None).await.unwrap();
    assert_is(&*repo, &untagged.reference(), &untagged.manifest).await;
    assert_no_blob(&*repo, &Digest::sha256(&image.blobs[0])).await;
}

/// A tag is confirmed, moves to what is here, and does not move to what is not.
pub async fn confirmed_tag(subject: CacheSubject) {
    let repo = subject.cached("confirmed");
    let (one, two, absent) =
        (Image::new("confirmed 1"), Image::new("confirmed 2"), Digest::sha256(b"absent"));
    repo.keep(&one.manifest, Some((&tag("v1"), at(1)))).await.unwrap();
    assert!(repo.confirm(&tag("v1"), &one.digest(), at(2)).await.unwrap());
    assert_eq!(known(&*repo, &tag("v1")).await, Some((one.digest(), at(2), None)));
    assert!(!repo.confirm(&tag("v1"), &two.digest(), at(3)).await.unwrap());
    assert!(!repo.confirm(&tag("new"), &absent, at(3)).await.unwrap());
    assert_eq!(known(&*repo, &tag("v1")).await, Some((one.digest(), at(2), None)), "as before");
    assert_eq!(known(&*repo, &tag("new")).await, None);
    repo.keep(&two.manifest, None).await.unwrap();
    for name in ["v1", "new"] {
        assert!(repo.confirm(&tag(name), &two.digest(), at(4)).await.unwrap());
        assert_eq!(known(&*repo, &tag(name)).await, Some((two.digest(), at(4), None)));
        assert_is(&*repo, &by_tag(name), &two.manifest).await;
    }
}

/// A tag stays withdrawn since the first time until it is confirmed again.
pub async fn withdrawn_tag(subject: CacheSubject) {
    let (repo, image) = (subject.cached("withdrawn"), Image::new("withdrawn"));
    repo.withdraw(&tag("v1"), at(1)).await.unwrap();
    assert_eq!(known(&*repo, &tag("v1")).await, None, "nothing is known of it");
    repo.keep(&image.manifest, Some((&tag("v1"), at(1)))).await.unwrap();
    for time in [at(2), at(3)] {
        repo.withdraw(&tag("v1"), time).await.unwrap();
    }
    assert_eq!(known(&*repo, &tag("v1")).await, Some((image.digest(), at(1), Some(at(2)))));
    assert_is(&*repo, &by_tag("v1"), &image.manifest).await;
    assert!(repo.confirm(&tag("v1"), &image.digest(), at(4)).await.unwrap());
    assert_eq!(known(&*repo, &tag("v1")).await, Some((image.digest(), at(4), None)));
    repo.withdraw(&tag("v1"), at(5)).await.unwrap();
    repo.keep(&image.manifest, Some((&tag("v1"), at(6)))).await.unwrap();
    assert_eq!(known(&*repo, &tag("v1")).await, Some((image.digest(), at(6), None)), "fetched again");
    for _ in 0..2 {
        repo.forget(&tag("v1")).await.unwrap();
    }
    assert_no_manifest(&*repo, &by_tag("v1")).await;
    assert_is(&*repo, &image.reference(), &image.manifest).await;
}

/// A page of a listing stays as it was last told, for its repository, scope and question.
pub async fn kept_listing(subject: CacheSubject) {
    let repo = subject.cached("listed");
    let listing = |content: &str, seconds, withdrawn: Option<u64>| CachedListing {
        content: content.to_owned(),
        confirmed: at(seconds),
        withdrawn: withdrawn.map(at),
    };
    assert_eq!(repo.listing("tags").await.unwrap(), None);
    for told in [listing("a", 1, None), listing("ä\"b", 2, None), listing("", 2, Some(3))] {
        repo.keep_listing("tags", Some(&told)).await.unwrap();
        assert_eq!(subject.cached("listed").listing("tags").await.unwrap(), Some(told));
    }
    repo.keep_listing("other", Some(&listing("x", 1, None))).await.unwrap();
    assert_eq!(repo.listing("tags").await.unwrap(), Some(listing("", 2, Some(3))));
    for stranger in [subject.cached("listed/b"), subject.cache.cached(&group(), &repository("listed"))] {
        assert_eq!(stranger.listing("tags").await.unwrap(), None);
        stranger.keep_listing("tags", None).await.unwrap();
    }
    // Nothing may be kept rather than something old.
    repo.keep_listing("other", Some(&listing(&"x".repeat(80 << 20), 4, None))).await.unwrap();
    let found = repo.listing("other").await.unwrap();
    assert!(found.is_none_or(|found| found.confirmed == at(4)));
    for _ in 0..2 {
        repo.keep_listing("tags", None).await.unwrap();
    }
    assert_eq!(repo.listing("tags").await.unwrap(), None);
}

/// Sealed bytes become a blob, of each repository that adopts them and of no other; readers of the partial blob go on.
pub async fn adopted_blob(subject: CacheSubject) {
    let bytes = content("adopted", 300_000);
    let digest = Digest::sha256(&bytes);
    let partial = subject.sealed(&bytes).await;
    assert_eq!(subject.staging.staged(&digest).await.unwrap(), Some(300_000));
    for name in ["adopted/a", "adopted/b"] {
        subject.cached(name).adopt(&digest, &*partial).await.unwrap();
        assert!(read(&*subject.cached(name), &digest, ByteRange::ALL).await == bytes);
    }
    assert_no_blob(&*subject.cached("adopted/c"), &digest).await;
    assert_no_blob(&*subject.cache.cached(&group(), &repository("adopted/a")), &digest).await;
    assert_eq!(subject.staging.staged(&digest).await.unwrap(), None, "moved, not copied");
    partial.discard().await.unwrap();
    assert_eq!(partial.read_at(299_000, 1000).await.unwrap(), bytes.slice(299_000..), "still read");
    assert!(partial.is_sealed());
    let again = subject.staging.open(&digest, 300_000).await.unwrap().unwrap();
    assert!(again.extents().is_empty() && !again.is_sealed(), "another one, of which nothing is there");
    assert!(read(&*subject.cached("adopted/b"), &digest, ByteRange::from(299_990)).await == bytes[299_990..]);
}

/// What was not verified is not adopted.
pub async fn unsealed_blob(subject: CacheSubject) {
    let bytes = content("unsealed", 1000);
    let digest = Digest::sha256(&bytes);
    let partial = subject.staged(&bytes).await;
    let repo = subject.cached("unsealed");
    assert_eq!(kind(repo.adopt(&digest, &*partial).await), Some(Kind::Invalid));
    assert_no_blob(&*repo, &digest).await;
    assert_eq!(repo.held(&digest).await.unwrap(), None);
    partial.seal(&digest).await.unwrap();
    repo.adopt(&digest, &*partial).await.unwrap();
    assert!(read(&*repo, &digest, ByteRange::ALL).await == bytes);
}

/// Content that is here under another name or scope is shown where it is linked, and nowhere else; a hosted repository
/// cannot mount it.
pub async fn linked_content(subject: CacheSubject) {
    let bytes = content("linked", 1000);
    let digest = Digest::sha256(&bytes);
    let stranger = subject.cache.cached(&group(), &repository("linked/stranger"));
    assert_eq!(stranger.held(&digest).await.unwrap(), None);
    assert!(!stranger.link(&digest, 1000).await.unwrap(), "there is nothing");
    subject.cached("linked").adopt(&digest, &*subject.sealed(&bytes).await).await.unwrap();
    assert_eq!(stranger.held(&digest).await.unwrap(), Some(1000));
    assert_no_blob(&*stranger, &digest).await;
    let hosted = subject.cache.writable(&Scope::Hosted, &repository("linked")).unwrap();
    for mount in [Mount::Anywhere, Mount::From(vec![repository("linked")])] {
        opened(hosted.begin(expect(&bytes, mount)).await.unwrap()).abort().await.unwrap();
    }
    assert!(!stranger.link(&digest, 1001).await.unwrap(), "that would be something else");
    assert_no_blob(&*stranger, &digest).await;
    assert!(stranger.link(&digest, 1000).await.unwrap());
    assert!(read(&*stranger, &digest, ByteRange::ALL).await == bytes);
    assert_no_blob(&*subject.cached("linked/stranger"), &digest).await;
    assert_no_blob(&*hosted, &digest).await;
    let pushed = content("linked, pushed", 1000);
    push_blob(&*hosted, &pushed).await;
    assert!(stranger.link(&Digest::sha256(&pushed), 1000).await.unwrap(), "what was pushed is content, too");
}

/// The same names of two scopes have nothing to do with each other.
pub async fn scopes_of_tags(subject: CacheSubject) {
    let name = repository("scopes-of-tags");
    let (ours, theirs) = (subject.cache.cached(&anonymous(), &name), subject.cache.cached(&group(), &name));
    let (one, two) = (Image::new("scopes 1"), Image::new("scopes 2"));
    ours.keep(&one.manifest, Some((&tag("v1"), at(1)))).await.unwrap();
    assert_no_manifest(&*theirs, &by_tag("v1")).await;
    assert!(!theirs.confirm(&tag("v1"), &one.digest(), at(2)).await.unwrap());
    theirs.keep(&two.manifest, Some((&tag("v1"), at(2)))).await.unwrap();
    theirs.withdraw(&tag("v1"), at(3)).await.unwrap();
    assert_eq!(known(&*ours, &tag("v1")).await, Some((one.digest(), at(1), None)));
    assert_eq!(known(&*theirs, &tag("v1")).await, Some((two.digest(), at(2), Some(at(3)))));
    theirs.forget(&tag("v1")).await.unwrap();
    assert_is(&*ours, &by_tag("v1"), &one.manifest).await;
    assert_no_manifest(&*theirs, &Reference::Digest(one.digest())).await;
}
