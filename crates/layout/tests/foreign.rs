//! Archives that others wrote, and such that nobody should have written.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_layout::{ImageName, Layout};
use ferry_oci::{Digest, ImageReference, MAX_MANIFEST_SIZE, Reference, Tag};
use ferry_store::{ByteRange, Kind, Repository, Scope, Store};
use proptest::prelude::*;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// A tar file in memory, with the oddities that are wanted.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, name: &str, kind: EntryType, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        // Names that `set_path` would refuse.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(name, EntryType::Regular, "", content.as_ref())
    }

    fn json(self, name: &str, content: &Value) -> Self {
        self.file(name, content.to_string())
    }

    fn pax(mut self, key: &str, value: &str) -> Self {
        self.0.append_pax_extensions([(key, value.as_bytes())]).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn open(bytes: &[u8]) -> (tempfile::TempDir, ferry_store::Result<Layout>) {
    let dir = tempfile::tempdir().unwrap();
    let path = write(&dir, bytes);
    (dir, Layout::open_archive(path))
}

fn write(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("images.tar");
    fs::write(&path, bytes).unwrap();
    path
}

fn reader(layout: &Layout) -> Arc<dyn Repository> {
    layout.repository(&Scope::Hosted, &"any".parse().unwrap())
}

fn tag(text: &str) -> Reference {
    Reference::Tag(text.parse::<Tag>().unwrap())
}

fn named(layout: &Layout, name: &str) -> Layout {
    layout.named(Some(&ImageName::from(&name.parse::<ImageReference>().unwrap())))
}

const LAYERS: [&[u8]; 2] = [b"first layer", b"second layer"];

fn config() -> String {
    let diff_ids: Vec<Digest> = LAYERS.iter().map(|layer| Digest::sha256(layer)).collect();
    json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
}

fn saved(layers: [&str; 2]) -> Value {
    json!([{"Config": "c0ffee.json", "RepoTags": ["alpine:3", "team/app:1"], "Layers": layers}])
}

/// As Docker 20.10 saves an image: the second layer is a link to where another image has it.
fn old_save() -> Tar {
    Tar::new()
        .entry("a/", EntryType::Directory, "", b"")
        .file("a/VERSION", "1.0")
        .file("a/layer.tar", LAYERS[0])
        .entry("b/layer.tar", EntryType::Symlink, "../d/layer.tar", b"")
        .file("c0ffee.json", config())
        .file("d/layer.tar", LAYERS[1])
        .json("manifest.json", &saved(["a/layer.tar", "b/layer.tar"]))
        .json("repositories", &json!({}))
}

#[tokio::test]
async fn an_old_docker_save_is_images_of_uncompressed_layers() {
    let (_dir, layout) = open(&old_save().bytes());
    let layout = layout.unwrap();
    let manifest = reader(&named(&layout, "alpine")).manifest(&tag("3")).await.unwrap();
    let descriptor = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len()});
    let layer = "application/vnd.oci.image.layer.v1.tar";
    let expected = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config().as_bytes()),
        "layers": [descriptor(layer, LAYERS[0]), descriptor(layer, LAYERS[1])],
    });
    assert_eq!(*manifest.bytes(), expected.to_string().as_bytes());
    let again = reader(&named(&layout, "team/app")).resolve(&tag("1")).await.unwrap();
    assert_eq!(again.descriptor.digest, manifest.digest());
    for content in [config().as_bytes(), LAYERS[0], LAYERS[1]] {
        let digest = Digest::sha256(content);
        assert_eq!(reader(&layout).stat(&digest).await.unwrap(), Some(content.len() as u64));
        let blob = reader(&layout).blob(&digest, ByteRange::from(3)).await.unwrap();
        assert_eq!(blob.into_bytes().await.unwrap(), content[3..]);
    }
    // The manifest that was made is a file like another one.
    let blob = reader(&layout).blob(&manifest.digest(), ByteRange::ALL).await.unwrap();
    assert_eq!(blob.into_bytes().await.unwrap(), manifest.bytes());
    assert!(layout.writable(&Scope::Hosted, &"any".parse().unwrap()).is_none());

    // Entries in another order, a hard link, names with `./` and in pax headers make no difference.
    let other = Tar::new()
        .json("./manifest.json", &saved(["./a/layer.tar", "e"]))
        .file("a/layer.tar", "replaced by what comes later")
        .entry("e", EntryType::Link, "./d/layer.tar", b"")
        .pax("path", "d/layer.tar")
        .file("short", LAYERS[1])
        .file("./c0ffee.json", config())
        .file("./a/layer.tar", LAYERS[0]);
    let (_dir, layout) = open(&other.bytes());
    let found = reader(&named(&layout.unwrap(), "alpine")).manifest(&tag("3")).await.unwrap();
    assert_eq!(found.bytes(), manifest.bytes());
}

