//! The air gap: archives that are written on one side and read on the other.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ferry_layout::{ImageName, Layout};
use ferry_oci::{ImageReference, Reference, fallback_tag};
use ferry_store::{PageRequest, Scope, Store};
use ferry_testkit::images::{Image, ImageBuilder, Inventory, Layer, MediaTypes, NamedImage, verify};

use crate::artifacts::{artifact, cosign};
use crate::harness::{Ferry, Ran, Served, check, push, reader, remote, writer};

const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64/v8", "linux/s390x"];

/// Size of the layer that no other image and no other version has.
const OWN: usize = 20_000;

/// A version of an image: on every platform a large layer that all share, and a small one of its own.
pub fn image(repository: &str, number: u64, version: u64) -> NamedImage {
    let mut builder = ImageBuilder::new(if number == 2 { MediaTypes::Docker } else { MediaTypes::Oci });
    for (at, platform) in (0..).zip(PLATFORMS) {
        let own = Layer::random(1000 * number + 100 * version + at + 10, OWN);
        builder = builder.platform(platform, [Layer::random(at, 400_000), own]);
    }
    let (repository, tag) = (repository.parse().unwrap(), "v1".parse().unwrap());
    NamedImage { repository, tag, image: builder.build() }
}

/// Six images, all of them with the tag `v1`.
pub fn images() -> Vec<NamedImage> {
    let names = ["team/api", "team/worker", "team/web", "tools/a", "tools/b", "alpine"];
    (1..).zip(names).map(|(number, name)| image(name, number, 0)).collect()
}

/// A registry outside, and somebody who copies from it.
pub struct Gap {
    pub ferry: Ferry,
    pub outside: Served,
}

impl Gap {
    pub async fn new(images: &[NamedImage]) -> Self {
        let ferry = Ferry::new();
        let outside = ferry.serve(&ferry.path("outside"), 0).await;
        push(images, &outside.host()).await;
        Self { ferry, outside }
    }

    pub fn name(&self, named: &NamedImage) -> String {
        format!("{}/{}:{}", self.outside.host(), named.repository, named.tag)
    }

    pub async fn export(&self, images: &[NamedImage], arguments: &[&str]) -> Ran {
        let names: Vec<String> = images.iter().map(|named| self.name(named)).collect();
        let mut all = [&["copy"], arguments].concat();
        all.extend(names.iter().map(String::as_str));
        self.ferry.run(&all).await
    }

    /// Everything that an archive has of these images, bit by bit.
    pub async fn held(&self, path: &Path, images: &[NamedImage]) -> Inventory {
        let archive = Layout::open_archive(path).unwrap();
        let mut all = Inventory::default();
        for named in images {
            let name: ImageReference = self.name(named).parse().unwrap();
            let layout = archive.named(Some(&ImageName::from(&name)));
            let reader = layout.repository(&Scope::Hosted, &"any".parse().unwrap());
            let tag = Reference::Tag(named.tag.clone());
            let root = reader.resolve(&tag).await.unwrap();
            assert_eq!(root.descriptor.digest, named.image.root.digest());
            all.merge(verify(&*reader, &tag).await.unwrap());
        }
        all
    }
}

