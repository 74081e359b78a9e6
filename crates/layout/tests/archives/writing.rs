//! What is written, what is left of archives that were not finished.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;
use ferry_layout::{ArchiveOptions, Layout};
use ferry_oci::{Algorithm, Digest, Reference};
use ferry_store::{Begun, ByteRange, Expect, Kind, Mount, Scope, Store};
use serde_json::json;

use super::fixtures::*;

#[tokio::test]
async fn two_names_with_one_tag_stand_beside_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let images = [image(10), image(20)];
    let write = async |path: &Path| {
        let layout = create(path);
        push(&layout, &images[0], "alpine", "3").await;
        push(&layout, &images[1], "quay.io/team/app", "3").await;
        assert!(!path.exists(), "it has no name before it is finished");
        assert!(layout.finish().unwrap());
    };
    let [first, second] = ["a.tar", "b.tar"].map(|file| dir.path().join(file));
    write(&first).await;
    write(&second).await;
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap(), "always the same bytes");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside them");
    assert_holds(&first, "alpine", "3", &images[0]).await;
    assert_holds(&first, "quay.io/team/app", "3", &images[1]).await;

    let entries = Layout::open_archive(&first).unwrap().images().unwrap();
    let listed: Vec<_> = entries.iter().map(|e| (e.name.clone(), e.tag.clone(), e.digest)).collect();
    let expected = [("alpine", 0), ("quay.io/team/app", 1)]
        .map(|(of, at)| (Some(name(of)), Some(tag("3")), images[at].root.digest()));
    assert_eq!(listed, expected);
    let annotations = &json_of(&first, "index.json")["manifests"][0]["annotations"];
    let full = concat!("docker.io/", "library/alpine:3");
    assert_eq!(
        *annotations,
        json!({"io.containerd.image.name": full, "org.opencontainers.image.ref.name": "3"})
    );
    let nameless = Layout::open_archive(&first).unwrap().repository(&Scope::Hosted, &"a".parse().unwrap());
    fails(nameless.manifest(&Reference::Tag(tag("3"))).await, Kind::NotFound, "3");
    assert!(nameless.tags(Default::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn an_archive_that_has_everything_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    let (first, second) = (image(10), image(20));
    let layout = create(&path);
    push(&layout, &first, "a", "1").await;
    assert!(layout.finish().unwrap());
    fails(writer(&layout).put_manifest(&first.root, None).await, Kind::Denied, "finished");
    let inode = fs::metadata(&path).unwrap().ino();

    let again = create(&path);
    push(&again, &first, "a", "1").await;
    assert!(!again.finish().unwrap());
    drop(again);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let more = create(&path);
    push(&more, &second, "b", "1").await;
    assert!(more.finish().unwrap());
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    assert_holds(&path, "a", "1", &first).await;
    assert_holds(&path, "b", "1", &second).await;

    let fewer = create(&path);
    let gone = Reference::Digest(first.root.digest());
    writer(&fewer).delete_manifest(&gone).await.unwrap();
    assert!(fewer.finish().unwrap());
    fails(writer(&fewer).manifest(&gone).await, Kind::NotFound, "");
    assert_eq!(Layout::open_archive(&path).unwrap().images().unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_killed_process_has_left_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    let image = image(10);
    let stray = Bytes::from(vec![7; 100_000]);
    {
        let layout = create(&path);
        let half = begin(&layout, &Bytes::from(vec![9; 5000])).await;
        push(&layout, &image, "a", "1").await;
        put(&layout, &stray).await;
        drop(half);
        fails(
            Layout::create_archive(&path, ArchiveOptions::default()).map(drop),
            Kind::Unavailable,
            "another process",
        );
    }
    let whole = fs::read(part(&path)).unwrap();
    // Whole, cut anywhere, with bytes that were never flushed, with bytes that are none of ours.
    let cuts = [whole.len(), whole.len() - 700, whole.len() / 2, 100_000, 513, 512, 100, 0];
    let mut found = cuts.map(|cut| whole[..cut].to_vec()).to_vec();
    let mut lost = whole.clone();
    lost[60_000..90_000].fill(0);
    found.push(lost);
    let mut garbage = whole.clone();
    garbage.extend(vec![0xaa; 3000]);
    found.push(garbage);
    found.push(vec![0x55; 100_000]);
    for content in found {
        let _ = fs::remove_file(&path);
        fs::write(part(&path), &content).unwrap();
        let layout = create(&path);
        let mut known = 0;
        for digest in image.blobs.keys() {
            known += usize::from(writer(&layout).stat(digest).await.unwrap().is_some());
        }
        match content.starts_with(&whole) {
            true => assert_eq!(known, image.blobs.len(), "all of them are whole"),
            false if content.len() < 1000 => assert_eq!(known, 0),
            false => {}
        }
        push(&layout, &image, "a", "1").await;
        assert!(layout.finish().unwrap());
        assert_holds(&path, "a", "1", &image).await;
        let names = unpacked(&path);
        assert_eq!(names.len(), image.blobs.len() + image.manifests.len() + 2, "{:?}", names.keys());
    }
}

/// An image without a tag is known by its digest alone: found before anything reaches it, it would be lost at the end.
#[tokio::test]
async fn a_manifest_that_was_left_counts_when_it_is_put_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    let image = image(10);
    let untagged = async || {
        let layout = create(&path);
        let reference = Reference::Digest(image.root.digest());
        let found = writer(&layout).resolve(&reference).await.map(drop);
        fails(found, Kind::NotFound, &image.root.digest().to_string());
        image.push_to(&*writer(&layout), None).await.unwrap();
        writer(&layout).resolve(&reference).await.unwrap();
        layout
    };
    drop(untagged().await);
    let layout = untagged().await;
    assert!(layout.finish().unwrap());
    let entries = Layout::open_archive(&path).unwrap().images().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.digest).collect::<Vec<_>>(), [image.root.digest()]);
}

