//! A client with a hosted repository and one of an upstream, each with its model.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::{Digest, Manifest, Reference};
use ferry_storage::Storage;
use ferry_store::{Begun, Expect, Kind, Mount, PageRequest, RepositoryMut, UploadToken};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};

use crate::CLIENTS;
use crate::fixtures::*;
use crate::model::{GRACE, IN_USE, Model, UNTAGGED, named};
use crate::upkeep_fixtures::{Time, upstream};

/// Different blobs that all clients push.
const BLOBS: usize = 60;

/// The blob of this number.
fn content(n: usize) -> Bytes {
    let length = [20, 3_000, 40_000, 300_000][n % 4] + n;
    (0..length).map(|i| (i / 7 + n * 31) as u8).collect()
}

fn blob_with(digest: &Digest, blobs: &[Bytes]) -> Bytes {
    blobs.iter().find(|blob| Digest::sha256(blob) == *digest).unwrap().clone()
}

struct Home {
    repo: Arc<dyn RepositoryMut>,
    model: Model,
    suspended: Vec<(UploadToken, Bytes, usize)>,
}

pub struct Client {
    homes: [Home; 2],
    at: usize,
    time: Time,
    random: StdRng,
    blobs: Vec<Bytes>,
}

impl Client {
    pub fn new(storage: &Arc<Storage>, time: &Time, n: usize, seed: u64) -> Self {
        let name = format!("client/{n}");
        let home = |repo, evictable| Home { repo, model: Model::new(evictable, time), suspended: Vec::new() };
        Self {
            homes: [home(writer(storage, &name), false), home(upstream(storage, &name), true)],
            at: 0,
            time: time.clone(),
            random: StdRng::seed_from_u64(seed.wrapping_add(n as u64)),
            blobs: (0..BLOBS).map(content).collect(),
        }
    }

    fn repo(&self) -> Arc<dyn RepositoryMut> {
        self.homes[self.at].repo.clone()
    }

    fn model(&mut self) -> &mut Model {
        &mut self.homes[self.at].model
    }

    fn any_blob(&mut self) -> Bytes {
        self.blobs.choose(&mut self.random).unwrap().clone()
    }

    fn any_tag(&mut self) -> String {
        format!("t{}", self.random.random_range(0..30))
    }

    fn any_manifest(&mut self) -> Option<Manifest> {
        let manifests = self.homes[self.at].model.manifests.values();
        // By digest, or the order of a hash map would decide.
        let mut all: Vec<_> = manifests.map(|(manifest, _)| manifest.clone()).collect();
        all.sort_by_key(Manifest::digest);
        all.choose(&mut self.random).cloned()
    }

    /// One random operation.
    pub async fn step(&mut self) {
        self.time.pass(self.random.random_range(0..3));
        self.at = self.random.random_range(0..2);
        match self.random.random_range(0..100) {
            0..15 => {
                let blob = self.any_blob();
                self.push_blob(&blob).await;
            }
            15..22 => self.suspend().await,
            22..29 => self.go_on().await,
            29..49 => self.push_image().await,
            49..57 => self.push_index().await,
            57..65 => self.tag_again().await,
            65..70 => self.delete_tag().await,
            70..76 => self.delete_manifest().await,
            76..82 => self.delete_blob().await,
            82..86 => self.list().await,
            _ => self.pull().await,
        }
    }

    fn any_mount(&mut self) -> Mount {
        match self.random.random_range(0..4) {
            0 => Mount::No,
            1 => Mount::Anywhere,
            _ => {
                let others = (0..CLIENTS).choose_multiple(&mut self.random, 2);
                Mount::From(others.iter().map(|n| format!("client/{n}").parse().unwrap()).collect())
            }
        }
    }

    /// Sees to it that the repository has the blob.
    async fn push_blob(&mut self, blob: &Bytes) {
        let (digest, since) = (Digest::sha256(blob), self.time.passed());
        let expect = Expect { digest: Some(digest), size: None, mount: self.any_mount() };
        let begun = self.repo().begin(expect).await.unwrap();
        if let Begun::Upload(mut upload) = begun {
            let piece = blob.len() / self.random.random_range(1..4) + 1;
            for start in (0..blob.len()).step_by(piece) {
                upload.write(blob.slice(start..blob.len().min(start + piece))).await.unwrap();
            }
            if self.random.random_bool(0.1) {
                upload.abort().await.unwrap();
                let mut upload = begin(&*self.repo(), Some(digest)).await;
                upload.write(blob.clone()).await.unwrap();
                upload.commit(&digest).await.unwrap();
            } else {
                upload.commit(&digest).await.unwrap();
            }
        }
        self.model().blobs.insert(digest, since);
    }