/// Names of the files in a directory.
pub fn files(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

async fn sign(host: &str, named: &NamedImage) -> [Image; 3] {
    let store = remote(host);
    let repository = writer(&*store, &named.repository);
    let root = &named.image.root;
    let (of_root, of_platform) = (artifact(root, "signature"), artifact(&named.image.manifests[0], "sbom"));
    let tagged = crate::artifacts::signature();
    of_root.push_to(&*repository, None).await.unwrap();
    of_platform.push_to(&*repository, None).await.unwrap();
    tagged.push_to(&*repository, Some(&cosign(root))).await.unwrap();
    [of_root, of_platform, tagged]
}

/// What belongs to an image is at `host`, whole.
async fn is_signed(host: &str, named: &NamedImage, [of_root, of_platform, tagged]: &[Image; 3]) {
    let repository = reader(host, named.repository.as_str());
    for (subject, referrer) in [(&named.image.root, of_root), (&named.image.manifests[0], of_platform)] {
        let page = repository.referrers(&subject.digest(), None, PageRequest::default()).await.unwrap();
        assert_eq!(page.items.iter().map(|item| item.digest).collect::<Vec<_>>(), [referrer.root.digest()]);
        verify(&*repository, &Reference::Digest(referrer.root.digest())).await.unwrap();
    }
    let found = repository.resolve(&Reference::Tag(cosign(&named.image.root))).await.unwrap();
    assert_eq!(found.descriptor.digest, tagged.root.digest());
    verify(&*repository, &Reference::Digest(tagged.root.digest())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_follows_what_was_brought_before() {
    let mut images = images();
    let gap = Gap::new(&images).await;
    let first = sign(&gap.outside.host(), &images[0]).await;
    gap.export(&images, &["--to", "oci-archive:full.tar"]).await.ok();
    gap.held(&gap.ferry.path("full.tar"), &images).await;

    // One image changes, one is new, in a repository of its own.
    images[1] = image("team/worker", 2, 1);
    images.push(image("tools/new", 7, 0));
    push(&images, &gap.outside.host()).await;
    let second = sign(&gap.outside.host(), &images[6]).await;
    gap.export(&images, &["--except", "full.tar", "--to", "oci-archive:step.tar"]).await.ok();
    let size = fs::metadata(gap.ferry.path("step.tar")).unwrap().len();
    let layers = 2 * PLATFORMS.len() * OWN;
    assert!((layers..layers + 100_000).contains(&(size as usize)), "{size} bytes, {layers} of them layers");

    let inside = gap.ferry.serve(&gap.ferry.path("inside"), 0).await;
    let host = inside.host();
    let import = async |archive: &str| gap.ferry.run(&["copy", "--to", &host, archive]).await;
    let early = import("oci-archive:step.tar").await;
    assert_eq!(early.code, Some(4), "{early:?}");
    let said =
        "this archive was made with --except full.tar; import full.tar first, or name all of them in one run";
    assert_eq!(early.out.matches(said).count(), images.len(), "{}", early.out);
    assert_eq!(early.err, "", "the error says what to do");

    let full = import("oci-archive:full.tar").await.ok();
    assert!(full.out.contains("6 images: 6 copied"), "{}", full.out);
    import("oci-archive:step.tar").await.ok();
    check(&images, &host, "").await;
    is_signed(&host, &images[0], &first).await;
    is_signed(&host, &images[6], &second).await;
    let again = import("oci-archive:step.tar").await.ok();
    assert!(again.out.contains("7 images: 7 unchanged"), "{}", again.out);
}

/// The machine that imports need not be the one that imported before: nothing is remembered of the target.
#[tokio::test(flavor = "multi_thread")]
async fn both_archives_in_one_run_need_no_memory() {
    let old = images();
    let gap = Gap::new(&old).await;
    gap.export(&old, &["--to", "oci-archive:full.tar"]).await.ok();
    let new = [image("tools/new", 7, 0)];
    push(&new, &gap.outside.host()).await;
    gap.export(&new, &["--except", "full.tar", "--to", "oci-archive:step.tar"]).await.ok();

    let inside = gap.ferry.serve(&gap.ferry.path("inside"), 0).await;
    let host = inside.host();
    let copy = ["copy", "--state-dir", "one", "--to", &host, "oci-archive:full.tar"];
    gap.ferry.run(&copy).await.ok();
    let both = ["copy", "--state-dir", "two", "--to", &host, "oci-archive:full.tar", "oci-archive:step.tar"];
    gap.ferry.run(&both).await.ok();
    check(&[old, new.to_vec()].concat(), &host, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_has_everything_is_not_touched() {
    let images = images();
    let gap = Gap::new(&images).await;
    let arguments = ["--to", "oci-archive:out/all.tar"];
    fs::create_dir(gap.ferry.path("out")).unwrap();
    gap.export(&images[..5], &arguments).await.ok();
    let path = gap.ferry.path("out/all.tar");
    let identity = || {
        let found = fs::metadata(&path).unwrap();
        (found.ino(), found.mtime(), found.mtime_nsec(), found.len())
    };
    let before = identity();
    let again = gap.export(&images[..5], &arguments).await.ok();
    assert!(again.out.contains("5 images: 5 unchanged"), "{}", again.out);
    assert_eq!(identity(), before);

    let more = gap.export(&images, &arguments).await.ok();
    assert!(more.out.contains("6 images: 1 copied, 5 unchanged"), "{}", more.out);
    gap.held(&path, &images).await;
    assert_eq!(files(path.parent().unwrap()), ["all.tar".to_owned()].into());

    // The same file, now also for docker load.
    let docker = ["--to", "docker-archive:out/all.tar"];
    let loadable = gap.export(&images, &docker).await.ok();
    assert!(loadable.out.contains("6 images: 6 unchanged"), "{}", loadable.out);
    let content = fs::read(&path).unwrap();
    assert!(content.windows(8).any(|window| window == b"RepoTags"), "it has manifest.json");
    gap.held(&path, &images).await;
    let before = identity();
    gap.export(&images, &docker).await.ok();
    assert_eq!(identity(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_become_others() {
    let images = images();
    let gap = Gap::new(&images).await;
    let signatures = sign(&gap.outside.host(), &images[3]).await;
    gap.export(&images, &["--to", "oci-archive:a.tar"]).await.ok();
    gap.ferry.run(&["copy", "--to", "docker-archive:b.tar", "oci-archive:a.tar"]).await.ok();
    gap.ferry.run(&["copy", "--to", "oci:layout", "docker-archive:b.tar"]).await.ok();
    gap.ferry.run(&["copy", "--to", "oci-archive:c.tar", "oci:layout"]).await.ok();
    let inventory = gap.held(&gap.ferry.path("a.tar"), &images).await;
    for archive in ["b.tar", "c.tar"] {
        assert_eq!(gap.held(&gap.ferry.path(archive), &images).await, inventory);
    }
    let inside = gap.ferry.serve(&gap.ferry.path("inside"), 0).await;
    gap.ferry.run(&["copy", "--to", &inside.host(), "oci-archive:c.tar"]).await.ok();
    check(&images, &inside.host(), "").await;
    is_signed(&inside.host(), &images[3], &signatures).await;

    // A single image without names, as SOURCE TARGET says it.
    let name = gap.name(&images[0]);
    gap.ferry.run(&["copy", &name, "oci-archive:one.tar"]).await.ok();
    gap.ferry.run(&["copy", "oci-archive:one.tar", "docker-archive:two.tar"]).await.ok();
    let there = format!("{}/one:v1", inside.host());
    gap.ferry.run(&["copy", "docker-archive:two.tar", &there]).await.ok();
    let one = NamedImage { repository: "one".parse().unwrap(), ..images[0].clone() };
    check(&[one], &inside.host(), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_platforms_in_archives_and_directories() {
    let images = [image("team/api", 1, 0)];
    let gap = Gap::new(&images).await;
    let root = images[0].image.root.digest();
    let arguments = ["--platform", "arm64", "--platform-mode", "sparse", "--to"];
    for to in ["oci-archive:some.tar", "docker-archive:docker.tar", "oci:some"] {
        let ran = gap.export(&images, &[&arguments[..], &[to]].concat()).await.ok();
        assert!(ran.out.contains(&root.to_string()), "the index is as it was: {}", ran.out);
        assert!(ran.out.contains("3 blobs"), "{to}: {}", ran.out);
        let again = gap.export(&images, &[&arguments[..], &[to]].concat()).await.ok();
        assert!(again.out.contains("1 image: 1 unchanged"), "{to}: {}", again.out);
    }
    let read = Layout::open_archive(gap.ferry.path("some.tar")).unwrap();
    let entries = read.images().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.digest).collect::<Vec<_>>(), [root]);
    let repository = read.repository(&Scope::Hosted, &"any".parse().unwrap());
    for (child, there) in images[0].image.root.children().iter().zip([false, true, false]) {
        let found = repository.manifest(&Reference::Digest(child.digest)).await;
        assert_eq!(found.is_ok(), there, "{child:?}");
    }
    // Nobody finds the rest of it in there.
    let inside = gap.ferry.serve(&gap.ferry.path("inside"), 0).await;
    let all = gap.ferry.run(&["copy", "--to", &inside.host(), "oci-archive:some.tar"]).await;
    assert_eq!(all.code, Some(4), "{all:?}");
    let one =
        ["copy", "--platform", "arm64", "--platform-mode", "single", "--to", &inside.host(), "oci:some"];
    gap.ferry.run(&one).await.ok();
    let alone = reader(&inside.host(), "team/api").manifest(&"v1".parse().unwrap()).await.unwrap();
    assert_eq!(alone.digest(), images[0].image.root.children()[1].digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_looked_at() {
    let images = images();
    let gap = Gap::new(&images).await;
    sign(&gap.outside.host(), &images[0]).await;
    gap.export(&images, &["--to", "oci-archive:all.tar"]).await.ok();
    let name = format!("oci-archive:all.tar:{}", gap.name(&images[0]));
    let inspected = gap.ferry.run(&["inspect", &name]).await.ok();
    assert!(inspected.out.contains(&images[0].image.root.digest().to_string()), "{}", inspected.out);
    assert!(inspected.out.contains("linux/s390x"), "{}", inspected.out);

    let named = format!("oci-archive:all.tar:{}/team/api", gap.outside.host());
    let tags = gap.ferry.run(&["tags", &named]).await.ok();
    assert!(tags.out.lines().any(|line| line.starts_with("v1")), "{}", tags.out);
    assert!(!tags.out.contains(fallback_tag(&images[1].image.root.digest()).as_str()), "{}", tags.out);
    let several = gap.ferry.run(&["inspect", "oci-archive:all.tar"]).await;
    assert_eq!(several.code, Some(2), "{several:?}");
    assert!(several.err.contains("add :TAG, :NAME:TAG or @DIGEST"), "{}", several.err);

    let content = fs::read(gap.ferry.path("all.tar")).unwrap();
    let deleted = gap.ferry.run(&["delete", "--yes", &name]).await;
    assert_eq!(deleted.code, Some(2), "{deleted:?}");
    assert!(
        deleted.err.contains("nothing is removed from an archive; copy what is to stay into a new one"),
        "{}",
        deleted.err
    );
    assert!(fs::read(gap.ferry.path("all.tar")).unwrap() == content);
}