#[tokio::test]
async fn regions_of_failed_uploads_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let [clean, path] = ["clean.tar", "images.tar"].map(|file| dir.path().join(file));
    let contents: Vec<Bytes> = (0..4u8).map(|fill| Bytes::from(vec![fill; 10_000 + fill as usize])).collect();
    let tidy = create(&clean);
    for content in &contents[1..] {
        put(&tidy, content).await;
    }
    tidy.finish().unwrap();

    let layout = create(&path);
    let mut failed = begin(&layout, &contents[0]).await;
    failed.write(contents[0].slice(..9000)).await.unwrap();
    put(&layout, &contents[1]).await;
    let before = fs::metadata(part(&path)).unwrap().len();
    failed.abort().await.unwrap();
    put(&layout, &contents[2]).await;
    assert_eq!(fs::metadata(part(&path)).unwrap().len(), before, "in the place of the failed one");
    let last = begin(&layout, &Bytes::from(vec![0; 1_000_000])).await;
    drop(last);
    assert_eq!(fs::metadata(part(&path)).unwrap().len(), before, "cut off");
    let hole = begin(&layout, &Bytes::from(vec![0; 100])).await;
    put(&layout, &contents[3]).await;
    hole.abort().await.unwrap();
    layout.finish().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), fs::metadata(&clean).unwrap().len(), "compact");
    let files = unpacked(&path);
    assert_eq!(files, unpacked(&clean));
    for content in &contents[1..] {
        let found = writer(&layout).blob(&Digest::sha256(content), ByteRange::ALL).await.unwrap();
        assert_eq!(found.into_bytes().await.unwrap(), content, "also after it was moved");
    }
}

#[tokio::test]
async fn promises_that_are_not_kept_harm_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.tar");
    let layout = create(&path);
    let bytes = Bytes::from_static(b"some bytes");
    let expect = |size| Expect { digest: None, size, mount: Mount::No };
    let begun = async |size| match writer(&layout).begin(expect(size)).await.unwrap() {
        Begun::Upload(upload) => upload,
        other => panic!("{other:?}"),
    };
    for (size, fits) in [(Some(9), false), (Some(11), false), (Some(10), true), (None, true)] {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut upload = begun(size).await;
            upload.write(bytes.clone()).await.unwrap();
            let digest = Digest::of(algorithm, &bytes);
            let done = upload.commit(&digest).await;
            assert_eq!(done.is_ok(), fits, "{size:?} {done:?}");
            assert_eq!(writer(&layout).stat(&digest).await.unwrap().is_some(), fits);
        }
    }
    fails(writer(&layout).begin(expect(Some(u64::MAX))).await, Kind::Full, "");
    layout.finish().unwrap();
    assert_eq!(unpacked(&path).len(), 4);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_no_layout_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious");
    fs::write(&path, b"no archive").unwrap();
    fails(Layout::create_archive(&path, ArchiveOptions::default()), Kind::Invalid, "no tar file");
    assert_eq!(fs::read(&path).unwrap(), b"no archive");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let absent = dir.path().join("absent/images.tar");
    fails(Layout::create_archive(absent, ArchiveOptions::default()), Kind::NotFound, "make it first");

    let path = dir.path().join("images.tar");
    let layout = create(&path);
    push(&layout, &image(1), "a", "1").await;
    layout.discard().unwrap();
    fails(writer(&layout).put_manifest(&image(1).root, None).await, Kind::Denied, "");
    assert!(!layout.finish().unwrap());
    drop(layout);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

mod small_disks {
    use super::*;

    const DISK: &str = "FERRY_TEST_SMALL_DISK";

    /// The test calls itself in a mount namespace of its own.
    #[tokio::test]
    async fn a_full_disk_is_no_end() {
        if let Some(disk) = std::env::var_os(DISK) {
            return on_small_disk(Path::new(&disk)).await;
        }
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs -o size=1m none \"${DISK}\" && exec \"$0\" --exact writing::small_disks::a_full_disk_is_no_end"
        );
        let output = std::process::Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env(DISK, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
    }

    async fn on_small_disk(disk: &Path) {
        let path = disk.join("images.tar");
        let image = image(10);
        let layout = create(&path);
        push(&layout, &image, "a", "1").await;
        let large = Bytes::from(vec![1; 2 << 20]);
        let mut upload = begin(&layout, &large).await;
        let written = upload.write(large.clone()).await;
        fails(written, Kind::Full, "");
        drop(upload);
        layout.finish().unwrap();
        assert_holds(&path, "a", "1", &image).await;
    }
}
