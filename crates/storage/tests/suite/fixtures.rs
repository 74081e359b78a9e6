use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use ferry_oci::{Descriptor, Digest, Manifest, Reference, Tag, media_type};
use ferry_storage::Storage;
use ferry_store::{
    Begun, ByteRange, Expect, Kind, Mount, Repository, RepositoryMut, Result, Scope, Store, Upload,
};
use serde_json::json;

pub async fn open(directory: &Path) -> Arc<Storage> {
    Storage::open(directory).await.unwrap()
}

pub fn writer(storage: &Storage, name: &str) -> Arc<dyn RepositoryMut> {
    storage.writable(&Scope::Hosted, &name.parse().unwrap()).unwrap()
}

pub fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

pub fn by_tag(text: &str) -> Reference {
    Reference::Tag(tag(text))
}

/// The kind of error, if it is one.
pub fn kind<T>(result: Result<T>) -> Option<Kind> {
    result.err().map(|error| error.kind())
}

pub fn no_mount(digest: Option<Digest>) -> Expect {
    Expect { digest, size: None, mount: Mount::No }
}

pub async fn begin(repo: &dyn RepositoryMut, digest: Option<Digest>) -> Box<dyn Upload> {
    match repo.begin(no_mount(digest)).await.unwrap() {
        Begun::Upload(upload) => upload,
        other => panic!("an upload was to be opened, not {other:?}"),
    }
}

pub async fn push_blob(repo: &dyn RepositoryMut, bytes: &Bytes) -> Digest {
    let digest = Digest::sha256(bytes);
    let mut upload = begin(repo, Some(digest)).await;
    upload.write(bytes.clone()).await.unwrap();
    upload.commit(&digest).await.unwrap();
    digest
}

pub async fn read_blob(repo: &dyn Repository, digest: &Digest) -> Bytes {
    repo.blob(digest, ByteRange::ALL).await.unwrap().into_bytes().await.unwrap()
}

/// An image of these blobs, the first one its configuration.
pub fn image(blobs: &[Bytes]) -> Manifest {
    let named = |kind: &str, blob: &Bytes| Descriptor::new(kind, Digest::sha256(blob), blob.len() as u64);
    let value = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": named(media_type::OCI_CONFIG, &blobs[0]),
        "layers": blobs[1..].iter().map(|blob| named(media_type::OCI_LAYER_GZIP, blob)).collect::<Vec<_>>(),
    });
    Manifest::parse(None, Bytes::from(value.to_string())).unwrap()
}

/// An artifact that refers to `subject`, with `blob` as its configuration.
pub fn referrer(subject: &Manifest, blob: &Bytes, note: &str) -> Manifest {
    let subject = Descriptor::new(subject.media_type(), subject.digest(), subject.bytes().len() as u64);
    let value = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/vnd.example.sbom",
        "config": Descriptor::new(media_type::OCI_EMPTY, Digest::sha256(blob), blob.len() as u64),
        "layers": [],
        "subject": subject,
        "annotations": {"note": note, "a\"b": "ü"},
    });
    Manifest::parse(None, Bytes::from(value.to_string())).unwrap()
}

/// Where the bytes of `digest` lie.
pub fn content_file(directory: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    directory.join("blobs").join(digest.algorithm().as_str()).join(&hex[..2]).join(hex)
}

/// The names in `directory/uploads`.
pub fn upload_files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join("uploads")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// An index of these manifests.
pub fn index(children: &[&Manifest]) -> Manifest {
    let named =
        |child: &&Manifest| Descriptor::new(child.media_type(), child.digest(), child.bytes().len() as u64);
    let value = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": children.iter().map(named).collect::<Vec<_>>(),
    });
    Manifest::parse(None, Bytes::from(value.to_string())).unwrap()
}
