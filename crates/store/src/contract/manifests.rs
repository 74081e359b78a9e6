//! Manifests and the tags on them.

use std::sync::Arc;

use ferry_oci::{Algorithm, Digest, Manifest, Reference, media_type};
use serde_json::json;
use tokio::task::JoinSet;

use super::Subject;
use super::fixtures::{
    DOCKER, Image, OCI, Types, assert_is, assert_no_manifest, blob_descriptor, by_tag, content, descriptor,
    expect, index, kind, push_blob, read, tag, verbatim, write,
};
use crate::{Begun, ByteRange, Kind, Mount, Repository, RepositoryMut};

async fn push_and_check(subject: &Subject, name: &str, image: &Image) {
    image.push(&*subject.writer(name), Some("v1.0_a-B")).await;
    let repo = subject.reader(name);
    assert_is(&*repo, &by_tag("v1.0_a-B"), &image.manifest).await;
    assert_is(&*repo, &image.reference(), &image.manifest).await;
    assert_no_manifest(&*repo, &by_tag("v1.0_a-b")).await;
}

async fn family(subject: &Subject, name: &str, types: &Types) {
    let layers = vec![content(&format!("{name} 1"), 300), content(&format!("{name} 2"), 40_000)];
    push_and_check(subject, name, &Image::of(types, name, layers)).await;
}

/// An OCI image by tag and by digest, byte for byte; tags differ by case.
pub async fn oci_manifest(subject: Subject) {
    family(&subject, "oci", &OCI).await;
}

/// A Docker image keeps its own media types.
pub async fn docker_manifest(subject: Subject) {
    family(&subject, "docker", &DOCKER).await;
}

/// A manifest that does not say its type has the one that it was pushed with.
pub async fn manifest_without_media_type(subject: Subject) {
    let config = content("silent", 20);
    let named = blob_descriptor("application/vnd.example.config", &config);
    let value = json!({"schemaVersion": 2, "config": named, "layers": []});
    let manifest = verbatim(media_type::OCI_MANIFEST, &value);
    push_and_check(&subject, "silent", &Image { manifest, blobs: vec![config] }).await;
}

/// A manifest needs no tag.
pub async fn untagged_manifest(subject: Subject) {
    let image = Image::new("untagged");
    image.push(&*subject.writer("untagged"), None).await;
    let repo = subject.reader("untagged");
    assert_is(&*repo, &image.reference(), &image.manifest).await;
    assert_no_manifest(&*repo, &by_tag("latest")).await;
}

/// An unknown tag or digest, in a repository or none; a blob is no manifest.
pub async fn absent_manifest(subject: Subject) {
    let image = Image::new("absent-manifest");
    image.push(&*subject.writer("absent-manifest"), Some("v1")).await;
    let blob = Reference::Digest(Digest::sha256(&image.blobs[0]));
    let never = Reference::Digest(Digest::sha256(b"never"));
    for name in ["absent-manifest", "absent-manifest/no-such-repository"] {
        for reference in [&blob, &never, &by_tag("v2")] {
            assert_no_manifest(&*subject.reader(name), reference).await;
        }
    }
}

/// A manifest named by SHA-512 is found under that name.
pub async fn sha512_manifest(subject: Subject) {
    let image = Image::new("sha512-manifest");
    let repo = subject.writer("sha512-manifest");
    image.push_blobs(&*repo).await;
    let bytes = image.manifest.bytes().clone();
    let manifest = Manifest::parse_as(Algorithm::Sha512, None, bytes).unwrap();
    let put = repo.put_manifest(&manifest, None).await;
    let reader = subject.reader("sha512-manifest");
    let reference = Reference::Digest(manifest.digest());
    if subject.can.sha512 {
        put.unwrap();
        assert_is(&*reader, &reference, &manifest).await;
    } else {
        assert!(!put.unwrap_err().kind().is_transient());
        assert_no_manifest(&*reader, &reference).await;
    }
}

/// A tag that is pushed again means the new image; the old one stays under its digest.
pub async fn moved_tag(subject: Subject) {
    let (old, new) = (Image::new("moved old"), Image::new("moved new"));
    let repo = subject.writer("moved");
    old.push(&*repo, Some("latest")).await;
    let reader = subject.reader("moved");
    assert_is(&*reader, &by_tag("latest"), &old.manifest).await;
    new.push(&*repo, Some("latest")).await;
    assert_is(&*reader, &by_tag("latest"), &new.manifest).await;
    assert_is(&*reader, &old.reference(), &old.manifest).await;
}

/// Pushing what is there is no error, and adds the tag.
pub async fn manifest_pushed_twice(subject: Subject) {
    let image = Image::new("pushed-twice");
    let repo = subject.writer("pushed-twice");
    for name in [None, Some("a"), Some("a"), Some("b")] {
        image.push(&*repo, name).await;
    }
    for name in ["a", "b"] {
        assert_is(&*subject.reader("pushed-twice"), &by_tag(name), &image.manifest).await;
    }
}

/// Pushes a manifest that lacks something under the tag `early`, and asserts what becomes of it.
async fn push_incomplete(subject: &Subject, name: &str, manifest: &Manifest) {
    let put = subject.writer(name).put_manifest(manifest, Some(&tag("early"))).await;
    let reader = subject.reader(name);
    if subject.can.rejects_incomplete_manifests {
        assert_eq!(kind(put), Some(Kind::Incomplete));
        assert_no_manifest(&*reader, &by_tag("early")).await;
        assert_no_manifest(&*reader, &Reference::Digest(manifest.digest())).await;
    } else {
        put.unwrap();
        assert_is(&*reader, &by_tag("early"), manifest).await;
    }
}