#[tokio::test]
async fn layers_that_were_compressed_are_named_by_their_bytes() {
    let gzip = b"\x1f\x8bnot really";
    let tar = Tar::new().file("c0ffee.json", config()).file("1", gzip).file("2", LAYERS[1]);
    let (_dir, layout) = open(&tar.json("manifest.json", &saved(["1", "2"])).bytes());
    let layout = layout.unwrap();
    let manifest = reader(&named(&layout, "alpine")).manifest(&tag("3")).await.unwrap();
    let layer = manifest.blobs()[1].clone();
    assert_eq!(layer.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(layer.digest, Digest::sha256(gzip));
}

/// An image layout whose names stand in `manifest.json` only.
fn layout_with_saved_names() -> Tar {
    let config = config();
    let at = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let named = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len()});
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "layers": [],
        "config": named("application/vnd.oci.image.config.v1+json", config.as_bytes()),
    })
    .to_string();
    let config_at = at(&Digest::sha256(config.as_bytes()));
    Tar::new()
        .file(&config_at, &config)
        .file(&at(&Digest::sha256(manifest.as_bytes())), &manifest)
        .json("index.json", &json!({"schemaVersion": 2, "manifests": [named(kind, manifest.as_bytes())]}))
        .json("manifest.json", &json!([{"Config": config_at, "RepoTags": ["alpine:3", "b:1"], "Layers": []}]))
        .json("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))
}

#[tokio::test]
async fn names_of_manifest_json_are_those_of_the_layout() {
    let (_dir, layout) = open(&layout_with_saved_names().bytes());
    let layout = layout.unwrap();
    let names: Vec<_> = layout.images().unwrap().into_iter().map(|e| e.name.unwrap().familiar()).collect();
    assert_eq!(names, ["alpine", "b"]);
    reader(&named(&layout, "b")).manifest(&tag("1")).await.unwrap();
    // Who names no image gets the only one of the tag.
    reader(&layout).manifest(&tag("3")).await.unwrap();
}