    async fn suspend(&mut self) {
        let blob = self.any_blob();
        let mut upload = begin(&*self.repo(), None).await;
        let written = self.random.random_range(0..blob.len());
        upload.write(blob.slice(..written)).await.unwrap();
        let token = upload.suspend().await.unwrap().unwrap();
        self.homes[self.at].suspended.push((token, blob, written));
    }

    /// Goes on with an upload, which may be expired: the clock of this test is faster than that of the files.
    async fn go_on(&mut self) {
        let Some((token, blob, written)) = self.homes[self.at].suspended.pop() else { return };
        let (digest, since) = (Digest::sha256(&blob), self.time.passed());
        let Some(mut upload) = self.repo().resume(&token).await.unwrap() else { return };
        assert_eq!(upload.durable_offset().await.unwrap(), written as u64);
        upload.write(blob.slice(written..)).await.unwrap();
        upload.commit(&digest).await.unwrap();
        self.model().blobs.insert(digest, since);
    }

    async fn push_image(&mut self) {
        let since = self.time.passed();
        let mut blobs: Vec<Bytes> = (0..self.random.random_range(1..5)).map(|_| self.any_blob()).collect();
        blobs.dedup();
        for blob in &blobs {
            self.push_blob(blob).await;
        }
        let manifest = match self.any_manifest() {
            Some(subject) if self.random.random_bool(0.3) => {
                referrer(&subject, &blobs[0], &self.random.random_range(0..20).to_string())
            }
            _ => image(&blobs),
        };
        let stored = self.put(&manifest, self.time.passed()).await;
        assert!(
            stored || self.time.passed() - since >= GRACE.min(IN_USE),
            "a blob was lost before its manifest"
        );
    }

    async fn push_index(&mut self) {
        let children: Vec<_> = (0..3).filter_map(|_| self.any_manifest()).collect();
        if !children.is_empty() {
            let index = index(&children.iter().collect::<Vec<_>>());
            self.put(&index, self.time.passed()).await;
        }
    }

    async fn tag_again(&mut self) {
        if let Some(manifest) = self.any_manifest() {
            self.put(&manifest, self.time.passed()).await;
        }
    }

