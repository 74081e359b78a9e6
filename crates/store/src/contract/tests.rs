use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ferry_oci::{Algorithm, Descriptor, Digest, Manifest, Name, Reference, Tag};

use super::{Capabilities, Subject};
use crate::{
    Begun, Blob, ByteRange, Error, Expect, Kind, MemoryStore, Mount, Page, PageRequest, Removed, Repository,
    RepositoryEntry, RepositoryMut, Resolved, Result, Scope, Store, Stored, TagEntry, Upload, UploadToken,
};

/// A case that is written but not listed in the macro would never run.
#[test]
fn every_case_is_listed() {
    let listed = include_str!("../contract.rs");
    let modules = [
        include_str!("blobs.rs"),
        include_str!("caches.rs"),
        include_str!("deletes.rs"),
        include_str!("listings.rs"),
        include_str!("manifests.rs"),
        include_str!("mounts.rs"),
        include_str!("referrers.rs"),
        include_str!("uploads.rs"),
    ];
    let cases: Vec<&str> = modules
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| {
            line.strip_prefix("pub async fn ")?.strip_suffix("Subject) {")?.split_once("(subject: ")
        })
        .map(|(case, _)| case)
        .collect();
    assert!(cases.len() > 40, "{cases:?}");
    for case in cases {
        assert!(listed.split_whitespace().any(|word| word == case), "{case} is not in contract_tests!");
    }
}

/// A store that can do as little as a store may: the suite must take it with as few capabilities.
mod frugal {
    use super::*;

    async fn subject() -> Subject {
        let can = Capabilities {
            resumes_uploads: false,
            exclusive_uploads: false,
            mounts: false,
            mounts_anywhere: false,
            deletes: false,
            lists_repositories: false,
            separate_repositories: false,
            rejects_incomplete_manifests: true,
            indexes_referrers: false,
            scopes: false,
            sha512: false,
        };
        Subject { store: Arc::new(FrugalStore(MemoryStore::new())), can, guard: Box::new(()) }
    }

    crate::contract_tests!(subject);
}

struct FrugalStore(MemoryStore);

impl FrugalStore {
    fn only(&self) -> Arc<FrugalRepository> {
        let name: Name = "only".parse().unwrap();
        Arc::new(FrugalRepository(self.0.writable(&Scope::Hosted, &name).unwrap()))
    }
}

#[async_trait]
impl Store for FrugalStore {
    fn repository(&self, _scope: &Scope, _name: &Name) -> Arc<dyn Repository> {
        self.only()
    }

    fn writable(&self, _scope: &Scope, _name: &Name) -> Option<Arc<dyn RepositoryMut>> {
        Some(self.only())
    }

    async fn repositories(&self, prefix: &str, _page: PageRequest) -> Result<Page<RepositoryEntry>> {
        Err(Error::new(Kind::Denied, "list repositories", prefix, ""))
    }
}

struct FrugalRepository(Arc<dyn RepositoryMut>);

fn refuse_sha512(digest: &Digest) -> Result<()> {
    match digest.algorithm() {
        Algorithm::Sha256 => Ok(()),
        Algorithm::Sha512 => Err(Error::new(Kind::Invalid, "push", digest, "unsupported algorithm")),
    }
}

#[async_trait]
impl Repository for FrugalRepository {
    async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.0.resolve(reference).await
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        self.0.manifest(reference).await
    }

    async fn stat(&self, digest: &Digest) -> Result<Option<u64>> {
        self.0.stat(digest).await
    }

    async fn blob(&self, digest: &Digest, range: ByteRange) -> Result<Blob> {
        self.0.blob(digest, range).await
    }

    async fn tags(&self, page: PageRequest) -> Result<Page<TagEntry>> {
        self.0.tags(page).await
    }

    async fn referrers(&self, _: &Digest, _: Option<&str>, _: PageRequest) -> Result<Page<Descriptor>> {
        Ok(Page::new(Vec::new(), None))
    }
}

#[async_trait]
impl RepositoryMut for FrugalRepository {
    async fn begin(&self, expect: Expect) -> Result<Begun> {
        let mount = if expect.mount == Mount::No { Mount::No } else { Mount::From(Vec::new()) };
        Ok(match self.0.begin(Expect { mount, ..expect }).await? {
            Begun::Upload(upload) => Begun::Upload(Box::new(FrugalUpload(upload))),
            done => done,
        })
    }

    async fn resume(&self, _token: &UploadToken) -> Result<Option<Box<dyn Upload>>> {
        Ok(None)
    }

    async fn put_manifest(&self, manifest: &Manifest, tag: Option<&Tag>) -> Result<Stored> {
        refuse_sha512(&manifest.digest())?;
        self.0.put_manifest(manifest, tag).await?;
        Ok(Stored { subject_indexed: manifest.subject().is_none() })
    }

    async fn delete_manifest(&self, _reference: &Reference) -> Result<Removed> {
        Ok(Removed::Unsupported)
    }

    async fn delete_blob(&self, _digest: &Digest) -> Result<Removed> {
        Ok(Removed::Unsupported)
    }

    fn reader(self: Arc<Self>) -> Arc<dyn Repository> {
        self
    }
}

struct FrugalUpload(Box<dyn Upload>);

#[async_trait]
impl Upload for FrugalUpload {
    fn token(&self) -> Option<UploadToken> {
        None
    }

    async fn durable_offset(&mut self) -> Result<u64> {
        self.0.durable_offset().await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.write(bytes).await
    }

    async fn commit(self: Box<Self>, digest: &Digest) -> Result<()> {
        refuse_sha512(digest)?;
        self.0.commit(digest).await
    }

    async fn suspend(self: Box<Self>) -> Result<Option<UploadToken>> {
        self.0.abort().await?;
        Ok(None)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.0.abort().await
    }
}