fn refused(bytes: &[u8], words: &str) {
    let error = open(bytes).1.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn what_is_no_archive_of_images_is_refused_in_plain_words() {
    refused(b"", "it is empty");
    refused(
        b"\x1f\x8b\x08 and more",
        "compressed with gzip, and blobs can only be found in a plain tar file; unpack it first: gunzip",
    );
    refused(b"\x28\xb5\x2f\xfd and more", "unzstd");
    refused(b"\xfd7zXZ\0 and more", "unxz");
    refused(b"BZh9 and more", "bunzip2");
    refused(&[7; 2000], "it is no tar file");
    let mut torn = Tar::new().file("a", "x").file("b", "y").bytes();
    torn[1024] ^= 1;
    refused(&torn, "no header of a tar entry at byte 1024");
    refused(&Tar::new().bytes(), "neither index.json nor manifest.json");
    refused(&Tar::new().file("index.json", "{}").bytes(), "no file oci-layout");
    let mark = || Tar::new().json("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}));
    refused(&mark().file("index.json", "{}").bytes(), "no list of manifests");
    refused(&mark().file("index.json", "[").bytes(), "index.json");
    refused(&Tar::new().file("manifest.json", "{}").bytes(), "manifest.json");
    refused(
        &Tar::new().json("manifest.json", &saved(["a", "b"])).bytes(),
        "names \"c0ffee.json\", which is missing",
    );
    let config_only = || Tar::new().file("c0ffee.json", config());
    refused(
        &config_only().json("manifest.json", &saved(["a", "b"])).bytes(),
        "names \"a\", which is missing",
    );
    let one = json!([{"Config": "c0ffee.json", "RepoTags": null, "Layers": ["a"]}]);
    refused(&config_only().json("manifest.json", &one).bytes(), "names 2 layers, there are 1");
    let many = json!([{"Config": "c0ffee.json", "RepoTags": null, "Layers": vec!["a"; 10_001]}]);
    refused(&config_only().json("manifest.json", &many).bytes(), "are more than 10000");
    let large = vec![b' '; MAX_MANIFEST_SIZE as usize + 1];
    let large = Tar::new().file("c0ffee.json", large).json("manifest.json", &saved(["a", "b"]));
    refused(&large.bytes(), "more than 4194304");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Layout::open_archive(dir.path()).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(Layout::open_archive(dir.path().join("absent")).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn names_stay_in_the_archive() {
    for name in ["../a", "a/../b", "a/.."] {
        refused(&Tar::new().file(name, "x").bytes(), "leads out of it");
    }
    refused(&Tar::new().file("/etc/passwd", "x").bytes(), "is absolute");
    refused(&Tar::new().pax("path", "/etc/passwd").file("x", "x").bytes(), "is absolute");
    let with = |kind, link| {
        Tar::new()
            .file("c0ffee.json", config())
            .file("b", LAYERS[1])
            .entry("a", kind, link, b"")
            .json("manifest.json", &saved(["a", "b"]))
            .bytes()
    };
    refused(&with(EntryType::Symlink, "../../etc/passwd"), "leads out of it");
    refused(&with(EntryType::Symlink, "/etc/passwd"), "is absolute");
    refused(&with(EntryType::Link, "/etc/passwd"), "is absolute");
    refused(&with(EntryType::Symlink, "a"), "leads in a circle");
    refused(&with(EntryType::Symlink, "absent"), "which is missing");
    refused(
        &Tar::new()
            .file("manifest.json", saved(["../a", "b"]).to_string())
            .file("c0ffee.json", config())
            .bytes(),
        "leads out of it",
    );
}

#[test]
fn sizes_are_not_believed() {
    refused(&Tar::new().entry("a", EntryType::GNUSparse, "", b"").bytes(), "sparse");
    refused(&Tar::new().pax("GNU.sparse.major", "1").file("a", "").bytes(), "sparse");
    refused(&Tar::new().pax("size", "many").file("a", "").bytes(), "a size that is no number");
    refused(&Tar::new().pax("size", "18446744073709551615").file("a", "").bytes(), "impossible size");
    refused(&Tar::new().pax("size", "100000").file("a", "").bytes(), "cut short");
    refused(&Tar::new().entry("x", EntryType::GNULongName, "", &[b'a'; 70_000]).bytes(), "is too long");
    refused(
        &Tar::new().entry("x", EntryType::GNULongName, "", &[b'a'; 5000]).file("a", "").bytes(),
        "is too long",
    );
    refused(&Tar::new().entry("x", EntryType::GNULongName, "", b"name").bytes(), "stands at its end");
    let whole = layout_with_saved_names().bytes();
    refused(&whole[..700], "cut short");
    refused(&whole[..1100], "cut short");
    let mut endless = Vec::new();
    let one = Tar::new().file("a", "").bytes()[..512].to_vec();
    for _ in 0..=200_000 {
        endless.write_all(&one).unwrap();
    }
    refused(&endless, "more than 200000 entries");
}

/// Reads everything that an archive says to hold.
async fn read_all(path: &Path) {
    let Ok(layout) = Layout::open_archive(path) else { return };
    for entry in layout.images().unwrap() {
        let repository = reader(&layout);
        let Ok(manifest) = repository.manifest(&Reference::Digest(entry.digest)).await else { continue };
        for blob in manifest.blobs() {
            if let Ok(found) = repository.blob(&blob.digest, ByteRange::ALL).await {
                found.into_bytes().await.unwrap();
            }
        }
        repository.referrers(&entry.digest, None, Default::default()).await.unwrap();
    }
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![Just(old_save().bytes()), Just(layout_with_saved_names().bytes())];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 0..12);
    (whole, changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut bytes, changes, cut, is_cut)| {
            for (at, value, digit) in changes {
                let at = at.index(bytes.len());
                // Digits hit the sizes of headers and the numbers of JSON.
                bytes[at] = if digit { b'0' + value % 10 } else { value };
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            for header in (0..bytes.len() / 512).map(|block| block * 512) {
                repair(&mut bytes[header..header + 512]);
            }
            bytes
        },
    )
}

/// Makes the checksum of what looks like a header right, so that more than checksums is tested.
fn repair(block: &mut [u8]) {
    if &block[257..262] == b"ustar" {
        let mut header = Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_archive_makes_ferry_panic(bytes in mutated()) {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&dir, &bytes);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read_all(&path));
        // The same as a part file and as a base: both are only taken for what can be verified.
        fs::write(dir.path().join(".other.tar.ferry-part"), &bytes).unwrap();
        let part = Layout::create_archive(dir.path().join("other.tar"), Default::default()).unwrap();
        prop_assert!(part.finish().unwrap());
        prop_assert!(Layout::open_archive(dir.path().join("other.tar")).unwrap().images().unwrap().is_empty());
        if let Ok(layout) = Layout::create_archive(&path, Default::default()) {
            prop_assert!(!layout.finish().unwrap(), "nothing was asked for");
        }
        prop_assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