/// An image is refused while any of its blobs is missing, and taken once all are there.
pub async fn incomplete_image(subject: Subject) {
    let image = Image::new("incomplete");
    let repo = subject.writer("incomplete");
    push_incomplete(&subject, "incomplete", &image.manifest).await;
    for blob in &image.blobs {
        push_incomplete(&subject, "incomplete", &image.manifest).await;
        push_blob(&*repo, blob).await;
    }
    repo.put_manifest(&image.manifest, Some(&tag("early"))).await.unwrap();
    assert_is(&*subject.reader("incomplete"), &by_tag("early"), &image.manifest).await;
}

/// An index is refused while any of its manifests is missing, and taken once all are there.
pub async fn incomplete_index(subject: Subject) {
    let (first, second) = (Image::new("incomplete 1"), Image::new("incomplete 2"));
    let index = index(&OCI, &[&first.manifest, &second.manifest]);
    let repo = subject.writer("incomplete-index");
    first.push(&*repo, None).await;
    push_incomplete(&subject, "incomplete-index", &index).await;
    second.push_blobs(&*repo).await;
    push_incomplete(&subject, "incomplete-index", &index).await;
    second.push(&*repo, None).await;
    repo.put_manifest(&index, Some(&tag("early"))).await.unwrap();
    assert_is(&*subject.reader("incomplete-index"), &by_tag("early"), &index).await;
}

/// A layer that by its media type lives elsewhere may be missing.
pub async fn foreign_layer(subject: Subject) {
    let config = content("foreign-layer", 20);
    let elsewhere = content("foreign-layer elsewhere", 20);
    let foreign = blob_descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", &elsewhere);
    let value = json!({
        "schemaVersion": 2,
        "mediaType": media_type::DOCKER_MANIFEST,
        "config": blob_descriptor(media_type::DOCKER_CONFIG, &config),
        "layers": [foreign],
    });
    let manifest = verbatim(media_type::DOCKER_MANIFEST, &value);
    push_and_check(&subject, "foreign-layer", &Image { manifest, blobs: vec![config] }).await;
}

/// Indexes of both families, by tag and digest, with their children.
pub async fn index_with_children(subject: Subject) {
    for (types, name) in [(&OCI, "index-oci"), (&DOCKER, "index-docker")] {
        let images = ["amd64", "arm64"]
            .map(|platform| Image::of(types, &format!("{name} {platform}"), vec![content(name, 500)]));
        let repo = subject.writer(name);
        for image in &images {
            image.push(&*repo, None).await;
        }
        let index = index(types, &[&images[0].manifest, &images[1].manifest]);
        repo.put_manifest(&index, Some(&tag("multi"))).await.unwrap();
        let reader = subject.reader(name);
        assert_is(&*reader, &by_tag("multi"), &index).await;
        assert_is(&*reader, &Reference::Digest(index.digest()), &index).await;
        for image in &images {
            assert_is(&*reader, &image.reference(), &image.manifest).await;
        }
    }
}

/// An index may list an index.
pub async fn nested_index(subject: Subject) {
    let image = Image::new("nested");
    let repo = subject.writer("nested");
    image.push(&*repo, None).await;
    let inner = index(&OCI, &[&image.manifest]);
    let outer = index(&OCI, &[&inner, &image.manifest]);
    assert_eq!(outer.children()[0], descriptor(&inner));
    repo.put_manifest(&inner, None).await.unwrap();
    repo.put_manifest(&outer, Some(&tag("outer"))).await.unwrap();
    let reader = subject.reader("nested");
    assert_is(&*reader, &by_tag("outer"), &outer).await;
    assert_is(&*reader, &Reference::Digest(inner.digest()), &inner).await;
}

/// Pushes an image as a client does that asks first whether a blob is there.
async fn push_politely(repo: Arc<dyn RepositoryMut>, image: Image, name: String) {
    for blob in &image.blobs {
        if let Begun::Upload(mut upload) = repo.begin(expect(blob, Mount::From(Vec::new()))).await.unwrap() {
            write(&mut *upload, blob).await;
            upload.commit(&Digest::sha256(blob)).await.unwrap();
        }
    }
    repo.put_manifest(&image.manifest, Some(&tag(&name))).await.unwrap();
}

fn sharing_image(number: usize) -> Image {
    let layers = vec![content("shared layer", 200_000), content(&format!("own layer {number}"), 5000)];
    Image::of(&OCI, &format!("at-once {number}"), layers)
}

/// Images that share a layer, pushed at once into an empty repository, all arrive whole.
pub async fn images_pushed_at_once(subject: Subject) {
    let mut pushes = JoinSet::new();
    for number in 0..8 {
        let repo = subject.writer("at-once");
        pushes.spawn(push_politely(repo, sharing_image(number), format!("v{number}")));
    }
    while let Some(pushed) = pushes.join_next().await {
        pushed.unwrap();
    }
    let reader: Arc<dyn Repository> = subject.reader("at-once");
    for number in 0..8 {
        let image = sharing_image(number);
        assert_is(&*reader, &by_tag(&format!("v{number}")), &image.manifest).await;
        for blob in &image.blobs {
            assert!(read(&*reader, &Digest::sha256(blob), ByteRange::ALL).await == *blob);
        }
    }
}