    /// Pushes a manifest under some tag or none; false if the repository lacks something, which then may be gone.
    async fn put(&mut self, manifest: &Manifest, since: u64) -> bool {
        let at = self.random.random_bool(0.6).then(|| self.any_tag());
        match self.repo().put_manifest(manifest, at.as_deref().map(tag).as_ref()).await {
            Ok(_) => {
                let model = self.model();
                let must = model.must_have_all();
                model.manifests.insert(manifest.digest(), (manifest.clone(), since));
                if let Some(at) = at {
                    let before = model.tags.insert(at, manifest.digest());
                    model.rely_on(before.filter(|before| must.contains(before)), since);
                }
                self.settle_doubts(&must).await;
                if !must.contains(&manifest.digest()) {
                    self.settle_tags(&manifest.digest()).await;
                }
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Incomplete, "{error}");
                let model = self.model();
                let must = |needed: &Digest| match manifest.children().is_empty() {
                    true => model.must_have_blob(needed),
                    false => model.must_have(needed),
                };
                assert!(!named(manifest).iter().all(must), "everything is there: {error}");
                false
            }
        }
    }

    /// Looks for what must be there now and did not have to before: referrers of what was tagged may be gone already.
    async fn settle_doubts(&mut self, before: &BTreeSet<Digest>) {
        let repo = self.repo();
        let now = self.model().must_have_all();
        for digest in now.difference(before) {
            if repo.resolve(&Reference::Digest(*digest)).await.is_err() {
                self.model().manifests.remove(digest);
            }
        }
    }

    /// Looks for the tags on a manifest that may have been gone in the meantime, and they with it.
    async fn settle_tags(&mut self, digest: &Digest) {
        let repo = self.repo();
        let tags: Vec<_> = self.model().tags_on(digest);
        for at in tags {
            if repo.resolve(&by_tag(&at)).await.is_err() {
                self.model().tags.remove(&at);
            }
        }
    }

    async fn delete_tag(&mut self) {
        let (at, since) = (self.any_tag(), self.time.passed());
        let removed = self.repo().delete_manifest(&by_tag(&at)).await;
        let model = self.model();
        if let Some(digest) = model.tags.get(&at).copied() {
            assert!(removed.is_ok() || !model.must_have(&digest), "the tag {at} is lost");
            model.tags.remove(&at);
            model.rely_on(removed.is_ok().then_some(digest), since);
        } else {
            assert_eq!(kind(removed), Some(Kind::NotFound));
        }
    }

    async fn delete_manifest(&mut self) {
        let Some(manifest) = self.any_manifest() else { return };
        let digest = manifest.digest();
        if self.model().is_named(&digest) {
            return;
        }
        let removed = self.repo().delete_manifest(&Reference::Digest(digest)).await;
        let model = self.model();
        assert!(removed.is_ok() || !model.must_have(&digest), "the manifest {digest} is lost");
        model.manifests.remove(&digest);
        model.tags.retain(|_, at| *at != digest);
    }

    async fn delete_blob(&mut self) {
        let digest = Digest::sha256(&self.any_blob());
        if !self.model().is_named(&digest) {
            let removed = self.repo().delete_blob(&digest).await;
            let model = self.model();
            assert!(removed.is_ok() || !model.must_have_blob(&digest), "the blob {digest} is lost");
            model.blobs.remove(&digest);
        }
    }

    async fn list(&mut self) {
        let listed = match self.repo().tags(PageRequest::default()).await {
            Ok(page) => page.items,
            Err(error) => {
                assert_eq!(error.kind(), Kind::NotFound);
                Vec::new()
            }
        };
        let model = self.model();
        for (at, digest) in &model.tags {
            let found = listed.iter().find(|entry| entry.tag.as_str() == at);
            assert!(found.is_some() || !model.must_have(digest), "the tag {at} is lost");
            assert!(found.is_none_or(|entry| entry.digest == Some(*digest)));
        }
        assert!(listed.iter().all(|entry| model.tags.contains_key(entry.tag.as_str())), "a tag came back");
    }

    async fn pull(&mut self) {
        let since = self.time.passed();
        let at = self.any_tag();
        let (reference, digest) = match self.model().tags.get(&at).copied() {
            Some(digest) if self.random.random_bool(0.6) => (by_tag(&at), digest),
            _ => {
                let Some(manifest) = self.any_manifest() else { return };
                (Reference::Digest(manifest.digest()), manifest.digest())
            }
        };
        match self.repo().manifest(&reference).await {
            Ok(found) => {
                let model = self.model();
                let expected = &mut model.manifests.get_mut(&digest).unwrap();
                assert_eq!(found.bytes(), expected.0.bytes());
                expected.1 = since;
                self.pull_named(&found, since).await;
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::NotFound, "{error}");
                self.model().forget(&digest);
            }
        }
    }

    /// What a manifest names is there as long as the manifest is, and that was used a moment ago.
    async fn pull_named(&mut self, manifest: &Manifest, since: u64) {
        let repo = self.repo();
        for blob in manifest.blobs() {
            let found = repo.blob(&blob.digest, ferry_store::ByteRange::ALL).await;
            if let Ok(found) = found {
                assert_eq!(found.into_bytes().await.unwrap(), blob_with(&blob.digest, &self.blobs));
            } else {
                let passed = self.time.passed() - since;
                assert!(passed >= IN_USE.min(UNTAGGED), "{} is lost: {found:?}", blob.digest);
            }
        }
        for child in manifest.children() {
            let found = repo.resolve(&Reference::Digest(child.digest)).await;
            let passed = self.time.passed() - since;
            assert!(found.is_ok() || passed >= IN_USE.min(UNTAGGED), "{} is lost", child.digest);
        }
    }

    /// Reads everything that must be there and what else there is; returns what the manifests name, with themselves.
    pub async fn assert_all(&self) -> BTreeSet<Digest> {
        let mut there = BTreeSet::new();
        for Home { repo, model, .. } in &self.homes {
            for (digest, (manifest, _)) in &model.manifests {
                let found = repo.manifest(&Reference::Digest(*digest)).await;
                assert!(found.is_ok() || !model.must_have(digest), "the manifest {digest} is lost");
                if found.is_ok_and(|found| found.bytes() == manifest.bytes()) {
                    there.insert(*digest);
                    there.extend(named(manifest));
                }
            }
            let listed = repo.tags(PageRequest::default()).await.unwrap().items;
            for (at, digest) in &model.tags {
                let found =
                    listed.iter().any(|entry| entry.tag.as_str() == at && entry.digest == Some(*digest));
                assert!(found || !model.must_have(digest), "the tag {at} is lost");
            }
            for digest in model.blobs.keys() {
                let found = repo.stat(digest).await.unwrap().is_some();
                assert!(found || !model.must_have_blob(digest), "the blob {digest} is lost");
            }
            for digest in &there {
                if repo.stat(digest).await.unwrap().is_some() {
                    assert_eq!(read_blob(&**repo, digest).await, blob_with(digest, &self.blobs));
                }
            }
        }
        there
    }
}
